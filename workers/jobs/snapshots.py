"""Snapshots from before a rollout: begin those that are wanted, see them through, remove the old ones.

Nothing waits here. A snapshot takes minutes, so each pass looks at those that are due and goes; the
sweep notifies of the next one. Until a cluster's snapshot is available no target on it is claimed
(`services/rollouts.py`), so no worker's thread is held meanwhile. One that can't be made fails the
targets that need it, which halts the rollout as any other failure would: the rollout promised that it
can be taken back.
"""

from __future__ import annotations

import logging

from controlplane import task_names
from controlplane.domain.errors import ControlPlaneError, LeaseLost, NeedsHuman, Retryable
from controlplane.services import rollouts
from controlplane.store import rollout_snapshot
from controlplane.store.rollout_snapshot import SnapshotRow
from controlplane.workers.engine.context import Context

log = logging.getLogger(__name__)

TASK = task_names.TAKE_SNAPSHOTS
POLL = 10.0  # seconds between two polls of one that is being made
AGAIN = 300.0  # seconds until one that could not be removed is tried again
AT_MOST = 20  # of each kind in one pass
_MADE = "available"
_BROKEN = frozenset({"failed", "incompatible-restore", "deleting"})


def work(ctx: Context) -> int:
    """Look at those that are due; how many there were."""
    with ctx.registry.connection() as conn:
        making = rollout_snapshot.take_making(conn, limit=AT_MOST, again=POLL)
        expired = rollout_snapshot.take_expired(conn, limit=AT_MOST, again=AGAIN)
    for row, act in [*((row, _make) for row in making), *((row, _remove) for row in expired)]:
        try:
            act(ctx, row)
        except LeaseLost as error:
            log.warning("snapshot %s given up: %s", row.name, error)
    return len(making) + len(expired)


def plans(ctx: Context) -> list[str]:
    """The plans that ask for a snapshot before a migration."""
    return [name for name, plan in ctx.catalogue.plans.items() if plan.snapshot_before_migration]


def _make(ctx: Context, row: SnapshotRow) -> None:
    tags = {
        "environment": ctx.platform.environment,
        "cluster": row.cluster_id,
        "rollout": str(row.rollout_id),
    }
    status, trouble, broken = None, None, None
    try:
        status = ctx.providers.snapshots.ensure(row.cluster_id, row.name, tags=tags)
    except Retryable as error:
        trouble = str(error)
    except ControlPlaneError as error:
        broken = _message(error)
    if status in _BROKEN:
        broken = f"its status is {status}"
    elif status != _MADE and broken is None and row.overdue:
        broken = f"not available in time ({trouble or status})"
    with ctx.registry.connection() as conn:
        if status == _MADE:
            rollout_snapshot.mark_available(conn, row)
        elif broken is not None:
            log.warning("rollout %s: snapshot %s: %s", row.rollout_id, row.name, broken)
            rollouts.record_snapshot_failure(conn, row, broken, plans=plans(ctx))
        elif trouble is not None:
            rollout_snapshot.note(conn, row, trouble)


def _remove(ctx: Context, row: SnapshotRow) -> None:
    try:
        ctx.providers.snapshots.delete(row.name)
    except ControlPlaneError as error:
        log.warning("snapshot %s of rollout %s could not be removed: %s", row.name, row.rollout_id, error)
        return
    with ctx.registry.connection() as conn:
        rollout_snapshot.mark_deleted(conn, row)


def _message(error: ControlPlaneError) -> str:
    return f"{error} (runbook {error.runbook})" if isinstance(error, NeedsHuman) else str(error)
