"""Clusters, for those who watch them."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.store import cluster, occupancy, operation
from controlplane.store.cluster import ClusterRow
from controlplane.store.operation import OperationRow
from controlplane.store.registry import Connection


@dataclass(frozen=True, slots=True)
class ClusterUse:
    """`used`: how many of its slots hold a tenant."""

    cluster: ClusterRow
    used: int


@dataclass(frozen=True, slots=True)
class ClusterDetail:
    cluster: ClusterRow
    tenants: list[str]
    operations: list[OperationRow]


def show(conn: Connection, cluster_id: str) -> ClusterDetail:
    """Raises NotFound."""
    row = cluster.get(conn, cluster_id)
    return ClusterDetail(
        cluster=row,
        tenants=cluster.tenants_on(conn, row.id),
        operations=operation.page(conn, before=None, limit=10, resource_id=row.id),
    )


def list_page(conn: Connection, *, after: str | None, limit: int) -> list[ClusterUse]:
    """By id, those behind `after`."""
    rows = cluster.page(conn, after=after, limit=limit)
    used = occupancy.used_slots(conn, [row.id for row in rows])
    return [ClusterUse(row, used.get(row.id, 0)) for row in rows]
