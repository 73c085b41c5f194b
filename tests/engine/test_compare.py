"""The comparison with Stripe finds what no webhook told, and touches nothing else."""

from __future__ import annotations

from controlplane.domain.tenant import Phase
from tests.engine.house import House
from workers.jobs.comparison import Compared, compare


def test_a_customer_whose_webhook_never_came_is_provisioned(house: House) -> None:
    subscription = house.subscribe(1)
    assert compare(house.ctx) == Compared(1, 1)
    house.work()
    assert house.tenant(subscription).phase is Phase.ACTIVE
    assert house.violations() == []


def test_a_cancellation_that_was_missed_is_carried_out(house: House) -> None:
    subscription = house.subscribe(1)
    house.hear(subscription)
    house.work()
    house.subscribe(1, status="canceled")
    assert compare(house.ctx) == Compared(1, 1)
    house.work()
    assert house.tenant(subscription).phase is Phase.CLOSED


def test_what_is_in_step_is_left_alone_in_every_status(house: House) -> None:
    statuses = ("active", "trialing", "past_due", "unpaid", "paused", "canceled", "incomplete")
    for number, status in enumerate((*statuses, "incomplete_expired")):
        house.hear(house.subscribe(number, status=status))
    house.hear(house.subscribe(50, plan="nobody-knows"))
    house.hear(house.subscribe(51, metadata={"custom_domain": "www.customer.dev"}))
    house.hear(house.subscribe(52, metadata={"custom_domain": "www.customer.dev"}))
    for _ in range(3):
        house.work()
    asked: list[str] = []
    house.world._crash = asked.append
    assert compare(house.ctx) == Compared(11, 0)
    assert [call for call in asked if not call.startswith("billing.subscriptions:")] == []
