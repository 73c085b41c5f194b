"""The warm pool's decisions: examples that explain, properties that hold for any fleet."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.catalogue import Catalogue, Isolation, Plan, PoolLimits
from controlplane.domain.pool import (
    FAILING_AT_MOST,
    OUTDATED_FROM_AGE,
    RETRY_QUOTA_AFTER,
    RETRY_QUOTA_BLIND_AFTER,
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
    plan_pool,
)

DAY = 24 * 3600.0
LIMITS = PoolLimits(max_clusters=20, reserve_clusters=0, retire_after_hours=24)
UNKNOWN = Quota()


def plan(name: str, **changes: Any) -> Plan:
    values: dict[str, Any] = {"isolation": Isolation.DEDICATED, "min_acu": 1.0, "max_acu": 4.0} | changes
    return Plan(
        name=name, backup_retention_days=7, pool_size=5, connection_limit=20, retention_days=30, **values
    )


def classes(*plans: Plan) -> list[ClusterClass]:
    return classes_of(Catalogue(1, {p.name: p for p in plans}), engine_version="17.5")


def status(cluster_class: ClusterClass, **changes: Any) -> PoolCluster:
    """A ready, empty cluster of this class, changed."""
    usual = PoolCluster(
        id="c-1",
        cluster_class=cluster_class.name,
        slots=cluster_class.slots,
        used=0,
        ever_used=False,
        closing=False,
        ready=True,
        runbook=None,
        outdated=False,
        age=DAY,
        surplus_for=None,
        parked_for=None,
        instances=cluster_class.spec.instance_count,
        idle_acu=cluster_class.idle_acu,
    )
    return replace(usual, **changes)


(WARM,) = classes(plan("team", warm_slots=1))
(COLD,) = classes(plan("team"))


# ------------------------------------------------------------------------------------ examples


def test_plans_that_are_alike_share_their_warm_slots() -> None:
    first, second, other = plan("a", warm_slots=2), plan("b", warm_slots=1), plan("c", max_acu=8.0)
    together, alone = classes(first, second, other)
    assert (together.plans, together.warm_slots) == (("a", "b"), 3)
    assert (alone.plans, alone.warm_slots) == (("c",), 0)


def test_shared_plans_that_are_alike_crowd_no_cluster() -> None:
    shared = {"isolation": Isolation.SHARED}
    (cluster_class,) = classes(plan("a", slots=50, **shared), plan("b", slots=10, **shared))
    assert cluster_class.slots == 10


def test_nothing_asked_for_nothing_done() -> None:
    assert plan_pool([COLD], [], LIMITS, UNKNOWN) == PoolPlan((), (), frozenset())


def test_a_slot_is_made_and_one_on_its_way_counts() -> None:
    assert plan_pool([WARM], [], LIMITS, UNKNOWN).acts == (Make(WARM.name),)
    assert plan_pool([WARM], [status(WARM, ready=False)], LIMITS, UNKNOWN).acts == ()


def test_a_slot_that_was_taken_is_made_again() -> None:
    assert plan_pool([WARM], [status(WARM, used=1, ever_used=True)], LIMITS, UNKNOWN).acts == (
        Make(WARM.name),
    )


def test_a_shared_cluster_is_made_when_the_free_slots_run_low() -> None:
    (cluster_class,) = classes(plan("s", isolation=Isolation.SHARED, slots=10, warm_slots=3))
    assert (
        plan_pool([cluster_class], [status(cluster_class, used=7, ever_used=True)], LIMITS, UNKNOWN).acts
        == ()
    )
    assert plan_pool(
        [cluster_class], [status(cluster_class, used=8, ever_used=True)], LIMITS, UNKNOWN
    ).acts == (Make(cluster_class.name),)


def test_every_limit_holds_back_and_says_so() -> None:
    for limits, quota, named in (
        (replace(LIMITS, max_clusters=0), UNKNOWN, "pool.max_clusters is 0"),
        (replace(LIMITS, max_idle_acu_hours_per_day=23.0), UNKNOWN, "max_idle_acu_hours_per_day is 23"),
        (LIMITS, Quota(clusters=0, instances=9), "quota of clusters"),
        (replace(LIMITS, reserve_clusters=2), Quota(clusters=2, instances=9), "quota of clusters"),
        (LIMITS, Quota(clusters=9, instances=0), "quota of instances"),
    ):
        found = plan_pool([WARM], [], limits, quota)
        assert found.acts == ()
        (held,) = found.held_back
        assert (held.cluster_class, held.clusters) == (WARM.name, 1)
        assert named in held.reason
    allowed = replace(LIMITS, max_idle_acu_hours_per_day=24.0)
    assert plan_pool([WARM], [], allowed, Quota(clusters=1, instances=1)).acts == (Make(WARM.name),)


def test_what_is_left_of_a_limit_is_shared_out() -> None:
    greedy, modest = classes(plan("greedy", warm_slots=9), plan("modest", max_acu=8.0, warm_slots=1))
    found = plan_pool([greedy, modest], [], replace(LIMITS, max_clusters=2), UNKNOWN)
    assert found.acts == (Make(greedy.name), Make(modest.name))
    assert found.held_back == (HeldBack(greedy.name, 8, "pool.max_clusters is 2"),)


def test_clusters_on_their_way_are_taken_off_the_quota_before_aws_counts_them() -> None:
    others = [status(COLD, id=f"c-{n}", ready=False, used=1, ever_used=True) for n in range(3)]
    (other,) = classes(plan("other", max_acu=8.0, warm_slots=1))
    assert plan_pool([COLD, other], others, LIMITS, Quota(clusters=3, instances=9)).acts == ()
    enough = Quota(clusters=4, instances=9)
    assert plan_pool([COLD, other], others, LIMITS, enough).acts == (Make(other.name),)


def test_what_aws_counts_already_or_will_soon_count_no_more_is_not_taken_off_the_quota() -> None:
    (other,) = classes(plan("other", max_acu=8.0, warm_slots=1))
    ready = status(COLD, id="c-1", used=1, ever_used=True)
    leaving = status(COLD, id="c-2", ready=False, closing=True)
    assert plan_pool([COLD, other], [ready, leaving], LIMITS, Quota(1, 1)).acts == (Make(other.name),)


def test_only_what_is_empty_and_stays_counts_towards_the_idle_capacity() -> None:
    (other,) = classes(plan("other", max_acu=8.0, warm_slots=1))
    for cluster, acts in (
        (status(COLD), ()),
        (status(COLD, used=1, ever_used=True), (Make(other.name),)),
        (status(COLD, closing=True), (Make(other.name),)),
    ):
        for daily in (24.0, 48.0):
            limits = replace(LIMITS, max_idle_acu_hours_per_day=daily)
            assert plan_pool([COLD, other], [cluster], limits, UNKNOWN).acts == (
                acts if daily == 24.0 else (Make(other.name),)
            )


def test_a_surplus_goes_after_its_time_and_not_before() -> None:
    found = plan_pool([COLD], [status(COLD)], LIMITS, UNKNOWN)
    assert (found.acts, found.surplus) == ((), {"c-1"})
    assert plan_pool([COLD], [status(COLD, surplus_for=DAY - 1)], LIMITS, UNKNOWN).acts == ()
    (retire,) = plan_pool([COLD], [status(COLD, surplus_for=DAY)], LIMITS, UNKNOWN).acts
    assert isinstance(retire, Retire)
    assert retire.cluster_id == "c-1"


def test_of_two_where_one_is_asked_for_only_one_is_a_surplus() -> None:
    two = [status(WARM, id="c-1"), status(WARM, id="c-2", age=2 * DAY)]
    found = plan_pool([WARM], two, LIMITS, UNKNOWN)
    assert (found.acts, found.surplus) == ((), {"c-2"})


def test_what_ever_held_a_tenant_stays() -> None:
    used = status(COLD, ever_used=True, surplus_for=9 * DAY)
    assert plan_pool([COLD], [used], LIMITS, UNKNOWN) == PoolPlan((), (), frozenset())


def test_a_broken_one_is_replaced_first_and_goes_then() -> None:
    broken = status(WARM, id="c-1", ready=False, runbook="kms-key")
    assert plan_pool([WARM], [broken], LIMITS, UNKNOWN).acts == (Make(WARM.name),)
    assert plan_pool([WARM], [broken, status(WARM, id="c-2", ready=False)], LIMITS, UNKNOWN).acts == ()
    (retire,) = plan_pool([WARM], [broken, status(WARM, id="c-2")], LIMITS, UNKNOWN).acts
    assert retire == Retire("c-1", "it needs attention, and its replacement is ready")


def test_a_fault_that_breaks_all_is_not_multiplied() -> None:
    broken = [status(WARM, id=f"c-{n}", ready=False, runbook="kms-key") for n in range(FAILING_AT_MOST)]
    found = plan_pool([WARM], broken, LIMITS, UNKNOWN)
    assert found.acts == ()
    assert found.held_back == (HeldBack(WARM.name, 1, "2 empty clusters like it need attention"),)


def test_only_empty_clusters_that_are_broken_keep_others_from_being_made() -> None:
    healthy = [status(WARM, id=f"c-{n}") for n in range(FAILING_AT_MOST)]
    (more,) = classes(plan("team", warm_slots=FAILING_AT_MOST + 1))
    assert plan_pool([more], healthy, LIMITS, UNKNOWN).acts == (Make(more.name),)
    homes = [replace(c, used=1, ever_used=True, ready=False, runbook="kms-key") for c in healthy]
    assert plan_pool([WARM], homes, LIMITS, UNKNOWN).acts == (Make(WARM.name),)


def test_a_broken_one_that_nobody_asks_for_is_looked_at_before_it_goes() -> None:
    broken = status(COLD, ready=False, runbook="kms-key", surplus_for=DAY - 1)
    assert plan_pool([COLD], [broken], LIMITS, UNKNOWN) == PoolPlan((), (), frozenset({"c-1"}))
    assert plan_pool([COLD], [replace(broken, surplus_for=DAY)], LIMITS, UNKNOWN).acts == (
        Retire("c-1", "more free slots than are asked for"),
    )


def test_an_outdated_one_is_replaced_unless_it_is_young() -> None:
    young = status(WARM, outdated=True, age=OUTDATED_FROM_AGE - 1)
    assert plan_pool([WARM], [young], LIMITS, UNKNOWN).acts == ()
    old = status(WARM, outdated=True, age=OUTDATED_FROM_AGE)
    assert plan_pool([WARM], [old], LIMITS, UNKNOWN).acts == (Make(WARM.name),)
    in_use = replace(old, used=1, ever_used=True)
    assert plan_pool([COLD], [in_use], LIMITS, UNKNOWN).acts == ()
    (retire,) = plan_pool([WARM], [old, status(WARM, id="c-2")], LIMITS, UNKNOWN).acts
    assert retire == Retire("c-1", "it is outdated, and its replacement is ready")


def test_one_that_met_the_quota_is_tried_again_when_there_is_room() -> None:
    waits = status(WARM, ready=False, runbook="aws-quota", parked_for=RETRY_QUOTA_AFTER)
    assert plan_pool([WARM], [waits], LIMITS, Quota(0, 0)).acts == ()
    assert plan_pool([WARM], [waits], LIMITS, Quota(1, 1)).acts == (Retry("c-1"),)
    early = replace(waits, parked_for=RETRY_QUOTA_AFTER - 1)
    assert plan_pool([WARM], [early], LIMITS, Quota(1, 1)).acts == ()
    assert plan_pool([WARM], [waits], LIMITS, UNKNOWN).acts == ()
    blind = replace(waits, parked_for=RETRY_QUOTA_BLIND_AFTER)
    assert plan_pool([WARM], [blind], LIMITS, UNKNOWN).acts == (Retry("c-1"),)


def test_it_is_not_tried_again_without_room_for_the_cluster_and_for_its_instances() -> None:
    waits = status(WARM, ready=False, runbook="aws-quota", parked_for=DAY)
    for room in (Quota(1, 0), Quota(0, 9), Quota(0, None)):
        assert plan_pool([WARM], [waits], LIMITS, room).acts == ()
    assert plan_pool([WARM], [waits], LIMITS, Quota(1, None)).acts == (Retry("c-1"),)


def test_only_what_was_parked_over_the_quota_and_stays_is_tried_again() -> None:
    waits = status(WARM, used=1, ever_used=True, ready=False, runbook="aws-quota", parked_for=DAY)
    for other in (
        replace(waits, closing=True),
        replace(waits, parked_for=None),
        replace(waits, runbook="kms-key"),
        replace(waits, ready=True),
    ):
        for room in (UNKNOWN, Quota(5, 5)):
            acts = plan_pool([COLD], [other], LIMITS, room).acts
            assert not any(isinstance(act, Retry) for act in acts)


def test_customers_are_tried_before_the_pool() -> None:
    usual = {"ready": False, "runbook": "aws-quota", "parked_for": DAY}
    empty, home = status(WARM, id="c-1", **usual), status(WARM, id="c-2", used=1, ever_used=True, **usual)
    assert plan_pool([WARM], [empty, home], LIMITS, Quota(1, 1)).acts[0] == Retry("c-2")
    assert Retry("c-1") not in plan_pool([WARM], [empty, home], LIMITS, Quota(1, 1)).acts


# ---------------------------------------------------------------------------------- properties

PLANS = st.lists(
    st.builds(
        plan,
        name=st.sampled_from(["a", "b", "c", "d"]),
        min_acu=st.sampled_from([0.0, 0.5, 2.0]),
        max_acu=st.sampled_from([4.0, 8.0]),
        instance_count=st.integers(1, 2),
        warm_slots=st.integers(0, 4),
        isolation=st.sampled_from(list(Isolation)),
        slots=st.integers(2, 4),
    ).map(lambda p: replace(p, slots=1) if p.isolation is Isolation.DEDICATED else p),
    min_size=1,
    max_size=4,
    unique_by=lambda p: p.name,
).map(lambda plans: classes(*plans))
LIMITED = st.builds(
    PoolLimits,
    max_clusters=st.integers(0, 8),
    reserve_clusters=st.integers(0, 2),
    max_idle_acu_hours_per_day=st.one_of(st.none(), st.floats(0, 300)),
    retire_after_hours=st.just(24.0),
)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[ClusterClass], list[PoolCluster]]:
    known = draw(PLANS)
    clusters = []
    for number in range(draw(st.integers(0, 6))):
        cluster_class = draw(st.sampled_from(known))
        used = draw(st.integers(0, cluster_class.slots))
        clusters.append(
            status(
                replace(cluster_class, name=draw(st.sampled_from([cluster_class.name, "no longer sold"]))),
                id=f"c-{number}",
                used=used,
                ever_used=used > 0 or draw(st.booleans()),
                closing=used == 0 and draw(st.booleans()),
                ready=draw(st.booleans()),
                runbook=draw(st.sampled_from([None, None, "kms-key", "aws-quota"])),
                outdated=draw(st.booleans()),
                age=draw(st.floats(0, 3 * DAY)),
                surplus_for=draw(st.one_of(st.none(), st.floats(0, 3 * DAY))),
                parked_for=draw(st.one_of(st.none(), st.floats(0, DAY))),
            )
        )
    return known, clusters


ROOM = st.builds(
    Quota,
    clusters=st.one_of(st.none(), st.integers(-1, 8)),
    instances=st.one_of(st.none(), st.integers(-1, 12)),
)


@given(fleets(), LIMITED, ROOM)
def test_no_limit_is_ever_passed(
    fleet: tuple[list[ClusterClass], list[PoolCluster]], limits: PoolLimits, quota: Quota
) -> None:
    known, clusters = fleet
    by_name = {cluster_class.name: cluster_class for cluster_class in known}
    makes = [
        by_name[a.cluster_class]
        for a in plan_pool(known, clusters, limits, quota).acts
        if isinstance(a, Make)
    ]
    if not makes:
        return
    assert len(clusters) + len(makes) <= limits.max_clusters
    if quota.clusters is not None:
        assert len(makes) <= quota.clusters - limits.reserve_clusters
    if quota.instances is not None:
        assert (
            sum(cluster_class.spec.instance_count for cluster_class in makes)
            <= quota.instances - limits.reserve_clusters
        )
    if limits.max_idle_acu_hours_per_day is not None:
        idle = [c.idle_acu for c in clusters if c.used == 0 and not c.closing]
        assert (sum(idle) + sum(f.idle_acu for f in makes)) * 24 <= limits.max_idle_acu_hours_per_day


@given(fleets(), LIMITED, ROOM)
def test_nothing_that_held_a_tenant_goes_and_ready_slots_never_fall_below_what_is_asked(
    fleet: tuple[list[ClusterClass], list[PoolCluster]], limits: PoolLimits, quota: Quota
) -> None:
    known, clusters = fleet
    retired = {a.cluster_id for a in plan_pool(known, clusters, limits, quota).acts if isinstance(a, Retire)}
    for cluster in clusters:
        if cluster.id in retired:
            assert (cluster.ever_used, cluster.used, cluster.closing) == (False, 0, False)
    for cluster_class in known:
        ready = [c for c in clusters if c.cluster_class == cluster_class.name and c.serves and c.ready]
        before, after = (sum(c.free for c in ready if c.id not in gone) for gone in (set(), retired))
        assert after >= min(before, cluster_class.warm_slots)


@settings(max_examples=200)
@given(fleets(), LIMITED, ROOM)
def test_it_comes_to_rest_with_what_was_asked_for_or_says_why_not(
    fleet: tuple[list[ClusterClass], list[PoolCluster]], limits: PoolLimits, quota: Quota
) -> None:
    """A day passes between two observations, what is made becomes ready, what is retired is gone."""
    known, clusters = fleet
    by_name = {cluster_class.name: cluster_class for cluster_class in known}
    clusters = [replace(c, outdated=False) for c in clusters]
    numbers = itertools.count(100)
    made: list[str] = []
    for _round in range(12):
        found = plan_pool(known, clusters, limits, quota)
        changes = [act for act in found.acts if not isinstance(act, Retry)]
        retired = {act.cluster_id for act in changes if isinstance(act, Retire)}
        assert not retired & set(made), "what the pool made itself it would not have needed"
        clusters = [
            replace(
                c,
                age=c.age + DAY,
                surplus_for=(c.surplus_for or 0.0) + DAY if c.id in found.surplus else None,
                ready=c.ready or c.id in made,
            )
            for c in clusters
            if c.id not in retired and not c.closing
        ]
        for act in changes:
            if isinstance(act, Make):
                name = f"c-{next(numbers)}"
                made.append(name)
                clusters.append(status(by_name[act.cluster_class], id=name, ready=False, age=0.0))
        if not changes and all(c.ready for c in clusters if c.id in made) and _round > 3:
            break
    else:
        raise AssertionError("it never comes to rest")
    held = {held_back.cluster_class for held_back in found.held_back}
    for cluster_class in known:
        free = sum(c.free for c in clusters if c.cluster_class == cluster_class.name and c.serves)
        assert free >= cluster_class.warm_slots or cluster_class.name in held


def test_free_slots_of_settled_clusters_are_free_slots() -> None:
    shared = replace(WARM, warm_slots=5, slots=4)
    settled = [
        Settled(shared.name, clusters=3, used=7, free=5),
        Settled("another", clusters=1, used=1, free=99),
    ]
    assert plan_pool([shared], [], LIMITS, UNKNOWN).acts == (Make(shared.name),) * 2
    assert plan_pool([shared], [], LIMITS, UNKNOWN, settled=settled).acts == ()
    fewer = [replace(settled[0], free=4), settled[1]]
    assert plan_pool([shared], [], LIMITS, UNKNOWN, settled=fewer).acts == (Make(shared.name),)
    most = replace(LIMITS, max_clusters=4)
    assert plan_pool([shared], [], most, UNKNOWN, settled=fewer).acts == (), "four there are"
    empty = status(shared, slots=4)
    assert plan_pool([shared], [empty], LIMITS, UNKNOWN, settled=settled).surplus == {empty.id}
    assert plan_pool([shared], [empty], LIMITS, UNKNOWN, settled=fewer).surplus == frozenset()
