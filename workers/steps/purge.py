"""The acts of a purge: a copy first, then everything goes, then the proof that nothing is left.

    keep copy ─▶ drop database ─▶ release ─▶ its secret ends (─▶ its cluster ends) ─▶ certify ··▶ delete copy

Before the first act that deletes, the billing system is asked what the customer has now, since a webhook
may have been lost; then the purge is marked as begun, under the lock of the tenant's row. A customer with
any contract that has not ended stops it there, and from then on there is no way back. Each act that
deletes writes into its step's log by whose word it does so (I6, I11).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from controlplane.domain.billing import ENDED
from controlplane.domain.catalogue import Isolation
from controlplane.domain.data_copy import CopyKind
from controlplane.domain.errors import NeedsHuman, Pending, Retryable
from controlplane.domain.notification import NotificationKind
from controlplane.domain.steps import StepName
from controlplane.domain.tenant import Lifecycle
from controlplane.services import billing, clusters, purges
from controlplane.store import (
    audit,
    cluster,
    contract,
    data_copy,
    notification,
    placement,
    purge,
    tenant,
)
from controlplane.store.data_copy import CopyRow
from controlplane.store.purge import PurgeRow
from controlplane.store.registry import Connection
from controlplane.workers.drift.deletion_proof import find_what_is_left
from controlplane.workers.engine.quota import require_quota
from controlplane.workers.engine.step_context import TenantWork, Work
from controlplane.workers.jobs.intake import apply_customer
from controlplane.workers.steps.certificate import certificate_of
from controlplane.workers.steps.registry import tenant_step
from controlplane.workers.steps.waiting import wait_for

BROKEN = frozenset({"failed", "incompatible-restore", "deleting"})
COPY_DAYS = 30  # for a tenant whose plan has left the catalogue


def note_approval(conn: Connection, work: Work, given: PurgeRow) -> None:
    """By whose word this step deletes; within its recording."""
    work.note(conn, kind="approved", action="delete", message=_by(given))


def _by(given: PurgeRow) -> str:
    return (
        f"purge {given.id} of {given.tenant_id}: asked for by {given.requested_by}, approved by"
        f" {given.approved_by}, digest {given.digest[:12]}"
    )


@tenant_step(
    StepName.HEED_RETURN,
    "its customer has a contract for it again: a purge that was asked for is withdrawn, a person is told;"
    " or the customer has none any more, and that is over",
    again="what is withdrawn stays so",
)
def heed_return(work: TenantWork) -> None:
    with work.recording() as conn:
        purges.heed_return(conn, work.record.row.id, actor=billing.ACTOR)


@tenant_step(
    StepName.ORDER_PURGE,
    "its plan asks nobody: the catalogue asks for the purge and approves it",
    again="one that was asked for stays the one",
)
def order_purge(work: TenantWork) -> None:
    with work.recording() as conn:
        purges.order_by_policy(conn, work.record.row.id)


@tenant_step(
    StepName.KEEP_COPY,
    "a dump into the bucket, read back and compared; or a snapshot of a cluster of its own, until "
    "it is available",
    again="its name is recorded first, and a whole one is not made again",
    long=True,
)
def keep_copy(work: TenantWork) -> None:
    """Verified before anything is deleted: a snapshot that is available, a dump that was read back. Not for
    a customer who pays again: the copy of a purge that is withdrawn would be nobody's to delete."""
    placed, approved = work.placement, _purge(work)
    _ask_billing(work, approved)
    kind = CopyKind(work.step.target)
    name = f"purges/{placed.id}-p{approved.id}.dump"
    if kind is CopyKind.SNAPSHOT:
        name = f"{placed.cluster_id}-purge-{approved.id}"
    with work.recording() as conn:
        found = purge.of_tenant(conn, placed.tenant_id)
        if found is None or found.id != approved.id:
            raise Retryable(f"purge {approved.id} was withdrawn")
        copy = data_copy.record(
            conn,
            tenant_id=placed.tenant_id,
            cluster_id=placed.cluster_id,
            purge_id=approved.id,
            kind=kind,
            name=name,
            keep_days=COPY_DAYS if work.record.plan is None else work.record.plan.copy_days,
            actor=work.job.actor,
        )
    manifest = _snapshot(work, copy) if kind is CopyKind.SNAPSHOT else _dump(work, copy)
    with work.recording() as conn:
        data_copy.keep(conn, copy, manifest=manifest)


