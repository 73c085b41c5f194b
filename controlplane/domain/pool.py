"""The warm pool: how many clusters to make ahead of demand, and which to let go. Pure.

Aurora takes minutes to make a cluster and a customer who has paid should wait seconds, so free slots
are kept for each plan that asks for them (`warm_slots`). Plans whose clusters are alike (`ClusterClass`)
share them. Each look compares what is asked for with what is there and names the difference; nothing is
remembered between two observations but since when a cluster has been a surplus.

What keeps it from flapping: a cluster is made when there are *fewer* free slots than asked for and goes
only when there are *enough without it*, for `retire_after_hours` on end. What keeps a fault from
multiplying: while two empty clusters of a class need attention no third is made for it, and a broken or
outdated one goes only after its replacement is ready. One that waits for the account's quota is not
broken; it is tried again when there is room. A cluster that ever held a tenant is never touched here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.domain.catalogue import Catalogue, Plan, PoolLimits
from controlplane.domain.cluster import ClusterSpec

QUOTA_RUNBOOK = "aws-quota"
FAILING_AT_MOST = 2
OUTDATED_FROM_AGE = 3600.0
"""Seconds. Younger clusters count as up to date, so that workers of two releases, each with a stack of
its own, do not replace each other's clusters while a deployment rolls."""
RETRY_QUOTA_AFTER = 300.0
RETRY_QUOTA_BLIND_AFTER = 3600.0
"""Seconds for which a cluster that met the quota is left alone: where AWS tells the quota, where not."""


@dataclass(frozen=True, slots=True)
class ClusterClass:
    """Plans that may share clusters, and the cluster that they would be given. `warm_slots`: what they
    ask for together. `slots`: those of a new cluster, the least that one of the plans asks for."""

    name: str
    plans: tuple[str, ...]
    warm_slots: int
    slots: int
    spec: ClusterSpec

    @property
    def idle_acu(self) -> float:
        return idle_acu(self.spec)

    @property
    def needs(self) -> dict[str, int]:
        return needs(instances=self.spec.instance_count, slots=self.slots)


@dataclass(frozen=True, slots=True)
class PoolCluster:
    """A cluster that is there or is being made. `used`: slots with a tenant. `ever_used`: it has or had
    a tenant. `runbook`: set while it needs attention. `outdated`: made to older rules than a new one
    would be. Ages in seconds: since it was recorded, since it has been a surplus, since its operation
    was parked; None where it was not."""

    id: str
    cluster_class: str
    slots: int
    used: int
    ever_used: bool
    closing: bool
    ready: bool
    runbook: str | None
    outdated: bool
    age: float
    surplus_for: float | None
    parked_for: float | None
    instances: int
    idle_acu: float

    @property
    def waits_for_quota(self) -> bool:
        return self.runbook == QUOTA_RUNBOOK and not self.ready

    @property
    def failing(self) -> bool:
        return self.runbook is not None and not self.waits_for_quota

    @property
    def removable(self) -> bool:
        return not self.closing and not self.ever_used and self.used == 0

    @property
    def stale(self) -> bool:
        return self.removable and self.outdated and self.age >= OUTDATED_FROM_AGE

    @property
    def serves(self) -> bool:
        """Does it count towards the slots that are asked for?"""
        return not self.closing and not self.failing and not self.stale

    @property
    def free(self) -> int:
        return max(0, self.slots - self.used)

    @property
    def needs(self) -> dict[str, int]:
        return needs(instances=self.instances, slots=self.slots)


@dataclass(frozen=True, slots=True)
class Settled:
    """Clusters of a class that are ready, need nothing and hold tenants, so that none of them ever goes: how
    many, and their slots."""

    cluster_class: str
    clusters: int
    used: int
    free: int


@dataclass(frozen=True, slots=True)
class Quota:
    """How many more the account may have, in this region or (roles) at all; None where AWS does not tell.
    `snapshots`: of clusters, made by hand."""

    clusters: int | None = None
    instances: int | None = None
    subnet_groups: int | None = None
    snapshots: int | None = None
    roles: int | None = None
    secrets: int | None = None

    def lacks(self, **needed: int) -> str | None:
        """What there is too little of, by the names above, in words; None where there is enough or nobody
        knows."""
        for name, count in needed.items():
            left = getattr(self, name)
            if left is not None and left < count:
                quota = name.replace("_", " ")
                return f"the account's quota of {quota} leaves {max(0, left)}, needed: {count}"
        return None

    def less(self, taken: Mapping[str, int], times: int = 1) -> Quota:
        left = {name: getattr(self, name) for name in taken}
        return replace(
            self, **{name: have - times * taken[name] for name, have in left.items() if have is not None}
        )


