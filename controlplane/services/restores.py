"""Restores: record the cluster that the rows come from, let that cluster go."""

from __future__ import annotations

from datetime import datetime

from controlplane.domain.cluster import Origin
from controlplane.domain.errors import Conflict
from controlplane.domain.placement import Placement
from controlplane.domain.restore import home_at
from controlplane.services import clusters, moves
from controlplane.store import audit, cluster, move, placement, restore
from controlplane.store.move import MoveRow
from controlplane.store.registry import Connection
from controlplane.store.restore import RestoreRow

NO_SLOTS = 0


def home_of(conn: Connection, tenant_id: str, at: datetime) -> Placement:
    """The placement that it lived on at this moment."""
    placed = placement.current(conn, tenant_id)
    if placed is None:
        raise Conflict(f"tenant {tenant_id} has no placement")
    return placement.get(conn, tenant_id, home_at(placed.number, move.left(conn, tenant_id), at))


def record_cluster(conn: Connection, found: MoveRow, home: Placement, origin: Origin, *, actor: str) -> str:
    """A cluster to be made with the rows of that time, on which nobody is ever placed; its id. Within the
    caller's transaction."""
    spec = cluster.get(conn, home.cluster_id).spec.restored(origin)
    reason = f"restore {found.id} of {found.tenant_id}"
    cluster_id = clusters.record_new(conn, spec=spec, slots=NO_SLOTS, reason=reason, actor=actor)
    restore.set_cluster(conn, found.id, number=home.number, cluster_id=cluster_id)
    audit.append(
        conn,
        actor=actor,
        action="restore.cluster",
        resource=found.tenant_id,
        detail={"move": found.id, "cluster": cluster_id, "origin": origin.to_json()},
    )
    return cluster_id


def record_copied(conn: Connection, found: RestoreRow, tenant_id: str, *, actor: str) -> None:
    """The restored cluster is not needed any more, and holds what it must hold no longer than needed.
    Within the caller's transaction."""
    restore.mark_copied(conn, found.move_id)
    moves.close_restored(conn, found.move_id, tenant_id, actor=actor)