def _snapshot(work: TenantWork, copy: CopyRow) -> dict[str, Any]:
    tags = {"cluster": copy.cluster_id, "tenant": copy.tenant_id, "purpose": "purge"}
    if work.ctx.providers.snapshots.describe(copy.name) is None:
        require_quota(work.ctx, snapshots=1)
    status = work.ctx.providers.snapshots.ensure(copy.cluster_id, copy.name, tags=tags)
    if status in BROKEN:
        raise NeedsHuman(f"snapshot {copy.name} is {status}", runbook="copy")
    if status != "available":
        raise Pending(f"snapshot {copy.name} is {status}", after=work.ctx.platform.cluster_poll)
    return {"name": copy.name, "cluster": copy.cluster_id, "status": status}


def _dump(work: TenantWork, copy: CopyRow) -> dict[str, Any]:
    dump = work.ctx.providers.dumps.make(work.at, work.placement, name=copy.name, stopped=work.hold.lost)
    return dump.to_manifest()


@tenant_step(
    StepName.DROP_DATABASE,
    "the database and its roles, after its identity was read: another's is never dropped",
    again="what is gone is skipped",
    deletes=True,
)
def drop_database(work: TenantWork) -> None:
    _no_way_back(work)
    work.hold.check()
    work.ctx.providers.databases.drop(work.at, work.placement)


@tenant_step(
    StepName.RELEASE_PLACEMENT,
    "the slot is free, and its cluster's operation takes its secret away; a cluster of its own is closed "
    "in the same transaction and destroyed in its own operation",
    again="one transaction",
    deletes=True,
)
def release_placement(work: TenantWork) -> None:
    """Its slot is free; a cluster that was its alone is closed in the same transaction, so that nobody is
    put on it in between."""
    placed, approved = work.placement, _purge(work)
    _no_way_back(work)
    with work.recording() as conn:
        placement.release(conn, placed, by=_by(approved), actor=str(approved.approved_by))
        audit.append(
            conn,
            actor=str(approved.approved_by),
            action="purge.release",
            resource=placed.tenant_id,
            detail={"purge": approved.id, "placement": placed.id, "cluster": placed.cluster_id},
        )
        if approved.cluster_goes:
            _close_cluster(conn, placed.cluster_id, approved)


def _close_cluster(conn: Connection, cluster_id: str, approved: PurgeRow) -> None:
    home = cluster.get(conn, cluster_id, lock=True)
    if home.spec.isolation is not Isolation.DEDICATED or cluster.tenants_on(conn, cluster_id):
        raise NeedsHuman(f"{cluster_id} is not this tenant's alone", runbook="cluster-in-use")
    reason = f"purge {approved.id} of {approved.tenant_id}"
    clusters.close(conn, home, reason=reason, actor=str(approved.approved_by))


@tenant_step(
    StepName.AWAIT_SECRET_END,
    "nothing; its cluster's operation takes its secret away, into its deletion window",
    again="reading",
)
@tenant_step(
    StepName.AWAIT_CLUSTER_END,
    "nothing; waits for that",
    again="reading",
)
def await_cluster_end(work: TenantWork) -> None:
    with work.ctx.registry.connection() as conn:
        home = cluster.get(conn, _purge(work).content["cluster"])
    wait_for(work, home)


