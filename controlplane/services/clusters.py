"""Clusters: record a new one, list and show."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from controlplane.domain.cluster import ClusterSpec
from controlplane.domain.job import JobKind
from controlplane.domain.placement import cluster_id_for
from controlplane.store import cluster, freeze, job, operation
from controlplane.store.cluster import ClusterRow
from controlplane.store.freeze import FreezeRow
from controlplane.store.operation import OperationRow
from controlplane.store.registry import Connection

ENGINE_VERSION = "17.5"
"""What new clusters are made with; from 17 on RDS refuses unencrypted connections by itself."""


@dataclass(frozen=True, slots=True)
class ClusterDetail:
    cluster: ClusterRow
    tenants: list[str]
    freezes: list[FreezeRow]
    operations: list[OperationRow]


def record_new(
    conn: Connection, *, spec: ClusterSpec, slots: int, reason: str, actor: str, after: float = 0.0
) -> str:
    """A cluster that is to be made, with its operation, due `after` seconds from now; its id. Runs inside
    the caller's transaction."""
    cluster_id = cluster_id_for(secrets.token_bytes(16))
    cluster.insert(conn, cluster_id=cluster_id, slots=slots, spec=spec)
    job.ensure(conn, JobKind.CLUSTER, cluster_id, reason=reason, actor=actor, after=after)
    return cluster_id


def show(conn: Connection, cluster_id: str) -> ClusterDetail:
    """Raises NotFound."""
    row = cluster.get(conn, cluster_id)
    return ClusterDetail(
        cluster=row,
        tenants=cluster.tenants_on(conn, row.id),
        freezes=freeze.in_force(conn, freeze.scopes(row.id)),
        operations=operation.page(conn, before=None, limit=10, resource_id=row.id),
    )