def needs(*, instances: int, slots: int) -> dict[str, int]:
    """What a cluster takes of `Quota`: a secret for its master and one for each placement, which follow."""
    return {"clusters": 1, "instances": instances, "subnet_groups": 1, "roles": 1, "secrets": 1 + slots}


@dataclass(frozen=True, slots=True)
class Make:
    cluster_class: str


@dataclass(frozen=True, slots=True)
class Retire:
    cluster_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Let a cluster that met the quota go on."""

    cluster_id: str


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Clusters of a class that are asked for and not made, and why."""

    cluster_class: str
    clusters: int
    reason: str


Act = Make | Retire | Retry


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """`surplus`: clusters that are more than is asked for now, whether or not for long enough."""

    acts: tuple[Act, ...]
    held_back: tuple[HeldBack, ...]
    surplus: frozenset[str]


def idle_acu(spec: ClusterSpec) -> float:
    """What a cluster uses when nobody works with it; a paused one uses nothing."""
    return spec.min_acu * spec.instance_count


def classes_of(catalogue: Catalogue, *, engine_version: str) -> list[ClusterClass]:
    """By the name of the first plan, those that ask for nothing too."""
    alike: dict[str, list[Plan]] = {}
    for plan in sorted(catalogue.plans.values(), key=lambda plan: plan.name):
        alike.setdefault(ClusterSpec.for_plan(plan, engine_version=engine_version).cluster_class, []).append(
            plan
        )
    return [
        ClusterClass(
            name=cluster_class,
            plans=tuple(plan.name for plan in plans),
            warm_slots=sum(plan.warm_slots for plan in plans),
            slots=min(plan.slots for plan in plans),
            spec=ClusterSpec.for_plan(plans[0], engine_version=engine_version),
        )
        for cluster_class, plans in alike.items()
    ]


def plan_pool(
    classes: Sequence[ClusterClass],
    clusters: Sequence[PoolCluster],
    limits: PoolLimits,
    quota: Quota,
    *,
    settled: Sequence[Settled] = (),
) -> PoolPlan:
    """What to do now. `clusters`: all that are not gone yet, of any class, those with tenants too, but for
    those that are `settled`."""
    budget = _Budget(clusters, limits, quota, sum(found.clusters for found in settled))
    free = {found.cluster_class: found.free for found in settled}
    retries = _retries(clusters, quota)
    makes, held_back = _makes(classes, clusters, budget, free)
    asked = {cluster_class.name: cluster_class.warm_slots for cluster_class in classes}
    retires: list[Retire] = []
    surplus: set[str] = set()
    for name in sorted({cluster.cluster_class for cluster in clusters}):
        own = [cluster for cluster in clusters if cluster.cluster_class == name]
        gone, extra = _retires(own, asked.get(name, 0), limits, free.get(name, 0))
        retires += gone
        surplus |= extra
    return PoolPlan((*retries, *makes, *retires), tuple(held_back), frozenset(surplus))


class _Budget:
    """What may still be made; every cluster that is planned takes its part."""

    def __init__(
        self, clusters: Sequence[PoolCluster], limits: PoolLimits, quota: Quota, settled: int
    ) -> None:
        # What AWS counts as used does not hold those yet that are recorded and not begun. One that is
        # being made may be counted twice for its minutes: the pool would rather wait than go over.
        coming = [cluster for cluster in clusters if not cluster.ready and not cluster.closing]
        self._limits = limits
        self._clusters = len(clusters) + settled
        self._room = quota.less(needs(instances=1, slots=0), limits.reserve_clusters)
        for cluster in coming:
            self._room = self._room.less(cluster.needs)
        self._idle = sum(c.idle_acu for c in clusters if c.used == 0 and not c.closing)

    def refusal(self, cluster_class: ClusterClass) -> str | None:
        """Why no cluster of this class may be made; None where it may."""
        limits, daily = self._limits, self._limits.max_idle_acu_hours_per_day
        if self._clusters >= limits.max_clusters:
            return f"pool.max_clusters is {limits.max_clusters}"
        if daily is not None and (self._idle + cluster_class.idle_acu) * 24 > daily:
            return f"pool.max_idle_acu_hours_per_day is {daily:g}"
        lacking = self._room.lacks(**cluster_class.needs)
        return None if lacking is None else f"{lacking}, beside pool.reserve_clusters"

    def take(self, cluster_class: ClusterClass) -> None:
        self._clusters += 1
        self._idle += cluster_class.idle_acu
        self._room = self._room.less(cluster_class.needs)


