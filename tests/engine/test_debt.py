"""Who owes is served for its grace and not again before it has paid, whatever the catalogue knows."""

from __future__ import annotations

import time
from typing import Any

from controlplane.domain.tenant import Phase
from controlplane.store import notification
from controlplane.workers.jobs.comparison import compare
from tests import builders
from tests.harness.engine import ZONE, Harness

DAY = 86400


def owed(days: float, **fields: Any) -> dict[str, Any]:
    return builders.invoice(status="open", created=int(time.time() - days * DAY), **fields)


def say(harness: Harness, status: str, **fields: Any) -> str:
    subscription = harness.subscribe(1, status=status, **fields)
    harness.hear(subscription)
    harness.work()
    return subscription


def told(harness: Harness) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        return [row.kind for row in notification.page(conn, before=None, limit=50)][::-1]


def unknown_item(harness: Harness, subscription: str) -> list[dict[str, Any]]:
    known = harness.billing.subscription(subscription)["items"]["data"]
    return [*known, builders.subscription_item(lookup_key=None, price_id="price_onboarding")]


def test_a_months_new_invoice_resumes_nobody_and_a_payment_does(harness: Harness) -> None:
    subscription = say(harness, "active")
    phases = []
    for day in (1, 20, 31, 61, 91):
        debts = [owed(day - opened) for opened in range(0, day + 1, 30)]
        say(harness, "past_due", open_invoices=debts)
        phases.append(harness.tenant(subscription).phase)
    assert phases == [Phase.ACTIVE, *[Phase.SUSPENDED] * 4]
    say(harness, "active")
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    assert told(harness) == ["ready", "suspended", "resumed"]
    assert harness.violations() == []


def test_a_sent_invoice_has_its_grace_after_the_day_it_was_due(harness: Harness) -> None:
    subscription = say(harness, "active")
    terms = {"collection_method": "send_invoice"}
    late = owed(44, due_date=int(time.time() - 14 * DAY + 600), **terms)
    say(harness, "past_due", open_invoices=[late])
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    say(harness, "past_due", open_invoices=[{**late, "due_date": int(time.time() - 14 * DAY - 600)}])
    assert harness.tenant(subscription).phase is Phase.SUSPENDED


def test_an_item_that_nobody_listed_keeps_no_debtor_served(harness: Harness) -> None:
    subscription = say(harness, "active")
    harness.subscribe(1, status="unpaid", items=unknown_item(harness, subscription)[1:])
    harness.hear(subscription)
    harness.work()
    assert harness.tenant(subscription).phase is Phase.SUSPENDED
    entry = harness.cache.read(f"customer-1.{ZONE}")
    assert entry is not None
    assert entry.payload["status"] == "suspended"
    assert compare(harness.ctx).out_of_step == 0
    say(harness, "active")
    assert harness.tenant(subscription).phase is Phase.ACTIVE


def test_an_item_beside_the_plan_stops_no_sign_up_and_is_told_of(harness: Harness) -> None:
    items = [
        builders.subscription_item(lookup_key="shared"),
        builders.subscription_item(lookup_key=None, price_id="price_onboarding"),
    ]
    subscription = say(harness, "active", items=items)
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    assert compare(harness.ctx).out_of_step == 0
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT detail->>'warning' AS w FROM audit WHERE action = 'tenant.warn'"
        ).fetchall()
    assert len(rows) == 1
    assert "price_onboarding" in rows[0]["w"]


def test_who_never_paid_and_names_no_plan_gets_nothing(harness: Harness) -> None:
    items = [builders.subscription_item(lookup_key=None, price_id="price_onboarding")]
    subscription = harness.subscribe(1, status="unpaid", items=items)
    harness.hear(subscription)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        assert conn.execute("SELECT count(*) AS n FROM tenant").fetchone() == {"n": 0}
        row = conn.execute("SELECT outcome, reason FROM contract").fetchone()
    assert row is not None
    assert row["outcome"] == "parked"
    assert "price_onboarding" in row["reason"]
