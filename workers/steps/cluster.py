"""Steps of a cluster: Terraform makes and destroys it, its server is hardened in between."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict

from controlplane.domain.errors import NeedsHuman, Pending
from controlplane.domain.pool import needs
from controlplane.domain.steps import StepName
from controlplane.store import cluster, data_copy, placement, purge, transfer
from controlplane.store.registry import Connection
from controlplane.workers.engine.quota import require_quota
from controlplane.workers.engine.stacks import (
    KEY_ADDRESSES,
    cluster_addresses,
    cluster_variables,
    placement_addresses,
    placements_variables,
    superfluous_readers,
)
from controlplane.workers.engine.step_context import ClusterWork
from controlplane.workers.engine.terraform_runs import apply_stack, destroy_stack, with_release
from controlplane.workers.steps.purge import note_approval
from controlplane.workers.steps.registry import cluster_step


@cluster_step(
    StepName.APPLY_CLUSTER_STACK,
    "Terraform: the Aurora cluster, its key, subnets, security group, instances and role; AWS is asked "
    "for room first",
    again="names are fixed; what a killed run left is adopted",
)
def apply_cluster_stack(work: ClusterWork) -> None:
    _require_quota(work)
    group = work.ctx.platform.subnet_group
    if group is not None and work.row.release is None:
        with work.recording() as conn:
            cluster.put_in_subnet_group(conn, work.row.id, group)
    row = with_release(work, work.row)
    variables = cluster_variables(work.ctx.platform, row)
    apply_stack(work, "cluster", variables, row, approved=superfluous_readers(row))


def _require_quota(work: ClusterWork) -> None:
    """Before a new cluster."""
    if work.row.ready_at is not None or work.ctx.providers.clusters.describe(work.row.id) is not None:
        return
    require_quota(work.ctx, **needs(instances=work.row.spec.instance_count, slots=work.row.slots))


@cluster_step(
    StepName.APPLY_PLACEMENTS_STACK,
    "Terraform: a secret container for each placement on the cluster, tagged with it; those of placements "
    "that were released go, approved for exactly their addresses",
    again="names are fixed; what a killed run left is adopted",
)
def apply_placements_stack(work: ClusterWork) -> None:
    """All that are known by now, in one run: what is asked for meanwhile comes with the next."""
    _run_placements(work, apply_stack, work.on.placements)


@cluster_step(
    StepName.DESTROY_PLACEMENTS_STACK,
    "Terraform destroys what is left of the secrets of a closed cluster, whose placements were all released",
    again="an empty workspace is success",
)
def destroy_placements_stack(work: ClusterWork) -> None:
    if work.on.placements:
        raise NeedsHuman(f"{work.row.id} is a tenant's home", runbook="cluster-in-use")
    _run_placements(work, destroy_stack, work.on.released)


def _run_placements(work: ClusterWork, run: Callable[..., None], placements: Collection[str]) -> None:
    """`run` on the second stack with these placements. What was released may go, and the log says by whose
    word (I6, I11); once it has gone it is purged."""
    row, released = with_release(work, work.row), work.on.released
    with work.recording() as conn:
        for placement_id, by in released.items():
            work.note(conn, kind="approved", action="delete", message=f"placement {placement_id}: {by}")
    run(
        work,
        "placements",
        placements_variables(work.ctx.platform, row, placements),
        row,
        approved=placement_addresses(released),
        recorded=lambda conn: placement.purged(conn, released),
    )


@cluster_step(
    StepName.DESTROY_CLUSTER_STACK,
    "Terraform destroys a cluster that holds nobody's data, approved for exactly the addresses of its stack",
    again="an empty workspace is success",
)
def destroy_cluster_stack(work: ClusterWork) -> None:
    """Approved for all that the stack has, and only for a cluster that holds no tenant's data, since nobody
    was ever on it or all that were are purged or have moved away: nothing can be placed on it any more, so
    nothing can change between the question and the deletion. Its key stays while a snapshot of it is kept,
    which is unreadable without."""
    workspace = work.row.id
    approved = cluster_addresses(work.row)
    with work.recording() as conn:
        if cluster.in_use(conn, workspace):
            raise NeedsHuman(f"{workspace} is or was a tenant's home", runbook="cluster-in-use")
        keeps_key = data_copy.snapshot_kept(conn, workspace)
        for given in purge.of_cluster(conn, workspace):
            note_approval(conn, work, given)
        if work.row.spec.origin is not None:
            _require_end_of_restore(conn, work)
    if keeps_key:
        approved -= KEY_ADDRESSES
    row = with_release(work, work.row)
    variables = cluster_variables(work.ctx.platform, row)
    destroy_stack(
        work,
        "cluster",
        variables,
        row,
        approved=approved,
        recorded=lambda conn: cluster.mark_destroyed(conn, workspace, keeps_key=keeps_key),
    )


def _require_end_of_restore(conn: Connection, work: ClusterWork) -> None:
    """A restored cluster goes by the word of whoever asked for the restore, once its rows are copied."""
    reason = transfer.reason_to_end(conn, work.row.id)
    if reason is None:
        raise NeedsHuman(f"the restore reads from {work.row.id}", runbook="cluster-in-use")
    work.note(conn, kind="approved", action="delete", message=reason)


@cluster_step(
    StepName.AWAIT_AVAILABLE,
    "nothing; AWS works, and the operation waits without counting as an attempt",
    again="reading",
)
def await_available(work: ClusterWork) -> None:
    raise Pending(work.step.reason, after=work.ctx.platform.cluster_poll)


@cluster_step(
    StepName.HARDEN_CLUSTER,
    "takes from `PUBLIC` what it may do in databases that come with the cluster",
    again="what is closed stays so",
)
def harden_cluster(work: ClusterWork) -> None:
    found = work.ctx.providers.clusters.describe(work.row.id)
    if found is None or found.endpoint is None:
        raise Pending("the cluster has no endpoint yet", after=work.ctx.platform.cluster_poll)
    work.ctx.providers.databases.harden_cluster(found.endpoint)
    with work.recording() as conn:
        cluster.set_endpoint(conn, work.row.id, asdict(found.endpoint))
        cluster.mark_hardened(conn, work.row.id)
