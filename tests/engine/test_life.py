"""What a tenant goes through, on fakes: every change of mind ends where spec says."""

from __future__ import annotations

import re

from controlplane.actions.action import dry_run, run
from controlplane.domain.errors import Retryable
from controlplane.domain.job import JobKind
from controlplane.domain.placement import Identity, tenant_id_for
from controlplane.domain.steps import StepName
from controlplane.domain.tenant import Phase
from controlplane.localcloud.fakes.aws import MADE, FakeAccount
from controlplane.localcloud.fakes.databases import DATABASE
from controlplane.services import events
from controlplane.store import hostname, job
from controlplane.store import preview as previews
from controlplane.workers.providers.terraform.inventory import ClusterInventory
from controlplane.workers.steps import routes
from controlplane.workers.steps.registry import CLUSTER_ACTS, TENANT_ACTS
from tests.harness.engine import ZONE, Harness
from tests.harness.work import do_one, work_once


def phase(harness: Harness, subscription: str) -> Phase:
    return harness.tenant(subscription).phase


def route(harness: Harness, number: int = 1) -> str | None:
    entry = harness.cache.read(f"customer-{number}.{ZONE}")
    return None if entry is None else str(entry.payload["status"])


def paid(harness: Harness, number: int = 1, **fields: object) -> str:
    subscription = harness.subscribe(number, **fields)  # type: ignore[arg-type]
    harness.hear(subscription, "customer.subscription.created")
    harness.work()
    return subscription


def test_every_step_has_its_act() -> None:
    assert set(CLUSTER_ACTS) | set(TENANT_ACTS) == set(StepName)
    assert set(CLUSTER_ACTS) & set(TENANT_ACTS) == set()


def test_a_new_tenant_is_announced_before_it_is_made(harness: Harness) -> None:
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    do_one(harness.ctx, JobKind.INTAKE)
    assert phase(harness, subscription) is Phase.PENDING
    do_one(harness.ctx, JobKind.TENANT, tenant_id_for(subscription))
    assert route(harness) == "provisioning"
    assert phase(harness, subscription) is Phase.PROVISIONING
    harness.work()
    assert route(harness) == "active"
    assert phase(harness, subscription) is Phase.ACTIVE
    assert harness.violations() == []


def test_suspend_resume_and_close(harness: Harness) -> None:
    subscription = paid(harness)
    for status, expected, routed in (
        ("unpaid", Phase.SUSPENDED, "suspended"),
        ("active", Phase.ACTIVE, "active"),
        ("canceled", Phase.CLOSED, "gone"),
    ):
        harness.subscribe(1, status=status)
        harness.hear(subscription)
        harness.work()
        assert phase(harness, subscription) is expected
        assert route(harness) == routed
        assert harness.violations() == []
    placed = harness.placement(subscription)
    with harness.ctx.registry.connection() as conn:
        endpoint = conn.execute("SELECT endpoint FROM cluster").fetchone()
    assert endpoint is not None
    from controlplane.workers.providers.ports import ClusterEndpoint

    seen = harness.databases.observe(ClusterEndpoint(**endpoint["endpoint"]), placed)
    assert seen.exists
    assert not seen.logins_open


def test_cancelled_while_it_is_being_made(harness: Harness) -> None:
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    work_once(harness.ctx)
    harness.subscribe(1, status="canceled")
    harness.hear(subscription, "customer.subscription.deleted")
    harness.work()
    assert phase(harness, subscription) is Phase.CLOSED
    assert harness.violations() == []


def test_more_seats_are_published_and_nothing_else_is_touched(harness: Harness) -> None:
    subscription = paid(harness)
    with harness.ctx.registry.connection() as conn:
        before = conn.execute("SELECT max(id) AS id FROM operation").fetchone()
    harness.subscribe(1, quantity=7)
    harness.hear(subscription)
    harness.work()
    entry = harness.cache.read(f"customer-1.{ZONE}")
    assert entry is not None
    assert entry.payload["profile"]["quantity"] == 7
    with harness.ctx.registry.connection() as conn:
        steps = conn.execute(
            "SELECT name FROM step WHERE operation_id > %s", [before["id"] if before else 0]
        ).fetchall()
    assert [step["name"] for step in steps] == ["publish"]


def test_a_storm_of_changes_is_one_more_pass(harness: Harness) -> None:
    subscription = paid(harness)
    with harness.ctx.registry.connection() as conn:
        before = conn.execute("SELECT count(*) AS n FROM operation").fetchone()
    for quantity in range(2, 52):
        harness.subscribe(1, quantity=quantity)
        harness.hear(subscription)
        do_one(harness.ctx, JobKind.INTAKE)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        after = conn.execute("SELECT count(*) AS n FROM operation").fetchone()
    assert before is not None
    assert after is not None
    assert after["n"] == before["n"] + 1
    assert harness.tenant(subscription).spec.quantity == 51
    assert harness.violations() == []


