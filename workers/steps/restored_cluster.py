"""The acts that a restore has beside those of any transfer: about the cluster that is made for it.

A restored cluster holds everybody's past, if everybody shared it: so its logins are closed before anything is
read from it, the tenant's migrator alone is let in, and the cluster is let go in the transaction that records
the copy, or that aborts the restore.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controlplane.domain.cluster import Origin
from controlplane.domain.errors import NeedsHuman, NotFound, Pending
from controlplane.domain.placement import Placement
from controlplane.domain.steps import StepName
from controlplane.domain.transfer import RestoreRequest, moment
from controlplane.services import transfers
from controlplane.store import cluster, placement, transfer
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.record import endpoint_of
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.providers.ports import (
    ClusterEndpoint,
    Home,
    SnapshotDescription,
)
from controlplane.workers.steps.registry import tenant_step
from controlplane.workers.steps.waiting import wait_for

RUNBOOK = "restore"
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
    found = work.transfer
    home, origin = find_origin(work.ctx, found.tenant_id, found.requested)
    with work.recording() as conn:
        transfers.record_restored(conn, found, home, origin, actor=work.job.actor)


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
        home = transfers.home_of(conn, tenant_id, at)
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
        home = transfers.home_of(conn, tenant_id, found.taken_at or datetime.now(UTC))
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
            f"the database {home.database} {what} {work.transfer.requested}: abort this restore",
            runbook=RUNBOOK,
        )
    with work.recording() as conn:
        transfer.mark_opened(conn, work.transfer.id, release=found.release)
        message = f"{home.database} has release {found.release}, all logins are closed"
        work.note(conn, kind="opened", action="restore", message=message)


def home_of_then(work: TenantWork) -> Home:
    """The tenant's database on the restored cluster."""
    return Home(*_restored(work))


def _restored(work: TenantWork) -> tuple[ClusterEndpoint, Placement]:
    """The restored cluster, and the placement whose database on it is meant."""
    found, there = work.transfer, work.record.restored
    at = None if there is None else endpoint_of(there)
    if at is None or found.lived_on is None:
        raise Pending("the restored cluster has no endpoint yet", after=work.ctx.platform.cluster_poll)
    with work.ctx.registry.connection() as conn:
        return at, placement.get(conn, found.lived_on)
