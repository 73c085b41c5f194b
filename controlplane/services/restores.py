"""Restores: ask for one, record the cluster that its rows come from, let that cluster go.

`request` only changes what is wanted. What AWS alone can tell (is the time within the restorable window,
whose is this snapshot) a worker finds out; what the registry knows is refused here, where the one who asks
still listens.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from controlplane.domain.cluster import ClusterLifecycle, Origin
from controlplane.domain.errors import Conflict, Invalid
from controlplane.domain.move import MoveKind
from controlplane.domain.operation import ResourceKind
from controlplane.domain.placement import Placement
from controlplane.domain.restore import RestoreRequest, home_at, moment, validate_request
from controlplane.services import clusters, moves
from controlplane.store import audit, cluster, drift, move, operation, placement, preview, restore, tenant
from controlplane.store.move import MoveRow
from controlplane.store.registry import Connection
from controlplane.store.restore import RestoreRow
from controlplane.store.tenant import TenantRow

NO_SLOTS = 0


def request(
    conn: Connection, tenant_id: str, *, at: object, snapshot: object, actor: str, reason: str
) -> int:
    """The operation's id. Raises Invalid, Conflict (not active, a move or restore is not over)."""
    with conn.transaction():
        row = tenant.get(conn, tenant_id, lock=True)
        requested, placed = _check(conn, row, at, snapshot)
        home = cluster.get(conn, placed.cluster_id)
        move_id = move.insert(
            conn,
            row.id,
            kind=MoveKind.RESTORE,
            destination=home.spec.isolation.value,
            plan=row.spec.plan,
            by_hand=True,
            source=placed.number,
            reason=reason,
            actor=actor,
        )
        restore.insert(conn, move_id, requested)
        tenant.rise(conn, row.id)
        audit.append(
            conn,
            actor=actor,
            action="tenant.restore",
            resource=row.id,
            detail={**requested.to_json(), "move": move_id, "from": placed.cluster_id, "reason": reason},
        )
        return operation.request(conn, ResourceKind.TENANT, row.id, reason=reason, actor=actor)


def request_preview(conn: Connection, tenant_id: str, *, at: object, snapshot: object, actor: str) -> int:
    """Ask a worker what the restore would do, or why it can't be; the preview's id. Raises as `request`."""
    with conn.transaction():
        row = tenant.get(conn, tenant_id)
        requested, _ = _check(conn, row, at, snapshot)
        return preview.request(conn, row.id, actor=actor, restore=requested.to_json())


def _check(
    conn: Connection, row: TenantRow, at: object, snapshot: object
) -> tuple[RestoreRequest, Placement]:
    """What is asked for, and where it lives."""
    now = drift.now(conn)
    requested = validate_request(at, snapshot, now=now)
    placed = moves.require_movable(conn, row)
    if requested.at is not None:
        _may_be_restorable(conn, row, requested.at, now)
    return requested, placed


def _may_be_restorable(conn: Connection, row: TenantRow, at: datetime, now: datetime) -> None:
    home = cluster.get(conn, home_of(conn, row.id, at).cluster_id)
    if home.destroyed_at is not None or home.spec.lifecycle is not ClusterLifecycle.ACTIVE:
        raise Conflict(
            f"{row.id} lived on {home.id} then, which is gone and with it its log: a snapshot of it can"
            " be restored, where there is one"
        )
    kept_since = now - timedelta(days=home.spec.backup_retention_days)
    earliest = kept_since if row.ready_at is None else max(kept_since, row.ready_at)
    if at < earliest:
        raise Invalid(
            "at", f"a moment after {moment(earliest)}, since when there is something", got=moment(at)
        )


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


def record_copied(conn: Connection, found: RestoreRow, tenant_id: str, *, actor: str) -> str | None:
    """The restored cluster is not needed any more, and holds what it must hold no longer than needed: its
    id, to notify workers of. Within the caller's transaction."""
    restore.mark_copied(conn, found.move_id)
    return moves.close_restored(conn, found.move_id, tenant_id, actor=actor)
