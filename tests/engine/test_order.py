"""Order, duplicates and simultaneity make no difference to the end state (I2, I12)."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.workers.jobs import intake
from tests.harness.engine import Harness

TENANTS = 50
TYPES = (
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.updated",
    "invoice.paid",
)
STATUSES = ("active", "active", "active", "trialing", "past_due", "unpaid", "paused", "canceled")


def _end_state(harness: Harness) -> dict[str, Any]:
    """Everything that a customer or a cloud bill could notice, without ids that are drawn."""
    with harness.ctx.registry.connection() as conn:
        tenants = conn.execute(
            "SELECT t.id, t.slug, t.display_name, t.spec, p.number, c.cluster_class, c.slots FROM tenant t"
            " LEFT JOIN placement p ON p.tenant_id = t.id LEFT JOIN cluster c ON c.id = p.cluster_id"
            " ORDER BY t.id"
        ).fetchall()
        clusters = conn.execute(
            "SELECT cluster_class, count(*) AS n FROM cluster GROUP BY cluster_class ORDER BY cluster_class"
        ).fetchall()
        routes = conn.execute(
            "SELECT host, payload->>'status' AS status, payload->'profile' AS profile"
            " FROM route ORDER BY host"
        ).fetchall()
    return {"tenants": tenants, "clusters": clusters, "routes": routes}


def _run(harness: Harness, seed: int) -> dict[str, Any]:
    shuffle = random.Random(seed)
    fixed = random.Random(0)
    events: list[tuple[str, str, str]] = []
    for number in range(TENANTS):
        plan = "dedicated" if number % 10 == 0 else "shared"
        subscription = harness.subscribe(number, plan=plan, status=fixed.choice(STATUSES))
        for n, type_ in enumerate(TYPES):
            events += [(subscription, type_, f"evt_{number}_{n}")] * shuffle.choice((1, 1, 2, 3))
    shuffle.shuffle(events)
    for subscription, type_, event_id in events:
        harness.hear(subscription, type_, event_id=event_id)
        if shuffle.random() < 0.02:
            intake.handle_event(harness.ctx, event_id)
    harness.work()
    assert harness.violations() == []
    return _end_state(harness)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", [5, pytest.param(20, marks=pytest.mark.soak)])
def test_fifty_tenants_in_any_order_end_alike(
    postgres_server: PostgresServer, registry_template: str, seeds: int
) -> None:
    states = []
    for seed in range(seeds):
        name = f"order_{seed}_{random.getrandbits(32):x}"
        harness = Harness(postgres_server.create_database(name, template=registry_template))
        states.append(_run(harness, seed))
        harness.close()
        postgres_server.drop_database(name)
    assert len(states[0]["tenants"]) == TENANTS - sum(
        1 for number, status in enumerate(_statuses()) if status == "canceled"
    )
    for state in states[1:]:
        assert state == states[0]


def _statuses() -> list[str]:
    fixed = random.Random(0)
    return [fixed.choice(STATUSES) for _ in range(TENANTS)]


def test_one_event_five_times_at_once_is_one_tenant(harness: Harness) -> None:
    subscription = harness.subscribe(1)
    start = threading.Barrier(5)

    def deliver(_: int) -> None:
        start.wait()
        harness.hear(subscription, event_id="evt_same")
        intake.handle_event(harness.ctx, "evt_same")

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(deliver, range(5)))
    harness.work()
    assert harness.violations() == []
    with harness.ctx.registry.connection() as conn:
        events = conn.execute("SELECT state, attempts FROM stripe_event").fetchall()
        operations = conn.execute("SELECT count(*) AS n FROM operation WHERE kind = 'tenant'").fetchone()
    assert events == [{"state": "applied", "attempts": 1}]
    assert operations == {"n": 1}


def test_five_events_of_one_subscription_at_once_write_the_newest_object(harness: Harness) -> None:
    """Each fetches on its own; one that fetched an older object must fetch again, not win."""
    subscription = harness.subscribe(1)
    events = [harness.hear(subscription) for _ in range(5)]
    start = threading.Barrier(5)

    def handle(event_id: str) -> None:
        start.wait()
        intake.handle_event(harness.ctx, event_id)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(handle, events))
    harness.subscribe(1, status="unpaid")
    harness.hear(subscription)
    harness.work()
    assert harness.violations() == []
    assert harness.tenant(subscription).spec.lifecycle == "suspended"


def test_deleted_before_created_resurrects_nobody(harness: Harness) -> None:
    subscription = harness.subscribe(1, status="canceled")
    harness.hear(subscription, "customer.subscription.deleted")
    harness.work()
    harness.hear(subscription, "customer.subscription.created")
    harness.work()
    assert harness.violations() == []
    with harness.ctx.registry.connection() as conn:
        assert conn.execute("SELECT count(*) AS n FROM tenant").fetchone() == {"n": 0}
