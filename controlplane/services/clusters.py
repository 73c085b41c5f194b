"""Clusters: record a new one, list and show."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from controlplane.domain.cluster import ClusterSpec
from controlplane.domain.operation import ResourceKind
from controlplane.domain.placement import cluster_id_for
from controlplane.store import cluster, lease, operation
from controlplane.store.cluster import ClusterRow
from controlplane.store.operation import OperationRow
from controlplane.store.registry import Connection

ENGINE_VERSION = "17.5"
"""What new clusters are made with; from 17 on RDS refuses unencrypted connections by itself."""


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


def record_new(
    conn: Connection, *, spec: ClusterSpec, slots: int, reason: str, actor: str, after: float = 0.0
) -> str:
    """A cluster that is to be made, with its operation, due `after` seconds from now; its id. Runs inside
    the caller's transaction."""
    cluster_id = cluster_id_for(secrets.token_bytes(16))
    cluster.insert(conn, cluster_id=cluster_id, slots=slots, spec=spec)
    lease.register(conn, ResourceKind.CLUSTER, cluster_id)
    operation.request(conn, ResourceKind.CLUSTER, cluster_id, reason=reason, actor=actor, after=after)
    return cluster_id


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
    used = cluster.used_slots(conn, [row.id for row in rows])
    return [ClusterUse(row, used.get(row.id, 0)) for row in rows]