def test_an_unknown_price_parks_and_leaves_the_tenant_as_it_is(harness: Harness) -> None:
    subscription = paid(harness)
    harness.subscribe(1, plan="nobody-knows")
    event = harness.hear(subscription)
    harness.work()
    row = harness.tenant(subscription)
    assert row.runbook == "parked-contract"
    assert row.spec.plan == "shared"
    assert route(harness) == "active"
    harness.subscribe(1)
    with harness.ctx.registry.connection() as conn:
        events.replay(conn, event, actor="support")
    harness.work()
    assert harness.tenant(subscription).needs_attention is None
    assert harness.violations() == []


def test_a_domain_that_is_not_verified_holds_nothing_up(harness: Harness) -> None:
    subscription = harness.subscribe(1, metadata={"custom_domain": "www.customer.dev"})
    harness.hear(subscription)
    work_once(harness.ctx)
    assert route(harness) == "active"
    assert harness.cache.read("www.customer.dev") is None
    with harness.ctx.registry.connection() as conn:
        [seen] = hostname.of_tenant(conn, tenant_id_for(subscription))
    assert seen.provider_id is not None
    for _ in range(6):
        harness.pass_time()
        with harness.ctx.registry.connection() as conn:
            conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
        work_once(harness.ctx)
    entry = harness.cache.read("www.customer.dev")
    assert entry is not None
    assert entry.payload["status"] == "active"
    harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    gone = harness.cache.read("www.customer.dev")
    assert gone is not None
    assert gone.payload["status"] == "gone"
    assert harness.hostnames.find("www.customer.dev") is None
    assert harness.violations() == []


def test_a_domain_belongs_to_one_tenant(harness: Harness) -> None:
    first = paid(harness, 1, metadata={"custom_domain": "www.customer.dev"})
    second = paid(harness, 2, metadata={"custom_domain": "www.customer.dev"})
    assert harness.tenant(first).spec.custom_domains == ("www.customer.dev",)
    assert harness.tenant(second).spec.custom_domains == ()
    with harness.ctx.registry.connection() as conn:
        warnings = conn.execute("SELECT detail FROM audit WHERE action = 'tenant.warn'").fetchall()
    assert "www.customer.dev" in warnings[0]["detail"]["warning"]


def test_one_slug_for_a_hundred_sign_ups(harness: Harness) -> None:
    for number in range(100):
        subscription = harness.subscribe(number, metadata={"slug": "acme"})
        harness.hear(subscription)
    harness.work()
    assert harness.violations() == []
    with harness.ctx.registry.connection() as conn:
        slugs = [row["slug"] for row in conn.execute("SELECT slug FROM tenant").fetchall()]
    assert len(set(slugs)) == 100
    assert slugs.count("acme") == 1


def test_a_flushed_cache_is_filled_by_the_full_pass(harness: Harness) -> None:
    paid(harness, 1)
    paid(harness, 2)
    harness.cache.flush()
    assert route(harness) is None
    assert routes.publish_all(harness.ctx) == 2
    assert route(harness) == "active"
    assert routes.publish_all(harness.ctx) == 0


def test_a_registry_restored_from_a_backup_still_wins_over_a_newer_cache(harness: Harness) -> None:
    subscription = paid(harness)
    entry = harness.cache.read(f"customer-1.{ZONE}")
    assert entry is not None
    harness.cache.publish({**entry.payload, "epoch": 5000, "status": "suspended", "database": None})
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", tenant_id_for(subscription), actor="test", reason="restored")
    harness.work()
    now = harness.cache.read(f"customer-1.{ZONE}")
    assert now is not None
    assert now.payload["status"] == "active"
    assert now.epoch > 5000


def test_a_preview_says_what_would_be_done_and_does_nothing(harness: Harness) -> None:
    subscription = paid(harness)
    tenant_id = tenant_id_for(subscription)
    harness.cache.flush()
    with harness.ctx.registry.connection() as conn:
        preview_id = dry_run(conn, "reprovision", tenant_id, actor="support")
    assert do_one(harness.ctx, JobKind.PREVIEW, str(preview_id)) is not None
    with harness.ctx.registry.connection() as conn:
        found = previews.get(conn, preview_id)
    assert found.state == "done"
    assert [step["name"] for step in found.steps or []] == ["announce", "publish"]
    assert found.changes == []
    assert route(harness) is None
    assert do_one(harness.ctx, JobKind.PREVIEW, str(preview_id)) is None


