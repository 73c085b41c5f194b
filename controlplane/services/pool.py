"""The warm pool: look at all clusters, record what is to be made or let go, report how it stands.

Record, then act: a cluster that is to be made is a row and an operation like any other, one to be let
go is a changed spec. The engine does the rest, and a worker that dies in between leaves
nothing to be cleaned up here.

A refill waits `REFILL_DELAY` before its first step. It is never urgent (Aurora takes minutes anyway),
and the moment after a slot was taken belongs to the customer who took it: two Terraform runs at once on
a small worker take twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from controlplane.domain.catalogue import Catalogue, PoolLimits
from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.job import JobKind
from controlplane.domain.pool import (
    Act,
    ClusterClass,
    HeldBack,
    Make,
    PoolCluster,
    PoolPlan,
    Quota,
    Retire,
    Retry,
    Settled,
    classes_of,
    idle_acu,
    plan_pool,
)
from controlplane.services import clusters
from controlplane.services.clusters import ENGINE_VERSION
from controlplane.store import audit, cluster, job, pool, report, stack
from controlplane.store.cluster import ClusterRow
from controlplane.store.pool import PooledCluster
from controlplane.store.registry import Connection
from controlplane.store.report import About
from controlplane.store.stack import StackRelease

ACTOR = "pool"
REFILL_DELAY = 30.0
REPORT_EVERY = 60.0
DigestOf = Callable[[ClusterRow], str]
"""The digest that a cluster's stack would have if it were applied now, by the release that it names."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """`due`: there is something for `tend` to do. `asks_quota`: and it needs to know the account's."""

    due: bool
    asks_quota: bool


def observe(conn: Connection, catalogue: Catalogue, digest_of: DigestOf) -> PoolStatus:
    """Is anything to be done? Reads, and writes nothing but the report."""
    status = _observed(conn, catalogue, digest_of)
    plan = status.plan(catalogue.pool, Quota())
    marked = {c.id for c in status.clusters if c.surplus_for is not None}
    parked = any(c.waits_for_quota and c.parked_for is not None and not c.closing for c in status.clusters)
    makes = any(isinstance(act, Make) for act in plan.acts)
    if not (plan.acts or parked or plan.surplus != marked):
        held = _report(catalogue.pool, status, plan.held_back, Quota())
        report.write(conn, About.POOL, held, at_most_every=REPORT_EVERY)
        return PoolStatus(due=False, asks_quota=False)
    return PoolStatus(due=True, asks_quota=makes or parked)


def tend(conn: Connection, catalogue: Catalogue, digest_of: DigestOf, quota: Quota) -> int:
    """Look again and record what is to be done; how much that was. Nothing while another worker is at it."""
    with conn.transaction():
        if not pool.hold(conn):
            return 0
        status = _observed(conn, catalogue, digest_of)
        plan = status.plan(catalogue.pool, quota)
        pool.mark_surplus(conn, sorted(plan.surplus))
        by_name = {cluster_class.name: cluster_class for cluster_class in status.classes}
        for act in plan.acts:
            _record(conn, act, by_name)
        status = _observed(conn, catalogue, digest_of)
        held = _report(catalogue.pool, status, plan.held_back, quota)
        report.write(conn, About.POOL, held, at_most_every=REPORT_EVERY)
    return len(plan.acts)


def _record(conn: Connection, act: Act, classes: dict[str, ClusterClass]) -> None:
    match act:
        case Make():
            _make(conn, classes[act.cluster_class])
        case Retire():
            _retire(conn, act)
        case Retry():
            reason = "the account's quota may have room now"
            job.ensure(conn, JobKind.CLUSTER, act.cluster_id, reason=reason, actor=ACTOR)


def _make(conn: Connection, cluster_class: ClusterClass) -> None:
    plans = ", ".join(cluster_class.plans)
    cluster_id = clusters.record_new(
        conn,
        spec=cluster_class.spec,
        slots=cluster_class.slots,
        reason=f"ahead of demand for {plans}",
        actor=ACTOR,
        after=REFILL_DELAY,
    )
    detail = {
        "cluster_class": cluster_class.name,
        "plans": list(cluster_class.plans),
        "slots": cluster_class.slots,
    }
    audit.append(conn, actor=ACTOR, action="pool.make", resource=cluster_id, detail=detail)


def _retire(conn: Connection, act: Retire) -> None:
    """Not, where a tenant has been placed on it a moment ago."""
    row = cluster.get(conn, act.cluster_id, lock=True)
    if row.ever_used:
        return
    clusters.close(conn, row, reason=act.reason, actor=ACTOR)
    audit.append(conn, actor=ACTOR, action="pool.retire", resource=row.id, detail={"reason": act.reason})


@dataclass(frozen=True, slots=True)
class _Status:
    """`settled`: counted by class; the others one by one."""

    classes: list[ClusterClass]
    clusters: list[PoolCluster]
    settled: list[Settled]

    def plan(self, limits: PoolLimits, quota: Quota) -> PoolPlan:
        return plan_pool(self.classes, self.clusters, limits, quota, settled=self.settled)


def _observed(conn: Connection, catalogue: Catalogue, digest_of: DigestOf) -> _Status:
    classes = classes_of(catalogue, engine_version=ENGINE_VERSION)
    newest = stack.installed(conn)
    clusters = [_pool_cluster(found, digest_of, newest) for found in pool.clusters(conn)]
    return _Status(classes, clusters, pool.settled(conn))


def _pool_cluster(row: PooledCluster, digest_of: DigestOf, newest: StackRelease | None) -> PoolCluster:
    old_stack = row.stack_digest is not None and row.stack_digest != digest_of(row)
    old_stack |= newest is not None and row.release not in (None, newest.digest)
    return PoolCluster(
        id=row.id,
        cluster_class=row.cluster_class,
        slots=row.slots,
        used=row.used,
        ever_used=row.ever_used,
        closing=row.spec.lifecycle is ClusterLifecycle.CLOSED,
        ready=row.ready,
        runbook=row.runbook,
        outdated=old_stack or row.spec.engine_version != ENGINE_VERSION,
        age=row.age,
        surplus_for=row.surplus_for,
        parked_for=row.parked_for,
        instances=row.spec.instance_count,
        idle_acu=idle_acu(row.spec),
    )


def _report(
    limits: PoolLimits, status: _Status, held_back: Sequence[HeldBack], quota: Quota
) -> dict[str, Any]:
    known = {cluster_class.name for cluster_class in status.classes}
    others = {c.cluster_class for c in status.clusters} | {s.cluster_class for s in status.settled}
    reasons = {held.cluster_class: {"clusters": held.clusters, "reason": held.reason} for held in held_back}
    empty = [c for c in status.clusters if c.used == 0 and not c.closing]
    return {
        "classes": [
            {
                "cluster_class": cluster_class.name,
                "plans": list(cluster_class.plans),
                "isolation": cluster_class.spec.isolation.value,
                "min_acu": cluster_class.spec.min_acu,
                "max_acu": cluster_class.spec.max_acu,
                "warm_slots": cluster_class.warm_slots,
                **_slots(status, cluster_class.name),
                "held_back": reasons.get(cluster_class.name),
            }
            for cluster_class in status.classes
        ],
        "without_plan": [{"cluster_class": name, **_slots(status, name)} for name in sorted(others - known)],
        "limits": asdict(limits),
        "clusters": len(status.clusters) + sum(found.clusters for found in status.settled),
        "idle_acu_hours_per_day": sum(c.idle_acu for c in empty) * 24,
        "quota_left": asdict(quota),
    }


def _slots(status: _Status, cluster_class: str) -> dict[str, int]:
    """`free`: slots that a customer gets at once; `making`: those that are on their way."""
    own = [c for c in status.clusters if c.cluster_class == cluster_class]
    settled = [found for found in status.settled if found.cluster_class == cluster_class]
    serving = [c for c in own if not c.closing and c.runbook is None]
    return {
        "clusters": len(own) + sum(found.clusters for found in settled),
        "used": sum(c.used for c in own) + sum(found.used for found in settled),
        "free": sum(c.free for c in serving if c.ready) + sum(found.free for found in settled),
        "making": sum(c.free for c in serving if not c.ready),
        "needs_attention": sum(c.runbook is not None for c in own),
        "retiring": sum(c.closing for c in own),
    }
