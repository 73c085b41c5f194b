"""Keeps a process's leases alive while it works, and says so the moment one is lost.

One thread renews all that the process holds in one statement, on the registry's clock; the same statement
says that the process lives. Two things end the right to a job: somebody else claimed it (the fencing token
rose), or the registry could not be reached for so long that somebody may have. The second is judged by this
machine's monotonic clock, a margin before the lease would run out, so that a worker which is cut off stops
its Terraform child before another one starts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from controlplane.domain.errors import LeaseLost
from controlplane.domain.job import Job, Lane
from controlplane.store import job as jobs
from controlplane.store.registry import Connection, Registry, RegistryUnavailable

log = logging.getLogger(__name__)


class Heartbeat:
    """Of one process, which holds its jobs as `holder`. `seconds`: a lease's length, `every`: between two
    renewals. `lanes`, `version`: what others see of it."""

    def __init__(
        self,
        registry: Registry,
        holder: str,
        *,
        seconds: float,
        every: float,
        lanes: Sequence[Lane] = tuple(Lane),
        version: str = "",
    ) -> None:
        self.holder, self.seconds, self.every, self.lanes = holder, seconds, every, lanes
        self.registry = registry
        self._version = version
        self._holds: dict[int, Hold] = {}
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self.renewed = float("-inf")

    @contextmanager
    def holding(self, job: Job) -> Iterator[Hold]:
        """From its claim to its end."""
        hold = Hold(job, self)
        with self._guard:
            self._holds[job.fencing_token] = hold
        self.start()
        try:
            yield hold
        finally:
            with self._guard:
                del self._holds[job.fencing_token]

    def start(self) -> None:
        """Beat from now on, whether anything is held or not; once."""
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=self.seconds)

    def _run(self) -> None:
        while not self._over.wait(self.every):
            try:
                self._beat()
            except RegistryUnavailable as error:
                log.warning("leases not renewed: %s", error)

    def _beat(self) -> None:
        with self._guard:
            holds = list(self._holds.values())
        before = time.monotonic()
        with self.registry.connection() as conn:
            kept = jobs.beat(
                conn,
                self.holder,
                [hold.job.fencing_token for hold in holds],
                lanes=self.lanes,
                version=self._version,
                seconds=self.seconds,
            )
        self.renewed = before
        for hold in holds:
            if hold.job.fencing_token not in kept:
                hold.lose()


class Hold:
    """One job in the hands of this process."""

    def __init__(self, job: Job, heartbeat: Heartbeat) -> None:
        self.job = job
        self._heartbeat = heartbeat
        self._since = time.monotonic()
        self._lost = False
        self.ended = False

    def lose(self) -> None:
        """Somebody else has it, or it has ended."""
        if not self.ended:
            log.warning("%s %s lost to another holder", self.job.kind, self.job.subject)
        self._lost = True

    def lost(self) -> bool:
        """True once this holder must stop. A process that was stopped (SIGSTOP) past its lease finds
        out here, before the next renewal."""
        beat = self._heartbeat
        age = time.monotonic() - max(self._since, beat.renewed)
        return self._lost or age > beat.seconds - beat.every

    def check(self) -> None:
        """Raises LeaseLost once this holder must stop."""
        if self.lost():
            raise LeaseLost(f"{self.job.kind} {self.job.subject}: the lease was lost")

    @contextmanager
    def recording(self) -> Iterator[Connection]:
        """A transaction that is refused once another holder has claimed."""
        with self._heartbeat.registry.connection() as conn, conn.transaction():
            jobs.guard(conn, self.job)
            yield conn

    def finish(self, conn: Connection, *, recorded: bool | None = None) -> None:
        """It is done, in the transaction that makes it so."""
        jobs.finish(conn, self.job, recorded=recorded)
        self.ended = True

    def put_back(self, conn: Connection, *, after: float = 0.0, lane: Lane | None = None) -> None:
        """It goes on later or elsewhere; nothing was wrong."""
        jobs.put_back(conn, self.job, after=after, lane=lane)
        self.ended = True
