"""The comparison with Stripe finds what no webhook reported, and touches nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.domain.tenant import Phase
from controlplane.store import report
from controlplane.store.report import About
from controlplane.workers.jobs.comparison import Compared, Pace, compare
from tests.harness.engine import Harness


def test_a_customer_whose_webhook_never_came_is_provisioned(harness: Harness) -> None:
    subscription = harness.subscribe(1)
    assert compare(harness.ctx) == Compared(1, 1)
    harness.work()
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    assert harness.violations() == []


def test_a_cancellation_that_was_missed_is_carried_out(harness: Harness) -> None:
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    harness.subscribe(1, status="canceled")
    assert compare(harness.ctx) == Compared(1, 1)
    harness.work()
    assert harness.tenant(subscription).phase is Phase.CLOSED


def test_what_is_in_step_is_left_alone_in_every_status(harness: Harness) -> None:
    statuses = ("active", "trialing", "past_due", "unpaid", "paused", "canceled", "incomplete")
    for number, status in enumerate((*statuses, "incomplete_expired")):
        harness.hear(harness.subscribe(number, status=status))
    harness.hear(harness.subscribe(50, plan="nobody-knows"))
    harness.hear(harness.subscribe(51, metadata={"custom_domain": "www.customer.dev"}))
    harness.hear(harness.subscribe(52, metadata={"custom_domain": "www.customer.dev"}))
    for _ in range(3):
        harness.work()
    asked: list[str] = []
    harness.world._crash = asked.append
    assert compare(harness.ctx) == Compared(11, 0)
    assert {call.partition(":")[0] for call in asked} == {"billing.subscriptions", "billing.whole"}


def test_one_customer_that_can_not_be_read_holds_up_no_other(harness: Harness) -> None:
    """Neither one whose invoices can't be listed nor one whose subscriptions can't be fetched again."""
    subscriptions = [harness.subscribe(number) for number in range(1, 5)]
    harness.subscribe(2, status="past_due")

    def fail(point: str) -> None:
        if point == "billing.whole:before":
            raise Retryable("Stripe: invoices: HTTP 500")
        if point == "billing.subscriptions_of:before" and "cus_00000003" in asked_for:
            asked_for.remove("cus_00000003")
            raise NeedsHuman("Stripe refuses our key", runbook="stripe-credentials")

    asked_for: list[str] = []
    fetch = harness.billing.subscriptions_of

    def fetched(customer_id: str) -> list[dict[str, Any]]:
        asked_for.append(customer_id)
        return fetch(customer_id)

    harness.billing.subscriptions_of = fetched  # type: ignore[method-assign]
    harness.world._crash = fail
    found = compare(harness.ctx)
    assert (found.subscriptions, set(found.failed)) == (4, {"cus_00000002", "cus_00000003"})
    harness.work()
    assert [harness.tenant(subscriptions[n]).phase for n in (0, 3)] == [Phase.ACTIVE] * 2
    harness.world._crash = lambda _point: None
    assert compare(harness.ctx).failed == {}
    harness.work()
    assert harness.tenant(subscriptions[1]).phase is Phase.SUSPENDED
    with harness.ctx.registry.connection() as conn:
        kept = report.read(conn, About.COMPARISON)
    assert kept is not None
    assert kept.content["failed"] == {"count": 0, "first": []}


def test_news_of_which_no_event_comes_is_told_of_once_a_day(harness: Harness) -> None:
    compare(harness.ctx)
    harness.subscribe(1)
    assert compare(harness.ctx).news == ["cus_00000001"]
    assert missing(harness) == []
    harness.subscribe(2)
    for _ in range(2):
        compare(harness.ctx)
    [told] = missing(harness)
    assert "cus_00000001" in told


def test_news_whose_event_comes_later_is_none(harness: Harness) -> None:
    compare(harness.ctx)
    subscription = harness.subscribe(1)
    compare(harness.ctx)
    harness.hear(subscription)
    compare(harness.ctx)
    assert missing(harness) == []


def test_of_customers_that_were_there_before_nobody_had_to_tell(harness: Harness) -> None:
    harness.subscribe(1)
    for _ in range(2):
        compare(harness.ctx)
    assert missing(harness) == []


def test_it_keeps_within_the_rate_that_stripe_takes() -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(per_second=20.0, burst=100, clock=lambda: now[0], sleep=sleep)
    for _ in range(50):
        pace.wait(2)
    assert slept == [], "a hundred at once"
    for _ in range(1000):
        pace.wait(2)
    assert sum(slept) == pytest.approx(100.0)
    now[0] += 3600.0
    pace.wait(100)
    assert sum(slept) == pytest.approx(100.0), "no more than a hundred are saved up"


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_thousand_are_compared_and_one_that_fails_is_named(harness: Harness) -> None:
    """By the clock of the pace alone: how long Stripe would be asked for."""
    for number in range(10_000):
        harness.subscribe(number, status="past_due" if number % 100 == 0 else "active")
    waited = [0.0]
    pace = Pace(clock=lambda: waited[0], sleep=lambda seconds: waited.__setitem__(0, waited[0] + seconds))

    def fetched(customer_id: str) -> list[dict[str, Any]]:
        """By its number, since the fake would look through all of them."""
        if customer_id == "cus_00004711":
            raise Retryable("Stripe: HTTP 500")
        return [harness.billing.subscription(customer_id.replace("cus", "sub"))]

    harness.billing.subscriptions_of = fetched  # type: ignore[method-assign]
    first = compare(harness.ctx, pace)
    assert (first.subscriptions, set(first.failed)) == (10_000, {"cus_00004711"})
    calls = 10_000 * 2 + 100 + 100
    assert waited[0] == pytest.approx((calls - 100) / 20.0, rel=0.01)
    waited[0] = 0.0
    again = compare(
        harness.ctx, Pace(clock=lambda: waited[0], sleep=lambda s: waited.__setitem__(0, waited[0] + s))
    )
    assert (again.subscriptions, again.out_of_step, set(again.failed)) == (10_000, 1, {"cus_00004711"})
    assert waited[0] < 10.0


def missing(harness: Harness) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT payload->'data' AS data FROM notification WHERE tenant_id IS NULL"
        ).fetchall()
    return [row["data"]["reason"] for row in rows if row["data"]["runbook"] == "missing-events"]
