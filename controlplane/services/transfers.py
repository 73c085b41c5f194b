"""Transfers: begin one, find its place, record the cluster that is restored for it and let that go.

`place` is the engine's: the web process knows neither the catalogue nor which clusters there could be.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.domain.catalogue import Catalogue, Isolation, Plan
from controlplane.domain.cluster import ClusterLifecycle, Origin
from controlplane.domain.errors import Conflict, NeedsHuman
from controlplane.domain.placement import Placement, PlacementState
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import (
    RestoreRequest,
    TransferKind,
    TransferPhase,
    home_at,
    plan_for_destination,
)
from controlplane.services import clusters, tenants
from controlplane.services.clusters import Place
from controlplane.store import audit, cluster, placement, tenant, transfer
from controlplane.store.cluster import ClusterRow
from controlplane.store.registry import Connection
from controlplane.store.tenant import TenantRow
from controlplane.store.transfer import TransferRow

RUNBOOK = "move"
BEGIN = "transfer.begin"
"""In the audit trail, whoever begins one."""
NO_SLOTS = 0


def note(conn: Connection, found: TransferRow, what: str, *, actor: str, **detail: object) -> None:
    """One line of the audit trail, with the transfer's kind. Within the caller's transaction."""
    named = {"transfer": found.id, "kind": found.kind.value, **detail}
    audit.append(conn, actor=actor, action=f"transfer.{what}", resource=found.tenant_id, detail=named)


def begin(
    conn: Connection,
    row: TenantRow,
    kind: TransferKind,
    *,
    destination: str,
    actor: str,
    reason: str,
    by_hand: bool = True,
    restore: RestoreRequest | None = None,
) -> dict[str, object]:
    """A move or a restore; what the audit trail says of it. Within the caller's transaction, for a tenant of
    which nothing is under way."""
    placed = placement.current(conn, row.id)
    if placed is None:
        raise Conflict(f"tenant {row.id} has no placement to move from")
    begun = transfer.insert(
        conn,
        row.id,
        kind,
        destination=destination,
        plan=row.spec.plan,
        by_hand=by_hand,
        source=placed.id,
        restore=restore,
        reason=reason,
        actor=actor,
    )
    tenant.rise(conn, row.id)
    return {"transfer": begun, "kind": kind.value, "from": placed.cluster_id}


def turn(
    conn: Connection, tenant_id: str, to: TransferPhase, *, sources: Sequence[TransferPhase]
) -> TransferRow:
    """The transfer that is not over, in another phase by a person's word. Within the caller's transaction.
    Raises Conflict where there is none, or none in one of `sources`; a clone is ended by `close` alone."""
    found = transfer.current(conn, tenant_id)
    if found is None or found.kind is TransferKind.CLONE:
        raise Conflict(f"tenant {tenant_id} has no move or restore that is not over")
    transfer.turn(conn, found.id, to, error=Conflict, sources=sources)
    tenant.rise(conn, tenant_id)
    return found


def require_transferable(conn: Connection, row: TenantRow) -> Placement:
    """Where it lives. Raises Conflict."""
    placed = placement.current(conn, row.id)
    if row.spec.lifecycle is not Lifecycle.ACTIVE or placed is None or row.ready_at is None:
        raise Conflict(f"tenant {row.id} is {row.phase.value}: only an active one moves or is restored")
    found = transfer.current(conn, row.id)
    if found is not None:
        raise Conflict(
            f"tenant {row.id} has a {found.kind.value} that is {found.phase.value}; it has to be over first"
        )
    return placed


# -------------------------------------------------------------------------------------------- places


def require_free(conn: Connection, there: ClusterRow, placed: Placement) -> None:
    if there.id == placed.cluster_id:
        raise Conflict(f"{placed.tenant_id} lives on {there.id}")
    if there.spec.lifecycle is not ClusterLifecycle.ACTIVE:
        raise Conflict(f"{there.id} is closed")
    if there.used >= there.slots:
        raise Conflict(f"{there.id} has no free slot")


def find_place(
    conn: Connection,
    catalogue: Catalogue,
    plan: Plan,
    destination: str,
    placed: Placement,
    *,
    elsewhere: bool = True,
) -> Place:
    """Changes nothing; the caller's transaction holds the cluster's lock afterwards. `elsewhere`: on another
    cluster than it lives on."""
    if destination not in tuple(Isolation):
        there = cluster.get(conn, destination, lock=True)
        require_free(conn, there, placed)
        return Place(there.id, there.spec, there.slots)
    fitting = plan_for_destination(catalogue, plan, Isolation(destination))
    return clusters.find_place(conn, fitting, other_than=placed.cluster_id if elsewhere else None)


def place(conn: Connection, catalogue: Catalogue, plan: Plan, found: TransferRow, *, actor: str) -> None:
    """Record the target placement. Within the caller's transaction. Raises NeedsHuman where the destination
    can't be had any more."""
    if found.source is None or found.destination is None:  # a clone, which goes where any new tenant goes
        target = tenants.place(conn, found.tenant_id, plan, actor=actor)
    else:
        source = placement.get(conn, found.source)
        elsewhere = found.kind is TransferKind.MOVE
        try:
            where = find_place(conn, catalogue, plan, found.destination, source, elsewhere=elsewhere)
        except Conflict as error:
            raise NeedsHuman(str(error), runbook=RUNBOOK) from error
        reason = f"{found.kind.value} of {found.tenant_id}"
        cluster_id = clusters.take(conn, where, reason=reason, actor=actor)
        target = Placement(tenants.new_placement_id(), found.tenant_id, cluster_id)
        placement.insert(conn, target, state=PlacementState.TARGET)
    transfer.set_target(conn, found.id, target.id)
    note(conn, found, "place", actor=actor, placement=target.id, cluster=target.cluster_id)


# ---------------------------------------------------------------------------------- restored clusters


def home_of(conn: Connection, tenant_id: str, at: datetime) -> Placement:
    """The placement that it lived on at this moment."""
    placed = placement.current(conn, tenant_id)
    if placed is None:
        raise Conflict(f"tenant {tenant_id} has no placement")
    return placement.get(conn, home_at(placed.id, transfer.left(conn, tenant_id), at))


def record_restored(
    conn: Connection, found: TransferRow, home: Placement, origin: Origin, *, actor: str
) -> None:
    """A cluster to be made with the rows of that time, on which nobody is ever placed. Within the caller's
    transaction."""
    spec = cluster.get(conn, home.cluster_id).spec.restored(origin)
    reason = f"restore {found.id} of {found.tenant_id}"
    cluster_id = clusters.record_new(conn, spec=spec, slots=NO_SLOTS, reason=reason, actor=actor)
    transfer.set_restored(conn, found.id, lived_on=home.id, cluster_id=cluster_id)
    note(conn, found, "cluster", actor=actor, cluster=cluster_id, origin=origin.to_json())


def close_restored(conn: Connection, found: TransferRow, *, actor: str) -> None:
    """The cluster that was restored for this transfer is to be destroyed, where there is one: it holds
    everybody's past. Within the caller's transaction."""
    if found.restored_cluster is None:
        return
    reason = f"restore {found.id} of {found.tenant_id} does not need it any more"
    clusters.close(conn, cluster.get(conn, found.restored_cluster), reason=reason, actor=actor)
