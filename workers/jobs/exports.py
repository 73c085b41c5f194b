"""Makes exports, and deletes them when their days are over.

It only reads the tenant's database, so it takes no tenant's lease: a suspension or a purge does not wait for
a long dump, it cuts it off. What two workers must not do at once is decided by the export's own row, whose
hold is renewed while the dump runs; a worker that loses it stops.
"""

from __future__ import annotations

import logging
import time

from controlplane import task_names
from controlplane.domain.data_copy import CopyState
from controlplane.domain.errors import ControlPlaneError, LeaseLost, NotFound, Pending, Retryable
from controlplane.domain.operation import backoff
from controlplane.store import audit, cluster, data_copy, placement
from controlplane.store.data_copy import CopyRow
from controlplane.store.registry import RegistryUnavailable
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.observe import endpoint_of

log = logging.getLogger(__name__)

TASK = task_names.EXPORT
HOLD = 60.0
RENEW_EVERY = 15.0
ATTEMPTS = 5


def work(ctx: Context, export_id: int) -> bool:
    """Make one, or delete it; False where it is not due or in other hands. Raises RegistryUnavailable."""
    with ctx.registry.connection() as conn:
        taken = data_copy.take_export(conn, export_id, hold=HOLD)
    if taken is None:
        return False
    try:
        _carry_out(ctx, taken)
    except (LeaseLost, RegistryUnavailable) as error:
        log.warning("export %d given up: %s", export_id, error)
        if isinstance(error, RegistryUnavailable):
            raise
    return True


def _carry_out(ctx: Context, taken: CopyRow) -> None:
    try:
        if taken.state is CopyState.KEPT:
            _delete(ctx, taken)
        else:
            _make(ctx, taken)
    except (LeaseLost, RegistryUnavailable):
        raise
    except ControlPlaneError as error:
        _put_back(ctx, taken, error)


def _make(ctx: Context, taken: CopyRow) -> None:
    with ctx.registry.connection() as conn:
        placed = placement.current(conn, taken.tenant_id)
        home = None if placed is None else cluster.get(conn, placed.cluster_id)
    at = None if home is None else endpoint_of(home)
    if placed is None or at is None:
        raise NotFound(f"tenant {taken.tenant_id} has no database any more")
    credential = ctx.providers.secrets.read(placed.migrator_secret)
    hold = _Hold(ctx, taken)
    dump = ctx.providers.dumps.make(at, credential, name=taken.name, stopped=hold.lost)
    with ctx.registry.connection() as conn:
        data_copy.keep(conn, taken, manifest=dump.to_manifest())


def _delete(ctx: Context, taken: CopyRow) -> None:
    ctx.providers.dumps.delete(taken.name)
    with ctx.registry.connection() as conn, conn.transaction():
        data_copy.mark_deleted(conn, taken)
        audit.append(
            conn,
            actor="sweep",
            action="copy.delete",
            resource=taken.tenant_id,
            detail={"kind": taken.kind, "name": taken.name},
        )


def _put_back(ctx: Context, taken: CopyRow, error: ControlPlaneError) -> None:
    hopeless = not isinstance(error, Retryable) or taken.attempts >= ATTEMPTS
    log.warning("export %d, attempt %d: %s", taken.id, taken.attempts, error)
    with ctx.registry.connection() as conn:
        if taken.state is CopyState.MAKING and hopeless and not isinstance(error, Pending):
            data_copy.fail_export(conn, taken, error=str(error))
        else:
            data_copy.put_back_export(
                conn, taken, after=backoff(taken.attempts, jitter=1.0), error=str(error)
            )


class _Hold:
    """Renewed at most every RENEW_EVERY seconds, by the dump's own question whether it must stop."""

    def __init__(self, ctx: Context, taken: CopyRow) -> None:
        self._ctx = ctx
        self._taken = taken
        self._renewed = time.monotonic()

    def lost(self) -> bool:
        if time.monotonic() - self._renewed < RENEW_EVERY:
            return False
        with self._ctx.registry.connection() as conn:
            mine = data_copy.renew_export(conn, self._taken, hold=HOLD)
        self._renewed = time.monotonic()
        return not mine
