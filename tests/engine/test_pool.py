"""The warm pool on fakes: refill, replace, retire, quota, and the engine's part in each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.domain.catalogue import PoolLimits
from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.errors import NeedsHuman
from controlplane.domain.job import JobKind, Lane, Priority
from controlplane.domain.tenant import Phase
from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.services import pool as pools
from controlplane.store import cluster, job, operation
from controlplane.store import pool as store
from controlplane.store import report as reports
from controlplane.store.report import About
from controlplane.workers.engine.stacks import cluster_addresses, cluster_variables
from controlplane.workers.providers.terraform.inventory import AwsAccount, ClusterInventory
from controlplane.workers.schedule import warm_pool
from tests.harness.engine import NEWER, Harness
from tests.harness.work import do_one, is_due, work_once

CLUSTER = ClusterInventory.cluster


@pytest.fixture
def warm(harness: Harness) -> Harness:
    """One free dedicated slot is asked for."""
    return ask(harness, warm_slots=1)


def ask(harness: Harness, *, warm_slots: int, plan: str = "dedicated", **limits: Any) -> Harness:
    plans = dict(harness.ctx.catalogue.plans)
    plans[plan] = replace(plans[plan], warm_slots=warm_slots)
    usual = {"reserve_clusters": 0, "retire_after_hours": 24.0}
    limited = PoolLimits(**usual | limits)
    harness.ctx = replace(harness.ctx, catalogue=replace(harness.ctx.catalogue, plans=plans, pool=limited))
    return harness


def clusters(harness: Harness) -> list[cluster.ClusterRow]:
    with harness.ctx.registry.connection() as conn:
        return cluster.page(conn, after=None, limit=50)


def free(harness: Harness) -> list[str]:
    """Ready clusters without a tenant."""
    with harness.ctx.registry.connection() as conn:
        return [row.id for row in clusters(harness) if row.ready and not cluster.tenants_on(conn, row.id)]


def report(harness: Harness) -> dict[str, Any]:
    with harness.ctx.registry.connection() as conn:
        found = reports.read(conn, About.POOL)
    assert found is not None
    return found.content


def class_of(harness: Harness, plan: str = "dedicated") -> dict[str, Any]:
    (cluster_class,) = [
        cluster_class for cluster_class in report(harness)["classes"] if plan in cluster_class["plans"]
    ]
    return dict(cluster_class)


def pay(harness: Harness, number: int, plan: str = "dedicated") -> str:
    subscription = harness.subscribe(number, plan=plan)
    harness.hear(subscription, "customer.subscription.created")
    return subscription


def age(harness: Harness, cluster_id: str, *, hours: float) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE cluster SET created_at = created_at - make_interval(hours => %(h)s::int),"
            " surplus_since = surplus_since - make_interval(hours => %(h)s::int) WHERE id = %(id)s",
            {"h": hours, "id": cluster_id},
        )


def waited_for_cluster(harness: Harness, tenant_id: str) -> bool:
    with harness.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT FROM step JOIN operation o ON o.id = step.operation_id"
            " WHERE o.resource_id = %s AND name = 'await_cluster'",
            [tenant_id],
        ).fetchone()
    return row is not None


# -------------------------------------------------------------------------------------- refill


def test_a_free_slot_is_made_ahead_and_a_customer_finds_it_ready(warm: Harness) -> None:
    warm.work()
    (ready,) = free(warm)
    assert (class_of(warm)["free"], class_of(warm)["making"]) == (1, 0)
    subscription = pay(warm, 1)
    warm.work()
    assert warm.placement(subscription).cluster_id == ready
    assert not waited_for_cluster(warm, warm.placement(subscription).tenant_id)
    (refilled,) = free(warm)
    assert refilled != ready
    assert warm.violations() == []


def test_a_refill_begins_after_the_customer_who_took_the_slot(warm: Harness) -> None:
    warm.work()
    subscription = pay(warm, 1)
    work_once(warm.ctx)
    assert warm.tenant(subscription).phase is Phase.ACTIVE
    assert class_of(warm)["making"] == 1
    with warm.ctx.registry.connection() as conn:
        (waiting,) = operation.page(conn, before=None, limit=5, state="waiting")
        now = conn.execute("SELECT clock_timestamp() AS now").fetchone()
    assert now is not None
    assert 20 < (waiting.next_attempt_at - now["now"]).total_seconds() <= pools.REFILL_DELAY
    assert waiting.actor == "pool"


def test_a_customer_who_takes_one_that_is_still_to_be_made_hurries_it(warm: Harness) -> None:
    assert warm_pool.tend(warm.ctx) == 1
    (coming,) = clusters(warm)
    assert not is_due(warm.ctx, Lane.LONG)
    subscription = pay(warm, 1)
    warm.notified.clear()
    do_one(warm.ctx, JobKind.INTAKE, subscription.replace("sub", "cus"))
    assert warm.placement(subscription).cluster_id == coming.id
    assert Lane.LONG in warm.notified
    with warm.ctx.registry.connection() as conn:
        [waiting] = conn.execute("SELECT priority FROM job WHERE kind = 'cluster'").fetchall()
        claimed = job.claim(conn, Lane.LONG, holder="one", seconds=60)
    assert waiting["priority"] == Priority.PAID
    assert claimed is not None
    assert (claimed.kind, claimed.subject) == (JobKind.CLUSTER, coming.id)


def test_two_at_once_for_one_slot_have_a_cluster_each(warm: Harness) -> None:
    warm.work()
    subscriptions = [pay(warm, 1), pay(warm, 2)]
    warm.work()
    homes = {warm.placement(subscription).cluster_id for subscription in subscriptions}
    assert len(homes) == 2
    assert len(free(warm)) == 1
    assert len(clusters(warm)) == 3
    assert warm.violations() == []


def test_shared_slots_are_filled_cluster_by_cluster(harness: Harness) -> None:
    ask(harness, warm_slots=150, plan="shared")
    harness.work()
    assert len(clusters(harness)) == 2
    assert class_of(harness, "shared")["free"] == 200


def test_a_look_that_finds_nothing_to_do_touches_nothing_outside(warm: Harness) -> None:
    """Above all no database: a connection would wake a cluster that sleeps."""
    warm.work()
    asked: list[str] = []
    warm.world._crash = asked.append
    assert warm_pool.tend(warm.ctx) == 0
    assert not any(is_due(warm.ctx, lane) for lane in Lane)
    assert work_once(warm.ctx) == 0
    assert asked == []


def test_two_lookers_at_once_make_one_cluster(warm: Harness) -> None:
    with warm.ctx.registry.connection() as conn, conn.transaction():
        assert store.hold(conn)
        assert warm_pool.tend(warm.ctx) == 0
    assert warm_pool.tend(warm.ctx) == 1
    assert warm_pool.tend(warm.ctx) == 0


# --------------------------------------------------------------------------------------- quota


def test_the_quota_stops_the_pool_and_says_so(warm: Harness) -> None:
    warm.quotas.set(clusters=0, instances=5)
    warm.work()
    assert clusters(warm) == []
    assert class_of(warm)["held_back"]["clusters"] == 1
    assert "quota of clusters" in class_of(warm)["held_back"]["reason"]
    warm.quotas.set(clusters=1, instances=5)
    warm.work()
    assert len(free(warm)) == 1


def test_a_customer_who_meets_the_quota_is_told_apart_and_others_go_on(harness: Harness) -> None:
    shared = pay(harness, 1, "shared")
    harness.work()
    harness.quotas.set(clusters=1, instances=1)
    starved, other = pay(harness, 2), pay(harness, 3, "shared")
    work_once(harness.ctx)
    row = harness.tenant(starved)
    assert row.runbook == "aws-quota"
    assert "quota of clusters" in (row.needs_attention or "")
    assert harness.tenant(other).phase is Phase.ACTIVE
    assert harness.placement(other).cluster_id == harness.placement(shared).cluster_id
    home = harness.placement(starved).cluster_id
    assert not [name for name in FakeAccount(harness.world).names("key") if name == home]

    harness.quotas.set(clusters=2, instances=2)
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE job_history SET finished_at = finished_at - interval '1 hour'")
    assert warm_pool.tend(harness.ctx) == 1
    harness.work()
    assert harness.tenant(starved).phase is Phase.ACTIVE
    assert harness.tenant(starved).needs_attention is None
    assert harness.violations() == []


@pytest.mark.parametrize("quota", ["clusters", "instances", "subnet_groups", "roles", "secrets"])
def test_each_quota_is_asked_before_anything_of_a_cluster_is_made(harness: Harness, quota: str) -> None:
    harness.quotas.set(**{quota: 0})
    starved = pay(harness, 1)
    for _ in range(2):
        work_once(harness.ctx)
    row, account = harness.tenant(starved), FakeAccount(harness.world)
    assert row.runbook == "aws-quota"
    assert f"quota of {quota.replace('_', ' ')} leaves 0" in (row.needs_attention or "")
    home = harness.placement(starved).cluster_id
    assert not [kind for kind in ("key", "network", "subnet-group", "role") if home in account.names(kind)]

    harness.quotas.set(**{quota: 100})
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE job_history SET finished_at = finished_at - interval '1 hour'")
    assert warm_pool.tend(harness.ctx) == 1
    harness.work()
    assert harness.tenant(starved).phase is Phase.ACTIVE


def test_new_clusters_share_a_subnet_group_and_older_ones_keep_theirs(harness: Harness) -> None:
    """RDS moves no cluster to another group: with another one Terraform would make it anew."""
    older = pay(harness, 1)
    harness.work()
    harness.ctx = replace(harness.ctx, platform=replace(harness.ctx.platform, subnet_group="databases"))
    harness.quotas.set(subnet_groups=0)
    newer = pay(harness, 2)
    harness.work()
    account = FakeAccount(harness.world)
    homes = [harness.placement(found).cluster_id for found in (older, newer)]
    assert account.names("subnet-group") == homes[:1]

    def groups() -> list[str | None]:
        return [(account.get("cluster", home) or {})["subnet_group"] for home in homes]

    assert groups() == [None, "databases"]
    larger = replace(harness.ctx.catalogue.plans["dedicated"], max_acu=32.0)
    plans = {**harness.ctx.catalogue.plans, "dedicated": larger}
    harness.ctx = replace(harness.ctx, catalogue=replace(harness.ctx.catalogue, plans=plans))
    for number, subscription in ((1, older), (2, newer)):
        harness.subscribe(number, plan="dedicated", metadata={"name": "Larger"})
        harness.hear(subscription)
    harness.work()
    assert groups() == [None, "databases"]
    assert [(account.get("cluster", home) or {})["max_acu"] for home in homes] == [32.0, 32.0]
    assert harness.violations() == []


def test_an_account_that_can_not_be_asked_does_not_stop_anything(warm: Harness) -> None:
    def refuses(*, max_age: float = 0.0) -> None:
        raise NeedsHuman("reading the account's quotas: AWS answered AccessDenied", runbook="aws-credentials")

    warm.quotas.left = refuses  # type: ignore[assignment,method-assign]
    warm.work()
    assert len(free(warm)) == 1


# ------------------------------------------------------------------------------ replace, retire


def test_a_warm_cluster_that_fails_is_replaced_and_then_destroyed(warm: Harness) -> None:
    warm.terraform.fail(CLUSTER, NeedsHuman("the key is gone", runbook="kms-key"))
    warm.work()
    (ready,) = free(warm)
    assert [row.id for row in clusters(warm)] == [ready]
    assert warm.violations() == []


def test_a_fault_that_breaks_every_cluster_stops_at_two(warm: Harness) -> None:
    warm.terraform.fail(CLUSTER, NeedsHuman("the key is gone", runbook="kms-key"), times=99)
    warm.work()
    assert [row.runbook for row in clusters(warm)] == ["kms-key", "kms-key"]
    assert class_of(warm)["held_back"]["reason"] == "2 empty clusters like it need attention"


def test_a_surplus_goes_after_a_day_and_leaves_nothing(warm: Harness) -> None:
    warm.work()
    (spare,) = free(warm)
    ask(warm, warm_slots=0)
    warm.work()
    age(warm, spare, hours=23)
    warm.work()
    assert free(warm) == [spare]
    age(warm, spare, hours=1)
    warm.work()
    assert clusters(warm) == []
    account = FakeAccount(warm.world)
    kinds = ("cluster", "instance", "key", "alias", "network", "snapshot")
    assert {kind: account.names(kind) for kind in kinds} == {kind: [] for kind in kinds}
    with warm.ctx.registry.connection() as conn:
        row = cluster.get(conn, spare)
        assert conn.execute("SELECT FROM stack WHERE workspace = %s", [spare]).fetchone() is None
        audit = conn.execute("SELECT action FROM audit WHERE resource = %s ORDER BY seq", [spare]).fetchall()
    assert row.spec.lifecycle is ClusterLifecycle.CLOSED
    assert row.destroyed_at is not None
    assert not row.ready
    assert [entry["action"] for entry in audit] == ["pool.make", "pool.retire"]
    assert warm.violations() == []


def test_an_edit_taken_back_costs_nothing(warm: Harness) -> None:
    warm.work()
    (spare,) = free(warm)
    ask(warm, warm_slots=0)
    warm.work()
    age(warm, spare, hours=20)
    ask(warm, warm_slots=1)
    warm.work()
    ask(warm, warm_slots=0)
    warm.work()
    age(warm, spare, hours=20)
    warm.work()
    assert free(warm) == [spare]


def test_a_cluster_made_by_an_older_stack_is_replaced_while_it_is_empty(warm: Harness) -> None:
    home = pay(warm, 1)
    warm.work()
    (old,) = free(warm)
    warm.carry(NEWER)
    warm.work()
    assert free(warm) == [old]  # young: it may be another release's
    age(warm, old, hours=1)
    warm.work()
    (new,) = free(warm)
    assert new != old
    assert {row.id for row in clusters(warm)} == {new, warm.placement(home).cluster_id}


def test_a_customer_who_comes_while_it_is_being_retired_gets_another(warm: Harness) -> None:
    warm.work()
    (spare,) = free(warm)
    ask(warm, warm_slots=0)
    warm_pool.tend(warm.ctx)
    age(warm, spare, hours=24)
    assert warm_pool.tend(warm.ctx) == 1
    subscription = pay(warm, 1)
    warm.work()
    assert warm.placement(subscription).cluster_id != spare
    assert warm.violations() == []


def test_a_cluster_that_was_given_away_a_moment_ago_is_not_retired(warm: Harness) -> None:
    warm.work()
    (spare,) = free(warm)
    ask(warm, warm_slots=0)
    warm_pool.tend(warm.ctx)
    age(warm, spare, hours=24)
    subscription = pay(warm, 1)
    work_once(warm.ctx)
    warm.work()
    assert warm.placement(subscription).cluster_id == spare
    assert warm.tenant(subscription).phase is Phase.ACTIVE


def test_a_tenants_home_is_never_destroyed_whoever_closed_it(harness: Harness) -> None:
    subscription = pay(harness, 1)
    harness.work()
    home = harness.placement(subscription).cluster_id
    with harness.ctx.registry.connection() as conn, conn.transaction():
        cluster.set_spec(conn, home, cluster.get(conn, home).spec.closed())
        job.ensure(conn, JobKind.CLUSTER, home, reason="by hand", actor="somebody")
    harness.work()
    with harness.ctx.registry.connection() as conn:
        assert cluster.get(conn, home).runbook == "cluster-in-use"
    assert FakeAccount(harness.world).get("cluster", home) is not None


def test_what_a_close_may_delete_is_what_the_stack_has(harness: Harness) -> None:
    pay(harness, 1)
    harness.work()
    (row,) = clusters(harness)
    row = replace(row, spec=replace(row.spec, instance_count=3))
    variables = cluster_variables(harness.ctx.platform, row)
    inventory = ClusterInventory(AwsAccount("eu-central-1"), variables)
    assert cluster_addresses(row) == set(inventory.addresses())


# --------------------------------------------------------------------------------------- report


def test_the_report_is_written_when_it_says_something_new(warm: Harness) -> None:
    warm.work()
    with warm.ctx.registry.connection() as conn:
        first = reports.read(conn, About.POOL)
        warm_pool.tend(warm.ctx)
        assert reports.read(conn, About.POOL) == first
    found = report(warm)
    assert found["clusters"] == 1
    assert found["idle_acu_hours_per_day"] == 24.0
    assert found["limits"]["max_clusters"] == 40
    ask(warm, warm_slots=1, max_clusters=3)
    warm_pool.tend(warm.ctx)
    assert report(warm)["limits"]["max_clusters"] == 3


def test_clusters_with_tenants_are_counted_by_class_and_not_looked_at(harness: Harness) -> None:
    ask(harness, warm_slots=0)
    pay(harness, 1)
    pay(harness, 2)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        assert store.clusters(conn) == []
        (settled,) = store.settled(conn)
        assert (settled.clusters, settled.used, settled.free) == (2, 2, 0)
    warm_pool.tend(ask(harness, warm_slots=1, max_clusters=2).ctx)
    assert report(harness)["clusters"] == 2
    found = class_of(harness)
    assert (found["clusters"], found["used"], found["free"], found["making"]) == (2, 2, 0, 0)
    assert found["held_back"] == {"clusters": 1, "reason": "pool.max_clusters is 2"}
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE cluster SET needs_attention = 'x', runbook = 'y' WHERE id = %s", [clusters(harness)[0].id]
        )
        assert len(store.clusters(conn)) == 1