@tenant_step(
    StepName.CERTIFY,
    "every system is asked for the tenant's names (`workers/drift/deletion_proof.py`); only when "
    'all say "nothing" the certificate is written and signed',
    again="reading",
)
def certify(work: TenantWork) -> None:
    """Ask every system whether anything of this tenant is left; only the word "nothing" of all of them is
    signed. AWS's tags lag behind a deletion, so what is still there is asked again."""
    _no_way_back(work)  # where there never was anything to delete, this is the first act
    approved, row = _purge(work), work.record.row
    evidence, left = find_what_is_left(work.ctx, approved)
    if left:
        raise Retryable(f"not gone yet: {', '.join(left[:5])}")
    document = certificate_of(work.ctx, row, approved, [asdict(line) for line in evidence])
    with work.recording() as conn:
        purge.finish(conn, approved.id, certificate=document)
        tenant.mark_purged(conn, row.id)
        audit.append(
            conn,
            actor=str(approved.approved_by),
            action="purge.done",
            resource=row.id,
            detail={"purge": approved.id, "digest": approved.digest},
        )
        kept = None if work.record.copy is None else work.record.copy.kept_until
        notification.add(
            conn,
            row.id,
            NotificationKind.PURGED,
            once=str(approved.id),
            purge=approved.id,
            copy_kept_until=None if kept is None else kept.isoformat(),
        )


@tenant_step(
    StepName.DELETE_COPY,
    "after `copy_days`: the copy; a destroyed cluster's key goes with the last snapshot of it",
    again="gone already is success",
    deletes=True,
)
def delete_copy(work: TenantWork) -> None:
    """The last that was kept. The key of a destroyed cluster goes when the last snapshot of it is gone, by
    a timer (`services/timers.py`), since a rollout's snapshot may be the last one too."""
    copy = work.record.copy
    if copy is None:
        raise NeedsHuman(f"{work.record.row.id} has no copy to delete", runbook="internal-error")
    if copy.kind is CopyKind.SNAPSHOT:
        work.ctx.providers.snapshots.delete(copy.name)
    else:
        work.ctx.providers.dumps.delete(copy.name)
    with work.recording() as conn:
        note_approval(conn, work, _purge(work))
        data_copy.mark_deleted(conn, copy)
        audit.append(
            conn,
            actor=work.job.actor,
            action="copy.delete",
            resource=copy.tenant_id,
            detail={"kind": copy.kind, "name": copy.name},
        )


def _purge(work: TenantWork) -> PurgeRow:
    if work.record.purge is None:
        raise NeedsHuman(f"no purge of {work.record.row.id} was approved", runbook="internal-error")
    return work.record.purge


def _no_way_back(work: TenantWork) -> None:
    """Raises Retryable where the purge was withdrawn, as it is for a customer who has a contract for it, and
    as `_ask_billing` does."""
    approved = _purge(work)
    _ask_billing(work, approved)
    with work.recording() as conn:
        why = purges.heed_return(conn, work.record.row.id, actor=billing.ACTOR)
        closed = tenant.get(conn, work.record.row.id).spec.lifecycle is Lifecycle.CLOSED
        begun = why is None and closed and purge.begin(conn, approved.id)
        if begun:
            note_approval(conn, work, approved)
    if not begun:
        raise Retryable(f"purge {approved.id} was withdrawn" + ("" if why is None else f": {why}"))


def _ask_billing(work: TenantWork, approved: PurgeRow) -> None:
    """Handle what the registry has not heard of the contracts of its customer, and of any other who has paid
    for it, as long as nothing is deleted. Nobody is asked about a clone, for which nobody pays. Raises
    Retryable where the billing system does not answer, or has one that has not ended and that the registry
    still does not know so."""
    row = work.record.row
    if row.clone_of is not None or approved.begun_at is not None:
        return
    with work.ctx.registry.connection() as conn:
        others = {found.customer_id for found in contract.of_tenant(conn, row.id)}
    for customer_id in sorted(filter(None, {row.customer_id, *others})):
        found = work.ctx.providers.billing.subscriptions_of(customer_id)
        live = {str(item["id"]) for item in found if item["status"] not in ENDED}
        if live != _known_live(work, customer_id):
            apply_customer(work.ctx, customer_id, reason=f"asked before purge {approved.id}")
        unknown = sorted(live - _known_live(work, customer_id))
        if unknown:
            raise Retryable(
                f"the billing system has {', '.join(unknown)} of {customer_id}, which has not ended; nothing"
                " is deleted before the registry knows it so"
            )


def _known_live(work: TenantWork, customer_id: str) -> set[str]:
    """All of the customer's, whomever they are for."""
    with work.ctx.registry.connection() as conn:
        return contract.live_of_customer(conn, customer_id)
