"""What a tenant goes through, on fakes: every change of mind ends where desired says."""

from __future__ import annotations

from controlplane.domain.placement import tenant_id_for
from controlplane.domain.steps import StepName
from controlplane.domain.tenant import Phase
from controlplane.services import events, tenants
from controlplane.store import hostname
from controlplane.store import preview as previews
from tests.engine.house import ZONE, House
from workers.engine.converge import converge
from workers.jobs import preview
from workers.runtime import polling
from workers.steps import routes
from workers.steps.registry import CLUSTER_ACTS, TENANT_ACTS


def phase(house: House, subscription: str) -> Phase:
    return house.tenant(subscription).phase


def route(house: House, number: int = 1) -> str | None:
    entry = house.cache.read(f"customer-{number}.{ZONE}")
    return None if entry is None else str(entry.payload["status"])


def paid(house: House, number: int = 1, **fields: object) -> str:
    subscription = house.subscribe(number, **fields)  # type: ignore[arg-type]
    house.hear(subscription, "customer.subscription.created")
    house.work()
    return subscription


def test_every_step_has_its_act() -> None:
    assert set(CLUSTER_ACTS) | set(TENANT_ACTS) == set(StepName)
    assert set(CLUSTER_ACTS) & set(TENANT_ACTS) == set()


def test_a_new_tenant_is_announced_before_it_is_made(house: House) -> None:
    subscription = house.subscribe(1)
    house.hear(subscription)
    with house.ctx.registry.connection() as conn:
        stored = conn.execute("SELECT id FROM stripe_event").fetchall()
    from workers.jobs.intake import handle_event

    handle_event(house.ctx, stored[0]["id"])
    assert phase(house, subscription) is Phase.PENDING
    from controlplane.domain.operation import ResourceKind

    converge(house.ctx, ResourceKind.TENANT, tenant_id_for(subscription))
    assert route(house) == "provisioning"
    assert phase(house, subscription) is Phase.PROVISIONING
    house.work()
    assert route(house) == "active"
    assert phase(house, subscription) is Phase.ACTIVE
    assert house.violations() == []


def test_suspend_resume_and_close(house: House) -> None:
    subscription = paid(house)
    for status, expected, routed in (
        ("unpaid", Phase.SUSPENDED, "suspended"),
        ("active", Phase.ACTIVE, "active"),
        ("canceled", Phase.CLOSED, "gone"),
    ):
        house.subscribe(1, status=status)
        house.hear(subscription)
        house.work()
        assert phase(house, subscription) is expected
        assert route(house) == routed
        assert house.violations() == []
    placed = house.placement(subscription)
    with house.ctx.registry.connection() as conn:
        endpoint = conn.execute("SELECT endpoint FROM cluster").fetchone()
    assert endpoint is not None
    from workers.providers.ports import ClusterEndpoint

    seen = house.databases.observe(ClusterEndpoint(**endpoint["endpoint"]), placed)
    assert seen.exists
    assert not seen.logins_open


def test_cancelled_while_it_is_being_made(house: House) -> None:
    subscription = house.subscribe(1)
    house.hear(subscription)
    polling.work_once(house.ctx)
    house.subscribe(1, status="canceled")
    house.hear(subscription, "customer.subscription.deleted")
    house.work()
    assert phase(house, subscription) is Phase.CLOSED
    assert house.violations() == []


def test_more_seats_are_published_and_nothing_else_is_touched(house: House) -> None:
    subscription = paid(house)
    with house.ctx.registry.connection() as conn:
        before = conn.execute("SELECT max(id) AS id FROM operation").fetchone()
    house.subscribe(1, quantity=7)
    house.hear(subscription)
    house.work()
    entry = house.cache.read(f"customer-1.{ZONE}")
    assert entry is not None
    assert entry.payload["profile"]["quantity"] == 7
    with house.ctx.registry.connection() as conn:
        steps = conn.execute(
            "SELECT name FROM step WHERE operation_id > %s", [before["id"] if before else 0]
        ).fetchall()
    assert [step["name"] for step in steps] == ["publish"]


def test_a_storm_of_changes_is_one_more_pass(house: House) -> None:
    subscription = paid(house)
    with house.ctx.registry.connection() as conn:
        before = conn.execute("SELECT count(*) AS n FROM operation").fetchone()
    for quantity in range(2, 52):
        house.subscribe(1, quantity=quantity)
        event = house.hear(subscription)
        from workers.jobs.intake import handle_event

        handle_event(house.ctx, event)
    house.work()
    with house.ctx.registry.connection() as conn:
        after = conn.execute("SELECT count(*) AS n FROM operation").fetchone()
    assert before is not None
    assert after is not None
    assert after["n"] == before["n"] + 1
    assert house.tenant(subscription).desired.quantity == 51
    assert house.violations() == []


def test_an_unknown_price_parks_and_leaves_the_tenant_as_it_is(house: House) -> None:
    subscription = paid(house)
    house.subscribe(1, plan="nobody-knows")
    event = house.hear(subscription)
    house.work()
    row = house.tenant(subscription)
    assert row.runbook == "parked-subscription"
    assert row.desired.plan == "shared"
    assert route(house) == "active"
    house.subscribe(1)
    with house.ctx.registry.connection() as conn:
        events.replay(conn, event, actor="support")
    house.work()
    assert house.tenant(subscription).needs_attention is None
    assert house.violations() == []


