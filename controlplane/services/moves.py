"""Moves: record one, find its place. Restores are moves from here on.

`place` is the engine's: the web process knows neither the catalogue nor which clusters there could be.
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.catalogue import Catalogue, Isolation, Plan
from controlplane.domain.cluster import ClusterLifecycle, ClusterSpec
from controlplane.domain.errors import Conflict, NeedsHuman
from controlplane.domain.job import JobKind
from controlplane.domain.move import MoveKind, MovePhase, plan_for_destination
from controlplane.domain.placement import Placement, PlacementState
from controlplane.domain.tenant import Lifecycle
from controlplane.services import clusters
from controlplane.services.clusters import ENGINE_VERSION
from controlplane.store import (
    audit,
    cluster,
    job,
    move,
    placement,
    restore,
    tenant,
)
from controlplane.store.cluster import ClusterRow
from controlplane.store.move import MoveRow
from controlplane.store.registry import Connection
from controlplane.store.tenant import TenantRow

RUNBOOK = "move"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tenant would go. `cluster_id` None: to a cluster that is still to be recorded."""

    cluster_id: str | None
    spec: ClusterSpec
    slots: int


def record(
    conn: Connection, row: TenantRow, *, destination: str, by_hand: bool, actor: str, reason: str
) -> Placement:
    """Where it moves away from. Within the caller's transaction, for a tenant that may move."""
    placed = placement.current(conn, row.id)
    if placed is None:
        raise Conflict(f"tenant {row.id} has no placement to move from")
    move.insert(
        conn,
        row.id,
        destination=destination,
        plan=row.spec.plan,
        by_hand=by_hand,
        source=placed.number,
        reason=reason,
        actor=actor,
    )
    tenant.rise(conn, row.id)
    return placed


def turn(conn: Connection, tenant_id: str, fitting: MovePhase, *, to: MovePhase) -> MoveRow:
    """The move that is not over, in another phase by a person's word. Within the caller's transaction. Raises
    Conflict where there is none, or none in a phase that is fitting."""
    found = move.current(conn, tenant_id)
    if found is None:
        raise Conflict(f"tenant {tenant_id} has no move that is not over")
    move.turn(conn, found.id, to, sources=[fitting])
    tenant.rise(conn, tenant_id)
    return found


def close_restored(conn: Connection, move_id: int, tenant_id: str, *, actor: str) -> None:
    """The cluster that was restored for this move is to be destroyed, where there is one. Within the caller's
    transaction."""
    found = restore.of_move(conn, move_id)
    if found is None or found.cluster_id is None:
        return
    spec = cluster.get(conn, found.cluster_id).spec
    cluster.set_spec(conn, found.cluster_id, spec.closed())
    reason = f"restore {move_id} of {tenant_id} does not need it any more"
    job.ensure(conn, JobKind.CLUSTER, found.cluster_id, reason=reason, actor=actor)


def require_movable(conn: Connection, row: TenantRow) -> Placement:
    """Where it lives. Raises Conflict."""
    placed = placement.current(conn, row.id)
    if row.spec.lifecycle is not Lifecycle.ACTIVE or placed is None or row.ready_at is None:
        raise Conflict(f"tenant {row.id} is {row.phase.value}: only an active one moves or is restored")
    if row.clone_of is not None and row.cloned_at is None:
        raise Conflict(f"tenant {row.id} is still being cloned")
    found = move.current(conn, row.id)
    if found is not None:
        raise Conflict(
            f"tenant {row.id} has a {found.kind.value} that is {found.phase.value}; it has to be over first"
        )
    return placed


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
    spec = ClusterSpec.for_plan(fitting, engine_version=ENGINE_VERSION)
    found = cluster.with_free_slot(
        conn, spec.cluster_class, other_than=placed.cluster_id if elsewhere else None
    )
    slots = 1 if fitting.isolation is Isolation.DEDICATED else fitting.slots
    return Place(found, spec, slots)


def place(conn: Connection, catalogue: Catalogue, plan: Plan, found: MoveRow, *, actor: str) -> None:
    """Record the target placement. Within the caller's transaction. Raises NeedsHuman where the destination
    can't be had any more."""
    source = placement.get(conn, found.tenant_id, found.source)
    elsewhere = found.kind is MoveKind.MOVE
    try:
        where = find_place(conn, catalogue, plan, found.destination, source, elsewhere=elsewhere)
    except Conflict as error:
        raise NeedsHuman(str(error), runbook=RUNBOOK) from error
    cluster_id = where.cluster_id
    if cluster_id is None:
        cluster_id = clusters.record_new(
            conn,
            spec=where.spec,
            slots=where.slots,
            reason=f"{found.kind.value} of {found.tenant_id}",
            actor=actor,
        )
    else:
        job.start_now(conn, JobKind.CLUSTER, cluster_id, actor=actor)
    target = Placement(found.tenant_id, placement.next_number(conn, found.tenant_id), cluster_id)
    placement.insert(conn, target, state=PlacementState.TARGET)
    move.set_target(conn, found.id, target.number)
    audit.append(
        conn,
        actor=actor,
        action="move.place",
        resource=found.tenant_id,
        detail={"move": found.id, "placement": target.key, "cluster": cluster_id},
    )
