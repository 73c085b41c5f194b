"""The comparison with Stripe finds what no webhook reported, and touches nothing else."""

from __future__ import annotations

from controlplane.domain.tenant import Phase
from controlplane.workers.jobs.comparison import Compared, compare
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
    assert [call for call in asked if not call.startswith("billing.subscriptions:")] == []
