"""Clusters: record a new one, find a free slot and take it, close, show."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from controlplane.domain.catalogue import Isolation, Plan
from controlplane.domain.cluster import ClusterSpec
from controlplane.domain.job import JobKind
from controlplane.domain.placement import cluster_id_for
from controlplane.store import cluster, hold, job, operation, placement, stack
from controlplane.store.cluster import ClusterRow
from controlplane.store.hold import HoldRow
from controlplane.store.operation import OperationRow
from controlplane.store.registry import Connection
from controlplane.store.stack import StackRelease, StackRow

ENGINE_VERSION = "17.5"
"""What new clusters are made with; from 17 on RDS refuses unencrypted connections by itself."""


@dataclass(frozen=True, slots=True)
class ClusterDetail:
    """`installed`: the release of the stacks that the worker carries which started last; `stack`: the
    cluster's, as it was confirmed. `of_database`: whose a database on it is or was, by the tenant's id."""

    cluster: ClusterRow
    tenants: list[str]
    of_database: dict[str, str]
    freezes: list[HoldRow]
    operations: list[OperationRow]
    installed: StackRelease | None
    stack: StackRow | None


def record_new(
    conn: Connection, *, spec: ClusterSpec, slots: int, reason: str, actor: str, after: float = 0.0
) -> str:
    """A cluster that is to be made, with its operation, due `after` seconds from now; its id. Runs inside
    the caller's transaction."""
    cluster_id = cluster_id_for(secrets.token_bytes(16))
    cluster.insert(conn, cluster_id=cluster_id, slots=slots, spec=spec)
    job.ensure(conn, JobKind.CLUSTER, cluster_id, reason=reason, actor=actor, after=after)
    return cluster_id


@dataclass(frozen=True, slots=True)
class Place:
    """Where a placement would go. `cluster_id` None: to a cluster that is still to be recorded."""

    cluster_id: str | None
    spec: ClusterSpec
    slots: int


def find_place(conn: Connection, plan: Plan, *, other_than: str | None = None) -> Place:
    """For any tenant with this plan. Changes nothing; the caller's transaction holds the cluster's lock
    afterwards."""
    spec = ClusterSpec.for_plan(plan, engine_version=ENGINE_VERSION)
    found = cluster.with_free_slot(conn, spec.cluster_class, other_than=other_than)
    return Place(found, spec, 1 if plan.isolation is Isolation.DEDICATED else plan.slots)


def take(conn: Connection, place: Place, *, reason: str, actor: str) -> str:
    """The id of the cluster, recorded where it is a new one; its operation makes the placement's secret. Runs
    inside the caller's transaction."""
    if place.cluster_id is None:
        return record_new(conn, spec=place.spec, slots=place.slots, reason=reason, actor=actor)
    job.ensure(conn, JobKind.CLUSTER, place.cluster_id, reason=reason, actor=actor)
    return place.cluster_id


def close(conn: Connection, row: ClusterRow, *, reason: str, actor: str) -> None:
    """It is to be destroyed. Runs inside the caller's transaction."""
    cluster.set_spec(conn, row.id, row.spec.closed())
    job.ensure(conn, JobKind.CLUSTER, row.id, reason=reason, actor=actor)


def show(conn: Connection, cluster_id: str) -> ClusterDetail:
    """Raises NotFound."""
    row = cluster.get(conn, cluster_id)
    return ClusterDetail(
        cluster=row,
        tenants=cluster.tenants_on(conn, row.id),
        of_database={found.database: found.tenant_id for found in placement.on_cluster(conn, row.id)},
        freezes=hold.freezes(conn, hold.scopes(row.id)),
        operations=operation.page(conn, before=None, limit=10, resource_id=row.id),
        installed=stack.installed(conn),
        stack=stack.get(conn, row.id),
    )
