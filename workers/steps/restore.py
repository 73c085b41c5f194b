"""The acts of a restore: see `domain.restore` for its order and `moving` for what it shares with a move.

A restored cluster holds everybody's past, if everybody shared it: so its logins are closed before anything is
read from it, the one that reads gets a password that nobody else ever sees, and the cluster is let go in the
transaction that records the copy, or that gives the restore up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from controlplane.domain.cluster import Origin
from controlplane.domain.errors import NeedsHuman, NotFound, Pending
from controlplane.domain.placement import Placement
from controlplane.domain.restore import RUNBOOK, RestoreRequest, moment
from controlplane.domain.steps import StepName
from controlplane.services import restores
from controlplane.store import audit, cluster, move, placement, restore
from controlplane.store.restore import RestoreRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.record import endpoint_of
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.providers.ports import (
    ClusterEndpoint,
    Credential,
    Home,
    MoveRun,
    SnapshotDescription,
)
from controlplane.workers.steps.move import change_over, note_pause
from controlplane.workers.steps.registry import tenant_step
from controlplane.workers.steps.waiting import wait_for

UNTIL_RESTORABLE = 60.0
"""Seconds between two polls of a log that AWS has not stored up to the moment yet."""
STORED_WITHIN = timedelta(hours=1)
"""AWS stores the log within minutes; who waits for longer than this waits for nothing."""


@tenant_step(
    StepName.RESTORE_CLUSTER,
    "looks up which cluster the tenant lived on *then* and whether AWS can restore it; a "
    "temporary cluster is recorded, and made in its own operation",
    again="one transaction",
    both_placements=True,
)
def restore_cluster(work: TenantWork) -> None:
    found, requested = _move_id(work), _restore(work).requested
    home, origin = find_origin(work.ctx, work.record.row.id, requested)
    with work.recording() as conn:
        row = move.get(conn, found)
        restores.record_cluster(conn, row, home, origin, actor=work.job.actor)


def find_origin(ctx: Context, tenant_id: str, requested: RestoreRequest) -> tuple[Placement, Origin]:
    """The placement that it lived on then, and what its cluster is restored from. Raises Pending where AWS
    has not stored the log up to there yet, NeedsHuman("restore") where it can't be had."""
    if requested.at is not None:
        return _by_time(ctx, tenant_id, requested.at)
    found = ctx.providers.snapshots.describe(str(requested.snapshot))
    if found is None:
        raise NeedsHuman(f"there is no snapshot {requested.snapshot}", runbook=RUNBOOK)
    return _by_snapshot(ctx, tenant_id, found)


def _by_time(ctx: Context, tenant_id: str, at: datetime) -> tuple[Placement, Origin]:
    with ctx.registry.connection() as conn:
        home = restores.home_of(conn, tenant_id, at)
    found = ctx.providers.clusters.describe(home.cluster_id)
    if found is None:
        raise NeedsHuman(
            f"it lived on {home.cluster_id} at {moment(at)}, which is gone: only a snapshot can be restored",
            runbook=RUNBOOK,
        )
    if found.earliest_restorable is not None and at < found.earliest_restorable:
        raise NeedsHuman(
            f"{home.cluster_id} can be restored as it was after {moment(found.earliest_restorable)},"
            f" asked for was {moment(at)}",
            runbook=RUNBOOK,
        )
    if found.latest_restorable is not None and at > found.latest_restorable:
        stored = f"AWS has stored the log of {home.cluster_id} up to {moment(found.latest_restorable)}"
        if datetime.now(UTC) - at > STORED_WITHIN:
            raise NeedsHuman(f"{stored}, asked for was {moment(at)}", runbook=RUNBOOK)
        raise Pending(stored, after=UNTIL_RESTORABLE)
    return home, Origin(home.cluster_id, at=moment(at))


def _by_snapshot(ctx: Context, tenant_id: str, found: SnapshotDescription) -> tuple[Placement, Origin]:
    if found.status != "available":
        raise NeedsHuman(f"snapshot {found.name} is {found.status}", runbook=RUNBOOK)
    with ctx.registry.connection() as conn:
        try:
            cluster.get(conn, found.cluster_id)
        except NotFound as error:
            raise NeedsHuman(
                f"snapshot {found.name} is of {found.cluster_id}, which the registry does not know",
                runbook=RUNBOOK,
            ) from error
        home = restores.home_of(conn, tenant_id, found.taken_at or datetime.now(UTC))
    if home.cluster_id != found.cluster_id:
        raise NeedsHuman(
            f"snapshot {found.name} is of {found.cluster_id}, and {tenant_id} lived on {home.cluster_id}"
            f" then",
            runbook=RUNBOOK,
        )
    return home, Origin(home.cluster_id, snapshot=found.name)


