"""Keeps a lease alive while its holder works, and says so the moment it is lost.

The thread renews on the registry's clock. Two things end the right: somebody else claimed (the fencing token
rose), or the registry could not be reached for so long that somebody may have. The second is judged by
this machine's monotonic clock, a margin before the lease would run out, so that a worker which is cut
off stops its Terraform child before another one starts.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from controlplane.domain.errors import LeaseLost
from controlplane.domain.operation import ClaimedOperation
from controlplane.store import lease
from controlplane.store.registry import Registry, RegistryUnavailable

log = logging.getLogger(__name__)


class LeaseHeartbeat:
    """Use as a context manager around a pass. `seconds`: the lease's length, `every`: between renewals."""

    def __init__(self, registry: Registry, held: ClaimedOperation, *, seconds: float, every: float) -> None:
        self.held = held
        self._registry = registry
        self._seconds = seconds
        self._every = every
        self._renewed = time.monotonic()
        self._done = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{held.resource_id}", daemon=True)

    def __enter__(self) -> LeaseHeartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=self._seconds)

    def lost(self) -> bool:
        """True once this holder must stop. A process that was stopped (SIGSTOP) past its lease finds
        out here, before the next renewal."""
        return self._lost.is_set() or time.monotonic() - self._renewed > self._seconds - self._every

    def check(self) -> None:
        """Raises LeaseLost once this holder must stop."""
        if self.lost():
            raise LeaseLost(f"{self.held.resource_id}: the lease was lost")

    def _run(self) -> None:
        while not self._done.wait(self._every):
            before = time.monotonic()
            try:
                with self._registry.connection() as conn:
                    lease.renew(conn, self.held, seconds=self._seconds)
            except LeaseLost:
                log.warning("lease of %s lost to another holder", self.held.resource_id)
                self._lost.set()
                return
            except RegistryUnavailable as error:
                log.warning("lease of %s not renewed: %s", self.held.resource_id, error)
            else:
                self._renewed = before