def test_a_domain_that_is_not_verified_holds_nothing_up(house: House) -> None:
    subscription = house.subscribe(1, metadata={"custom_domain": "www.customer.dev"})
    house.hear(subscription)
    polling.work_once(house.ctx)
    assert route(house) == "active"
    assert house.cache.read("www.customer.dev") is None
    with house.ctx.registry.connection() as conn:
        [seen] = hostname.of_tenant(conn, tenant_id_for(subscription))
    assert seen.provider_id is not None
    for _ in range(6):
        house.pass_time()
        with house.ctx.registry.connection() as conn:
            conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")
        polling.work_once(house.ctx)
    entry = house.cache.read("www.customer.dev")
    assert entry is not None
    assert entry.payload["status"] == "active"
    house.subscribe(1)
    house.hear(subscription)
    house.work()
    gone = house.cache.read("www.customer.dev")
    assert gone is not None
    assert gone.payload["status"] == "gone"
    assert house.hostnames.find("www.customer.dev") is None
    assert house.violations() == []


def test_a_domain_belongs_to_one_tenant(house: House) -> None:
    first = paid(house, 1, metadata={"custom_domain": "www.customer.dev"})
    second = paid(house, 2, metadata={"custom_domain": "www.customer.dev"})
    assert house.tenant(first).desired.custom_domains == ("www.customer.dev",)
    assert house.tenant(second).desired.custom_domains == ()
    with house.ctx.registry.connection() as conn:
        warnings = conn.execute("SELECT detail FROM audit WHERE action = 'tenant.warn'").fetchall()
    assert "www.customer.dev" in warnings[0]["detail"]["warning"]


def test_one_slug_for_a_hundred_sign_ups(house: House) -> None:
    for number in range(100):
        subscription = house.subscribe(number, metadata={"slug": "acme"})
        house.hear(subscription)
    house.work()
    assert house.violations() == []
    with house.ctx.registry.connection() as conn:
        slugs = [row["slug"] for row in conn.execute("SELECT slug FROM tenant").fetchall()]
    assert len(set(slugs)) == 100
    assert slugs.count("acme") == 1


def test_a_flushed_cache_is_filled_by_the_full_pass(house: House) -> None:
    paid(house, 1)
    paid(house, 2)
    house.cache.flush()
    assert route(house) is None
    assert routes.publish_all(house.ctx) == 2
    assert route(house) == "active"
    assert routes.publish_all(house.ctx) == 0


def test_a_registry_restored_from_a_backup_still_wins_over_a_newer_cache(house: House) -> None:
    subscription = paid(house)
    entry = house.cache.read(f"customer-1.{ZONE}")
    assert entry is not None
    house.cache.publish({**entry.payload, "epoch": 5000, "status": "suspended", "database": None})
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, tenant_id_for(subscription), actor="test", reason="restored")
    house.work()
    now = house.cache.read(f"customer-1.{ZONE}")
    assert now is not None
    assert now.payload["status"] == "active"
    assert now.epoch > 5000


def test_a_preview_says_what_would_be_done_and_does_nothing(house: House) -> None:
    subscription = paid(house)
    tenant_id = tenant_id_for(subscription)
    house.cache.flush()
    with house.ctx.registry.connection() as conn:
        preview_id = tenants.request_preview(conn, tenant_id, actor="support")
    assert preview.work_out(house.ctx, preview_id)
    with house.ctx.registry.connection() as conn:
        found = previews.get(conn, preview_id)
    assert found.state == "done"
    assert [step["name"] for step in found.steps or []] == ["announce", "publish"]
    assert found.changes == []
    assert route(house) is None
    assert not preview.work_out(house.ctx, preview_id)


def test_reprovision_mends_what_was_changed_by_hand(house: House) -> None:
    subscription = paid(house)
    placed = house.placement(subscription)
    house.world.drop("aws-role", placed.iam_role)
    house.world.drop("aws-policy", placed.iam_role)
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, placed.tenant_id, actor="support", reason="role removed by hand")
    house.work()
    assert house.ctx.providers.identities.role_exists(placed.iam_role)
    assert house.tenant(subscription).needs_attention is None


def test_a_periodic_look_does_not_wake_a_cluster_that_pauses(house: House) -> None:
    from dataclasses import replace

    plan = replace(house.ctx.catalogue.plan("shared"), min_acu=0, seconds_until_auto_pause=300)
    catalogue = replace(house.ctx.catalogue, plans={**house.ctx.catalogue.plans, "shared": plan})
    house.ctx = replace(house.ctx, catalogue=catalogue)
    subscription = paid(house)
    asked: list[str] = []
    house.world._crash = asked.append
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")
    polling.work_once(house.ctx)
    assert not [call for call in asked if call.startswith("databases.")]
    assert [call for call in asked if call.startswith("secrets.")]
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, tenant_id_for(subscription), actor="support", reason="look")
    house.work()
    assert [call for call in asked if call.startswith("databases.observe")]


def test_the_full_pass_writes_tombstones_too_even_of_a_plan_that_is_gone(house: House) -> None:
    subscription = paid(house)
    house.subscribe(1, status="canceled")
    house.hear(subscription)
    house.work()
    from dataclasses import replace

    plans = {name: plan for name, plan in house.ctx.catalogue.plans.items() if name != "shared"}
    house.ctx = replace(house.ctx, catalogue=replace(house.ctx.catalogue, plans=plans))
    house.cache.flush()
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, tenant_id_for(subscription), actor="support", reason="look")
    house.work()
    assert routes.publish_all(house.ctx) == 1
    assert route(house) == "gone"
