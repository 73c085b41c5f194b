"""Order, duplicates and simultaneity make no difference to the end state (I2, I12)."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from controlplane.domain.job import JobKind
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.workers.jobs import comparison
from tests.harness.engine import Harness
from tests.harness.work import do_one

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
            "SELECT t.id, t.slug, t.display_name, t.spec, p.id IS NOT NULL AS placed,"
            " c.cluster_class, c.slots FROM tenant t"
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
            do_one(harness.ctx, JobKind.INTAKE, subscription.replace("sub", "cus"))
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


@pytest.fixture
def fetches(harness: Harness) -> list[str]:
    """The calls by which a customer's subscriptions were fetched."""
    made: list[str] = []
    fetch = "billing.subscriptions_of:before"
    harness.world._crash = lambda point: made.append(point) if point == fetch else None
    return made


def test_one_event_five_times_at_once_is_one_tenant(harness: Harness, fetches: list[str]) -> None:
    subscription = harness.subscribe(1)
    start = threading.Barrier(5)

    def deliver(_: int) -> None:
        start.wait()
        harness.hear(subscription, event_id="evt_same")
        do_one(harness.ctx, JobKind.INTAKE, subscription.replace("sub", "cus"))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(deliver, range(5)))
    harness.work()
    assert harness.violations() == []
    with harness.ctx.registry.connection() as conn:
        events = conn.execute("SELECT state FROM stripe_event").fetchall()
        operations = conn.execute("SELECT count(*) AS n FROM operation WHERE kind = 'tenant'").fetchone()
    assert events == [{"state": "applied"}]
    assert len(fetches) == 1
    assert operations == {"n": 1}


def test_five_events_of_one_subscription_at_once_are_fetched_once(
    harness: Harness, fetches: list[str]
) -> None:
    subscription = harness.subscribe(1)
    for _ in range(5):
        harness.hear(subscription)
    start = threading.Barrier(5)

    def handle(_: int) -> None:
        start.wait()
        do_one(harness.ctx, JobKind.INTAKE, subscription.replace("sub", "cus"))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(handle, range(5)))
    assert len(fetches) == 1
    harness.subscribe(1, status="unpaid")
    harness.hear(subscription)
    harness.work()
    assert len(fetches) == 2
    assert harness.violations() == []
    assert harness.tenant(subscription).spec.lifecycle == "suspended"


@pytest.mark.parametrize("while_it", ["billing.subscriptions_of:after", "billing.customer:after"])
def test_a_change_that_is_heard_of_while_the_object_is_fetched_wins(harness: Harness, while_it: str) -> None:
    """Its event is none of those that the job has in hand, whose object is older."""
    subscription = harness.subscribe(1)
    first = harness.hear(subscription)
    heard: list[str] = []

    def change(point: str) -> None:
        if point == while_it and not heard:
            heard.append(point)
            harness.subscribe(1, status="unpaid")
            heard.append(harness.hear(subscription))

    harness.world._crash = change
    do_one(harness.ctx, JobKind.INTAKE, subscription.replace("sub", "cus"))
    with harness.ctx.registry.connection() as conn:
        states = conn.execute("SELECT id, state FROM stripe_event").fetchall()
    assert {row["id"]: row["state"] for row in states} == {first: "applied", heard[1]: "received"}
    harness.work()
    assert harness.violations() == []
    assert harness.tenant(subscription).spec.lifecycle == "suspended"


def test_who_fetched_an_older_object_than_somebody_else_wrote_fetches_again(harness: Harness) -> None:
    """Two that fetch at once are the intake and the comparison with Stripe."""
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    points: list[str] = []

    def compare(point: str) -> None:
        points.append(point)
        if points.count("billing.subscriptions_of:after") == 1 and point == "billing.subscriptions_of:after":
            harness.subscribe(1, status="unpaid")
            assert comparison.compare(harness.ctx).out_of_step == 1

    harness.world._crash = compare
    do_one(harness.ctx, JobKind.INTAKE, subscription.replace("sub", "cus"))
    assert harness.tenant(subscription).spec.lifecycle == "suspended"
    assert (
        points.count("billing.subscriptions_of:before") == 3
    )  # the intake, the comparison, the intake again
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
