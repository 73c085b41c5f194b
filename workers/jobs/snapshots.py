"""Snapshots from before a rollout: begin those that are wanted, see them through, remove the old ones.

Nothing waits here. A snapshot takes minutes, so its job looks at it, goes and is due again. Until a cluster's
snapshot is available no member on it is claimed (`services/rollouts.py`), so no worker's thread is held
meanwhile. One that can't be made fails the members that need it, which halts the rollout as any other failure
would: the rollout promised that it can be taken back.
"""

from __future__ import annotations

import logging

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Pending, Retryable
from controlplane.domain.rollout import SnapshotState
from controlplane.services import rollouts
from controlplane.store import rollout_snapshot
from controlplane.store.rollout_snapshot import SnapshotRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.engine.quota import require_quota

log = logging.getLogger(__name__)

POLL = 10.0  # seconds between two polls of one that is being made
AGAIN = 300.0  # seconds until one that could not be removed is tried again
_MADE = "available"
_BROKEN = frozenset({"failed", "incompatible-restore", "deleting"})


def work(ctx: Context, hold: Hold) -> float | None:
    """See one through, or remove it when its rollout is over and its days are; until then it waits."""
    with ctx.registry.connection() as conn:
        row = rollout_snapshot.get(conn, hold.job.subject)
    if row.state is SnapshotState.MAKING:
        _make(ctx, hold, row)
    if row.state is SnapshotState.DELETED or row.seconds_left is None:
        return None
    if row.seconds_left > 0:
        return row.seconds_left
    try:
        ctx.providers.snapshots.delete(row.name)
    except ControlPlaneError as error:
        raise Retryable(str(error), after=AGAIN) from error
    with hold.recording() as conn:
        rollout_snapshot.mark_deleted(conn, row)
    return None


def plans(ctx: Context) -> list[str]:
    """The plans that ask for a snapshot before a migration."""
    return [name for name, plan in ctx.catalogue.plans.items() if plan.snapshot_before_migration]


def _make(ctx: Context, hold: Hold, row: SnapshotRow) -> None:
    """Returns when it is made or can't be; raises Pending, or Retryable, until then."""
    tags = {
        "environment": ctx.platform.environment,
        "cluster": row.cluster_id,
        "rollout": str(row.rollout_id),
    }
    status, trouble, broken = None, None, None
    try:
        if ctx.providers.snapshots.describe(row.name) is None:
            require_quota(ctx, snapshots=1)
        status = ctx.providers.snapshots.ensure(row.cluster_id, row.name, tags=tags)
    except Retryable as error:
        trouble = str(error)
    except ControlPlaneError as error:
        broken = _message(error)
    if status in _BROKEN:
        broken = f"its status is {status}"
    elif status != _MADE and broken is None and row.overdue:
        broken = f"not available in time ({trouble or status})"
    with hold.recording() as conn:
        if status == _MADE:
            rollout_snapshot.mark_available(conn, row)
        elif broken is not None:
            log.warning("rollout %s: snapshot %s: %s", row.rollout_id, row.name, broken)
            rollouts.record_snapshot_failure(conn, row, broken, plans=plans(ctx))
        elif trouble is not None:
            rollout_snapshot.note(conn, row, trouble)
    if status != _MADE and broken is None:
        raise Pending(trouble or f"its status is {status}", after=POLL)


def _message(error: ControlPlaneError) -> str:
    return f"{error} (runbook {error.runbook})" if isinstance(error, NeedsHuman) else str(error)