@tenant_step(
    StepName.AWAIT_RESTORED,
    "nothing; Aurora restores the whole cluster, which takes its time",
    again="reading",
    both_placements=True,
)
@tenant_step(
    StepName.AWAIT_RESTORED_END,
    "nothing; waits until the temporary cluster is gone",
    again="reading",
    both_placements=True,
)
def await_restored(work: TenantWork) -> None:
    """Until it can be asked, and in the end until it is gone."""
    wait_for(work, work.record.restored)


@tenant_step(
    StepName.OPEN_RESTORED,
    "everybody's logins on it are closed; the tenant's database there is looked for, and its release read",
    again="setting it again changes nothing",
    both_placements=True,
)
def open_restored(work: TenantWork) -> None:
    """Close everybody's logins and look for the tenant's database."""
    at, home = _restored(work)
    work.ctx.providers.databases.seal(at)
    found = work.ctx.providers.databases.observe(at, home)
    if not found.exists or found.release is None:
        what = "has no schema yet" if found.exists else "was not there"
        raise NeedsHuman(
            f"the database {home.database} {what} {_restore(work).requested}: give this restore up",
            runbook=RUNBOOK,
        )
    with work.recording() as conn:
        restore.mark_opened(conn, _move_id(work), release=found.release)
        message = f"{home.database} has release {found.release}, all logins are closed"
        work.note(conn, kind="opened", action="restore", message=message)


@tenant_step(
    StepName.COPY_RESTORED,
    "every row, sequence and materialised view in one snapshot and one transaction, compared by "
    "count and checksum; the temporary cluster is let go in the same transaction of the registry "
    "that records this",
    again="rows that are not recorded as copied are copied anew",
    both_placements=True,
    long=True,
)
def copy_restored(work: TenantWork) -> None:
    """Whoever finds a target whose rows are not recorded as copied copies them anew."""
    at, home = _restored(work)
    ends = work.record.ends()
    if ends is None:
        raise Pending("the target's cluster has no endpoint yet", after=work.ctx.platform.cluster_poll)
    reader = Credential(
        username=home.migrator_role,
        password=work.ctx.new_password(),
        host=at.host,
        port=at.port,
        dbname=home.database,
    )
    work.hold.check()
    work.ctx.providers.databases.set_password(at, reader)
    run = MoveRun(fencing_token=work.job.fencing_token, stopped=work.hold.lost)
    copied = work.ctx.providers.moves.clone(Home(at, home, reader), ends[1], run)
    tenant_id, asked = work.record.row.id, _restore(work)
    with work.recording() as conn:
        move.set_copied(conn, asked.move_id, rows=copied.rows, size=copied.size)
        move.set_compared(conn, asked.move_id, [asdict(table) for table in copied.compared], checked="before")
        restores.record_copied(conn, asked, tenant_id, actor=work.job.actor)
        audit.append(
            conn,
            actor=work.job.actor,
            action="restore.copied",
            resource=tenant_id,
            detail={"move": asked.move_id, "rows": copied.rows, **asked.requested.to_json()},
        )
        message = f"{copied.summary}, compared: the same"
        work.note(conn, kind="copied", action="restore", message=message, seconds=copied.seconds)


@tenant_step(
    StepName.CUT_RESTORED,
    "the pause: the application's logins are closed and its sessions ended, one transaction of "
    "the registry makes the target current, the routes are published with a new epoch, and "
    "writing goes on",
    again="the cut is one transaction",
    both_placements=True,
    long=True,
)
def cut_restored(work: TenantWork) -> None:
    """Nothing is carried in the pause: what was written after that moment stays in the former database."""

    def hand_over(_source: Home, _target: Home, pause: Callable[[], None], cut: Callable[[], None]) -> None:
        pause()
        work.hold.check()
        cut()

    change_over(work, hand_over)
    with work.recording() as conn:
        note_pause(conn, work)


# ------------------------------------------------------------------------------------------- shared


def _restore(work: TenantWork) -> RestoreRow:
    if work.record.restore is None:
        raise NeedsHuman(f"{work.record.row.id} has no restore", runbook="internal-error")
    return work.record.restore


def _move_id(work: TenantWork) -> int:
    return _restore(work).move_id


def _restored(work: TenantWork) -> tuple[ClusterEndpoint, Placement]:
    """The restored cluster, and the placement whose database on it is meant."""
    found, there = _restore(work), work.record.restored
    at = None if there is None else endpoint_of(there)
    if at is None or found.number is None:
        raise Pending("the restored cluster has no endpoint yet", after=work.ctx.platform.cluster_poll)
    with work.ctx.registry.connection() as conn:
        return at, placement.get(conn, work.record.row.id, found.number)
