"""Makes exports, and deletes them when their days are over.

It only reads the tenant's database, so it has a lock of its own and not the tenant's: a suspension or a purge
does not wait for a long dump, it cuts it off. The job that made one asks for the one that deletes it.
"""

from __future__ import annotations

from controlplane.domain.data_copy import CopyState
from controlplane.domain.errors import NotFound
from controlplane.domain.job import CLOCK, Job, JobKind, Trouble
from controlplane.store import audit, cluster, data_copy, job, placement
from controlplane.store.data_copy import CopyRow
from controlplane.store.registry import Connection
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.engine.record import endpoint_of


def work(ctx: Context, hold: Hold) -> None:
    """Make one, or delete it."""
    with ctx.registry.connection() as conn:
        row = data_copy.get_export(conn, int(hold.job.subject))
    if row.state is CopyState.MAKING:
        _make(ctx, hold, row)
    elif row.state is CopyState.KEPT and row.overdue:
        _delete(ctx, hold, row)


def trouble(conn: Connection, failed: Job, what: Trouble) -> None:
    """What can't be made fails. What can't be deleted is tried again tomorrow: it must go."""
    row = data_copy.get_export(conn, int(failed.subject))
    data_copy.note(conn, row.id, what.message)
    if what.after is None and row.state is CopyState.MAKING:
        data_copy.fail_export(conn, row, error=what.message)
    elif what.after is None:
        job.ensure(conn, JobKind.EXPORT, failed.subject, after=DAY)


DAY = 86400.0


def _make(ctx: Context, hold: Hold, row: CopyRow) -> None:
    with ctx.registry.connection() as conn:
        placed = placement.current(conn, row.tenant_id)
        home = None if placed is None else cluster.get(conn, placed.cluster_id)
    at = None if home is None else endpoint_of(home)
    if placed is None or at is None:
        raise NotFound(f"tenant {row.tenant_id} has no database any more")
    dump = ctx.providers.dumps.make(at, placed, name=row.name, stopped=hold.lost)
    with hold.recording() as conn:
        data_copy.keep(conn, row, manifest=dump.to_manifest())
        job.ensure(conn, JobKind.EXPORT, hold.job.subject, after=row.keep_days * DAY)


def _delete(ctx: Context, hold: Hold, row: CopyRow) -> None:
    ctx.providers.dumps.delete(row.name)
    with hold.recording() as conn:
        data_copy.mark_deleted(conn, row)
        audit.append(
            conn,
            actor=CLOCK,
            action="copy.delete",
            resource=row.tenant_id,
            detail={"kind": row.kind, "name": row.name},
        )