def _makes(
    classes: Sequence[ClusterClass], clusters: Sequence[PoolCluster], budget: _Budget, free: Mapping[str, int]
) -> tuple[list[Make], list[HeldBack]]:
    """One of each cluster class in turn, so that a class which asks for many does not take all that may be
    made."""
    missing = {found.name: _missing(found, clusters, free.get(found.name, 0)) for found in classes}
    failing = {
        cluster_class.name: sum(
            c.removable and c.failing for c in clusters if c.cluster_class == cluster_class.name
        )
        for cluster_class in classes
    }
    makes: list[Make] = []
    held_back: list[HeldBack] = []
    asking = [cluster_class for cluster_class in classes if missing[cluster_class.name] > 0]
    while asking:
        for cluster_class in list(asking):
            refusal = budget.refusal(cluster_class)
            if failing[cluster_class.name] >= FAILING_AT_MOST:
                refusal = f"{failing[cluster_class.name]} empty clusters like it need attention"
            if refusal is None:
                budget.take(cluster_class)
                makes.append(Make(cluster_class.name))
                missing[cluster_class.name] -= 1
            else:
                held_back.append(HeldBack(cluster_class.name, missing[cluster_class.name], refusal))
                missing[cluster_class.name] = 0
        asking = [cluster_class for cluster_class in asking if missing[cluster_class.name] > 0]
    return makes, held_back


def _missing(cluster_class: ClusterClass, clusters: Iterable[PoolCluster], settled: int) -> int:
    free = settled + sum(c.free for c in clusters if c.cluster_class == cluster_class.name and c.serves)
    return max(0, math.ceil((cluster_class.warm_slots - free) / cluster_class.slots))


def _retires(
    own: Sequence[PoolCluster], asked: int, limits: PoolLimits, settled: int
) -> tuple[list[Retire], set[str]]:
    """Of the clusters of one class: those that go now, and all that are a surplus now. `settled`: free slots
    of those that stay."""
    ready = settled + sum(c.free for c in own if c.serves and c.ready)
    retires: list[Retire] = []
    surplus: set[str] = set()
    for cluster in sorted(own, key=lambda c: (not c.failing, not c.stale, c.ready, -c.age, c.id)):
        if not cluster.removable:
            continue
        counted = cluster.slots if cluster.serves and cluster.ready else 0
        if ready - counted < asked:
            continue
        surplus.add(cluster.id)
        ready -= counted
        if (cluster.failing or cluster.stale) and asked > 0:
            why = "it needs attention" if cluster.failing else "it is outdated"
            retires.append(Retire(cluster.id, f"{why}, and its replacement is ready"))
        elif (cluster.surplus_for or 0.0) >= limits.retire_after_hours * 3600:
            retires.append(Retire(cluster.id, "more free slots than are asked for"))
    return retires, surplus


def _retries(clusters: Sequence[PoolCluster], quota: Quota) -> list[Retry]:
    """Those with tenants first, then the oldest."""
    waiting = [c for c in clusters if c.waits_for_quota and not c.closing and c.parked_for is not None]
    waiting.sort(key=lambda c: (c.used == 0, -c.age, c.id))
    if quota.clusters is None:
        return [Retry(c.id) for c in waiting if (c.parked_for or 0.0) >= RETRY_QUOTA_BLIND_AFTER]
    coming = [c for c in clusters if not c.ready and not c.closing and not c.waits_for_quota]
    room = quota
    for cluster in coming:
        room = room.less(cluster.needs)
    retries = []
    for cluster in waiting:
        if room.lacks(**cluster.needs) is not None:
            break
        if (cluster.parked_for or 0.0) >= RETRY_QUOTA_AFTER:
            retries.append(Retry(cluster.id))
            room = room.less(cluster.needs)
    return retries