def test_a_preview_of_a_tenant_that_is_being_made_says_what_it_waits_for(harness: Harness) -> None:
    """It neither blocks nor answers from a moment that is over by the time it is read."""
    tenant_id = tenant_id_for(subscription := harness.subscribe(1, plan="dedicated"))
    harness.hear(subscription, "customer.subscription.created")
    do_one(harness.ctx, JobKind.INTAKE)
    do_one(harness.ctx, JobKind.TENANT, tenant_id)
    placed = harness.placement(subscription)
    with harness.ctx.registry.connection() as conn:
        preview_id = dry_run(conn, "reprovision", tenant_id, actor="support")
        waits_for = previews.waits_for(conn, tenant_id)
    assert waits_for is not None
    assert re.fullmatch(
        rf"operation \d+ is at step \d+, await_cluster; it waits for cluster {placed.cluster_id}:"
        r" operation \d+ has not begun",
        waits_for,
    )
    assert do_one(harness.ctx, JobKind.PREVIEW, str(preview_id)) is not None
    with harness.ctx.registry.connection() as conn:
        assert previews.get(conn, preview_id).state == "waiting"
        conn.execute("UPDATE preview SET requested_at = now() - interval '1 hour'")
        conn.execute("UPDATE job SET due_at = now() WHERE kind = 'preview'")
    assert do_one(harness.ctx, JobKind.PREVIEW, str(preview_id)) is not None
    with harness.ctx.registry.connection() as conn:
        failed = previews.get(conn, preview_id)
    assert (failed.state, failed.error) == ("failed", waits_for)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        assert previews.waits_for(conn, tenant_id) is None


def test_reprovision_mends_what_was_changed_by_hand(harness: Harness) -> None:
    subscription = paid(harness)
    placed = harness.placement(subscription)
    FakeAccount(harness.world).delete("secret", placed.app_secret)
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", placed.tenant_id, actor="support", reason="secret removed by hand")
    harness.work()
    assert harness.ctx.providers.secrets.describe(placed.app_secret) is not None
    assert harness.tenant(subscription).needs_attention is None


def test_a_database_that_was_made_and_not_bound_is_bound_by_the_next_attempt(harness: Harness) -> None:
    left: list[dict[str, object]] = []

    def refuse(point: str) -> None:
        if point == "databases.bind:before" and not left:
            left.extend(harness.world.all(DATABASE).values())
            raise Retryable("the server went away")

    harness.world._crash = refuse
    subscription = paid(harness)
    assert [(database["doors"], database["tenant"]) for database in left] == [(True, None)]
    placed = harness.placement(subscription)
    found = harness.databases.observe(harness.endpoint(placed), placed)
    assert found.identity == Identity(placed.id, placed.tenant_id)
    assert phase(harness, subscription) is Phase.ACTIVE
    assert harness.violations() == []


def test_a_periodic_look_does_not_wake_a_cluster_that_pauses(harness: Harness) -> None:
    from dataclasses import replace

    plan = replace(harness.ctx.catalogue.plan("shared"), min_acu=0, seconds_until_auto_pause=300)
    catalogue = replace(harness.ctx.catalogue, plans={**harness.ctx.catalogue.plans, "shared": plan})
    harness.ctx = replace(harness.ctx, catalogue=catalogue)
    subscription = paid(harness)
    asked: list[str] = []
    harness.world._crash = asked.append
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
    work_once(harness.ctx)
    assert not [call for call in asked if call.startswith("databases.")]
    assert [call for call in asked if call.startswith("secrets.")]
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", tenant_id_for(subscription), actor="support", reason="look")
    harness.work()
    assert [call for call in asked if call.startswith("databases.observe")]


def test_the_full_pass_writes_tombstones_too_even_of_a_plan_that_is_gone(harness: Harness) -> None:
    subscription = paid(harness)
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    from dataclasses import replace

    plans = {name: plan for name, plan in harness.ctx.catalogue.plans.items() if name != "shared"}
    harness.ctx = replace(harness.ctx, catalogue=replace(harness.ctx.catalogue, plans=plans))
    harness.cache.flush()
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", tenant_id_for(subscription), actor="support", reason="look")
    harness.work()
    assert routes.publish_all(harness.ctx) == 1
    assert route(harness) == "gone"


def test_a_cluster_that_stands_gets_its_role_by_the_next_version_of_its_stack(harness: Harness) -> None:
    """Its stack is another by now. Until it is applied its tenants are served as they are."""
    subscription = paid(harness)
    placed = harness.placement(subscription)
    for kind, address in (("role", ClusterInventory.role), ("policy", ClusterInventory.policy)):
        harness.world.drop(f"aws-{kind}", placed.cluster_id)
        harness.world.drop(MADE, f"{kind}/{placed.cluster_id}")
        state = harness.world.get("terraform-state", f"cluster/{placed.cluster_id}")
        del state["things"][address]
        harness.world.put("terraform-state", f"cluster/{placed.cluster_id}", state)
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE stack SET digest = 'of the last version', outputs = outputs - 'role_arn'"
            " WHERE workspace = %s",
            [placed.cluster_id],
        )
        run(conn, "reprovision", placed.tenant_id, actor="support", reason="sooner than the cluster's look")
    before = harness.cache.read(f"customer-1.{ZONE}")
    work_once(harness.ctx)
    assert harness.cache.read(f"customer-1.{ZONE}") == before
    assert harness.tenant(subscription).needs_attention is None
    with harness.ctx.registry.connection() as conn:
        job.ensure(conn, JobKind.CLUSTER, placed.cluster_id, reason="an upgrade")
    harness.work()
    assert harness.ctx.providers.identities.role_exists(placed.cluster_id)
    assert harness.violations() == []
