"""The Stripe fake server's subscriptions through their life: every status is reached for a reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from controlplane.localcloud.stripe import periods
from tests.harness.stripe import (
    StripeFixture,
    plain,
    run_stripe_here,
)

DAY = 86400


@pytest.fixture
def fixture() -> Iterator[StripeFixture]:
    """One for each test: they move its clock."""
    with run_stripe_here() as fixture:
        yield fixture


def create(fixture: StripeFixture, customer: str, **params: Any) -> dict[str, Any]:
    wanted: Any = {"customer": customer, "items": [{"price": fixture.prices["shared"]}], **params}
    found: dict[str, Any] = plain(fixture.client.v1.subscriptions.create(wanted))
    return found


def fetch(fixture: StripeFixture, key: str) -> dict[str, Any]:
    found: dict[str, Any] = plain(fixture.client.v1.subscriptions.retrieve(key))
    return found


def update(fixture: StripeFixture, key: str, **params: Any) -> dict[str, Any]:
    wanted: Any = params
    found: dict[str, Any] = plain(fixture.client.v1.subscriptions.update(key, wanted))
    return found


def test_a_card_that_pays_makes_it_active(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer())
    assert made["status"] == "active"
    invoice = plain(fixture.client.v1.invoices.retrieve(made["latest_invoice"]))
    assert (invoice["status"], invoice["amount_paid"]) == ("paid", 1900)
    assert fixture.events(made["id"]) == ["created"]


def test_nothing_to_pay_with_is_refused(fixture: StripeFixture) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        create(fixture, fixture.customer(card=None))


def test_a_card_that_fails_leaves_it_incomplete_until_it_expires(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer("pm_card_chargeCustomerFail"))
    assert made["status"] == "incomplete"
    fixture.control.advance(22 * 3600)
    assert fetch(fixture, made["id"])["status"] == "incomplete"
    fixture.control.advance(3600)
    assert fetch(fixture, made["id"])["status"] == "incomplete_expired"
    assert plain(fixture.client.v1.invoices.retrieve(made["latest_invoice"]))["status"] == "void"
    assert fixture.events(made["id"]) == ["created", "updated"]


def test_an_incomplete_one_is_completed_by_paying_its_invoice(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer(card=None), payment_behavior="default_incomplete")
    assert made["status"] == "incomplete"
    with pytest.raises(stripe.CardError, match="declined"):
        fixture.client.v1.invoices.pay(made["latest_invoice"])
    fixture.client.v1.invoices.pay(made["latest_invoice"], {"payment_method": "pm_card_visa"})
    assert fetch(fixture, made["id"])["status"] == "active"
    fixture.control.advance(2 * DAY)
    assert fetch(fixture, made["id"])["status"] == "active"


def test_a_trial_warns_then_turns_active(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer(), trial_period_days=10)
    assert (made["status"], made["trial_end"] - made["trial_start"]) == ("trialing", 10 * DAY)
    assert made["items"]["data"][0]["current_period_end"] == made["trial_end"]
    fixture.control.advance(8 * DAY)
    assert fixture.events(made["id"]) == ["created", "trial_will_end"]
    fixture.control.advance(2 * DAY)
    after = fetch(fixture, made["id"])
    assert (after["status"], after["billing_cycle_anchor"]) == ("active", made["trial_end"])
    assert fixture.events(made["id"]) == ["created", "trial_will_end", "updated"]


@pytest.mark.parametrize(
    ("behavior", "status", "events"),
    [
        ("pause", "paused", ["created", "trial_will_end", "updated", "paused"]),
        ("cancel", "canceled", ["created", "trial_will_end", "deleted"]),
        ("create_invoice", "past_due", ["created", "trial_will_end", "updated"]),
    ],
)
def test_a_trial_that_ends_without_a_card(
    fixture: StripeFixture, behavior: str, status: str, events: list[str]
) -> None:
    made = create(
        fixture,
        fixture.customer(card=None),
        trial_period_days=10,
        trial_settings={"end_behavior": {"missing_payment_method": behavior}},
    )
    fixture.control.advance(10 * DAY)
    assert fetch(fixture, made["id"])["status"] == status
    assert fixture.events(made["id"]) == events


def test_a_paused_one_resumes_once_it_can_pay(fixture: StripeFixture) -> None:
    customer = fixture.customer(card=None)
    settings = {"end_behavior": {"missing_payment_method": "pause"}}
    made = create(fixture, customer, trial_period_days=1, trial_settings=settings)
    fixture.control.advance(DAY)
    subscriptions = fixture.client.v1.subscriptions
    assert subscriptions.resume(made["id"]).status == "paused"
    update(fixture, made["id"], default_payment_method="pm_card_visa")
    assert subscriptions.resume(made["id"]).status == "active"
    assert fixture.events(made["id"])[-1] == "resumed"
    with pytest.raises(stripe.InvalidRequestError, match="only resume subscriptions that are paused"):
        subscriptions.resume(made["id"])


def test_periods_renew_one_by_one(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer())
    fixture.control.advance(100 * DAY)
    now = fetch(fixture, made["id"])["items"]["data"][0]
    assert now["current_period_start"] <= made["created"] + 100 * DAY < now["current_period_end"]
    invoices = plain(fixture.client.v1.invoices.list({"subscription": made["id"]}))["data"]
    assert [invoice["billing_reason"] for invoice in invoices] == [
        "subscription_cycle",
        "subscription_cycle",
        "subscription_cycle",
        "subscription_create",
    ]
    assert len({invoice["created"] for invoice in invoices}) == 4


@pytest.mark.parametrize("outcome", ["canceled", "unpaid", "past_due"])
def test_dunning_ends_as_the_account_says(outcome: str) -> None:
    with run_stripe_here(dunning_outcome=outcome) as fixture:
        customer = fixture.customer()
        made = create(fixture, customer)
        bad: Any = {"invoice_settings": {"default_payment_method": "pm_card_chargeCustomerFail"}}
        fixture.client.v1.customers.update(customer, bad)
        fixture.control.advance(31 * DAY)
        assert fetch(fixture, made["id"])["status"] == "past_due"
        assert plain(fixture.client.v1.customers.retrieve(customer))["delinquent"] is True
        fixture.control.advance(8 * DAY)
        after = fetch(fixture, made["id"])
        assert after["status"] == outcome
        failed = fixture.client.v1.events.list({"type": "invoice.payment_failed", "limit": 100}).data
        assert len(failed) == 4
        if outcome == "canceled":
            assert after["cancellation_details"]["reason"] == "payment_failed"


def test_a_card_that_pays_again_ends_the_dunning(fixture: StripeFixture) -> None:
    customer = fixture.customer()
    made = create(fixture, customer)
    subscriptions = fixture.client.v1.subscriptions
    subscriptions.update(made["id"], {"default_payment_method": "pm_card_chargeCustomerFail"})
    fixture.control.advance(31 * DAY)
    subscriptions.update(made["id"], {"default_payment_method": "pm_card_visa"})
    fixture.control.advance(3 * DAY)
    assert fetch(fixture, made["id"])["status"] == "active"
    assert plain(fixture.client.v1.customers.retrieve(customer))["delinquent"] is False


def test_a_plan_change_needs_the_items_id(fixture: StripeFixture) -> None:
    """The classic mistake: without the id the new price is added, and the old one stays."""
    made = create(fixture, fixture.customer())
    (item,) = made["items"]["data"]
    both = update(fixture, made["id"], items=[{"price": fixture.prices["dedicated"]}])["items"]["data"]
    assert [row["price"]["lookup_key"] for row in both] == ["shared", "dedicated"]
    (one,) = update(fixture, made["id"], items=[{"id": item["id"], "deleted": True}])["items"]["data"]
    assert one["price"]["lookup_key"] == "dedicated"
    moved = update(
        fixture, made["id"], items=[{"id": one["id"], "price": fixture.prices["shared"], "quantity": 3}]
    )
    assert [(row["price"]["lookup_key"], row["quantity"]) for row in moved["items"]["data"]] == [
        ("shared", 3)
    ]
    with pytest.raises(stripe.InvalidRequestError, match="Missing required param: items"):
        update(fixture, made["id"], items=[{"id": one["id"], "deleted": True}])
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription item"):
        update(fixture, made["id"], items=[{"id": "si_x", "quantity": 1}])


def test_an_update_says_what_was_before(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer(), metadata={"slug": "acme", "kept": "1"})
    update(fixture, made["id"], metadata={"slug": "", "size": "big"})
    event = fixture.client.v1.events.list({"type": "customer.subscription.updated"}).data[0]
    data = plain(fixture.client.v1.events.retrieve(event.id))["data"]
    assert data["object"]["metadata"] == {"kept": "1", "size": "big"}
    assert data["previous_attributes"] == {"metadata": {"slug": "acme", "size": None}}


def test_an_update_that_changes_nothing_says_nothing(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer(), metadata={"slug": "acme"})
    update(fixture, made["id"], metadata={"slug": "acme"})
    assert fixture.events(made["id"]) == ["created"]


def test_cancellation_at_the_periods_end_can_be_taken_back(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer())
    leaving = update(fixture, made["id"], cancel_at_period_end=True)
    assert leaving["cancel_at"] == leaving["items"]["data"][0]["current_period_end"]
    staying = update(fixture, made["id"], cancel_at_period_end=False)
    assert (staying["cancel_at"], staying["canceled_at"], staying["status"]) == (None, None, "active")
    update(fixture, made["id"], cancel_at_period_end=True)
    fixture.control.advance(31 * DAY)
    gone = fetch(fixture, made["id"])
    assert (gone["status"], gone["ended_at"]) == ("canceled", leaving["cancel_at"])


def test_a_canceled_one_stays_readable_and_closed(fixture: StripeFixture) -> None:
    made = create(fixture, fixture.customer())
    subscriptions = fixture.client.v1.subscriptions
    assert subscriptions.cancel(made["id"]).status == "canceled"
    assert fixture.events(made["id"]) == ["created", "deleted"]
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        subscriptions.cancel(made["id"])
    with pytest.raises(stripe.InvalidRequestError, match="can only update its cancellation_details"):
        update(fixture, made["id"], cancel_at_period_end=True)
    assert update(fixture, made["id"], metadata={"note": "left"})["metadata"] == {"note": "left"}
    listed = [item.id for item in subscriptions.list().data]
    assert made["id"] not in listed
    assert made["id"] in [item.id for item in subscriptions.list({"status": "all"}).data]


def test_pausing_collection_is_no_pause(fixture: StripeFixture) -> None:
    """`pause_collection` leaves the status alone and sends no `paused`."""
    made = create(fixture, fixture.customer())
    paused = update(fixture, made["id"], pause_collection={"behavior": "void"})
    assert (paused["status"], paused["pause_collection"]) == (
        "active",
        {"behavior": "void", "resumes_at": None},
    )
    fixture.control.advance(31 * DAY)
    assert len(plain(fixture.client.v1.invoices.list({"subscription": made["id"]}))["data"]) == 1
    assert update(fixture, made["id"], pause_collection="")["pause_collection"] is None
    # The renewal and this; what happened 31 days ago has left the list, as at Stripe after 30.
    assert fixture.events(made["id"]) == ["updated", "updated"]


def test_a_deleted_customer_takes_its_subscriptions_along(fixture: StripeFixture) -> None:
    customer = fixture.customer()
    made = create(fixture, customer)
    fixture.client.v1.customers.delete(customer)
    assert fetch(fixture, made["id"])["status"] == "canceled"
    assert fixture.client.v1.events.list({"type": "customer.deleted"}).data[0].data.object["id"] == customer


@pytest.mark.parametrize(
    "status",
    ["trialing", "active", "past_due", "unpaid", "paused", "incomplete", "incomplete_expired", "canceled"],
)
def test_any_status_can_be_forced(fixture: StripeFixture, status: str) -> None:
    made = create(fixture, fixture.customer(), trial_period_days=20)
    fixture.control.set_status(made["id"], "past_due" if status == "trialing" else "trialing")
    fixture.control.set_status(made["id"], status)
    assert fetch(fixture, made["id"])["status"] == status
    assert fetch(fixture, made["id"])["items"]["data"][0]["price"]["lookup_key"] == "shared"


@pytest.mark.parametrize("ended", ["canceled", "incomplete_expired"])
def test_no_status_can_be_forced_on_one_that_has_ended(fixture: StripeFixture, ended: str) -> None:
    made = create(fixture, fixture.customer())
    fixture.control.set_status(made["id"], ended)
    reported = fixture.events(made["id"])
    for status in ("active", "trialing", "past_due", "unpaid", "paused", "incomplete"):
        with pytest.raises(ValueError, match=f"is {ended}, which is for ever"):
            fixture.control.set_status(made["id"], status)
    assert fetch(fixture, made["id"])["status"] == ended
    assert fixture.events(made["id"]) == reported


def test_a_payment_that_fails_after_the_end_revives_nobody(fixture: StripeFixture) -> None:
    done = fixture.control.complete_checkout(session_of(fixture)["id"], delayed=True)
    fixture.client.v1.subscriptions.cancel(done["subscription"])
    fixture.control.settle_checkout(done["id"], succeeded=False)
    assert fetch(fixture, done["subscription"])["status"] == "canceled"


def test_an_unknown_status_is_refused(fixture: StripeFixture) -> None:
    with pytest.raises(ValueError, match="status: expected one of"):
        fixture.control.set_status(create(fixture, fixture.customer())["id"], "open")


def session_of(fixture: StripeFixture, **params: Any) -> dict[str, Any]:
    wanted: Any = {
        "mode": "subscription",
        "success_url": "https://acme.dev/",
        "line_items": [{"price": fixture.prices["shared"], "quantity": 2}],
        **params,
    }
    found: dict[str, Any] = plain(fixture.client.v1.checkout.sessions.create(wanted))
    return found


def test_a_checkout_makes_customer_and_subscription(fixture: StripeFixture) -> None:
    field = {"key": "slug", "type": "text", "label": {"type": "custom", "custom": "Your name"}}
    open_ = session_of(fixture, subscription_data={"metadata": {"slug": "acme"}}, custom_fields=[field])
    assert (open_["status"], open_["payment_status"], open_["amount_total"]) == ("open", "unpaid", 3800)
    done = fixture.control.complete_checkout(open_["id"], email="a@acme.dev", custom_fields={"slug": "acme"})
    assert (done["status"], done["payment_status"]) == ("complete", "paid")
    assert done["custom_fields"][0]["text"]["value"] == "acme"
    made = fetch(fixture, done["subscription"])
    assert (made["customer"], made["metadata"]) == (done["customer"], {"slug": "acme"})
    assert made["items"]["data"][0]["quantity"] == 2
    types = [event.type for event in fixture.client.v1.events.list({"limit": 100}).data]
    assert types[0] == "checkout.session.completed"
    assert "customer.subscription.created" in types
    with pytest.raises(ValueError, match="complete, not open"):
        fixture.control.complete_checkout(open_["id"])


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_delayed_payment_completes_unpaid(fixture: StripeFixture, succeeded: bool) -> None:
    key = session_of(fixture)["id"]
    done = fixture.control.complete_checkout(key, delayed=True)
    assert (done["status"], done["payment_status"]) == ("complete", "unpaid")
    after = fixture.control.settle_checkout(key, succeeded=succeeded)
    assert after["payment_status"] == ("paid" if succeeded else "unpaid")
    assert fetch(fixture, done["subscription"])["status"] == ("active" if succeeded else "past_due")
    outcome = f"checkout.session.async_payment_{'succeeded' if succeeded else 'failed'}"
    assert len(fixture.client.v1.events.list({"type": outcome}).data) == 1


def test_a_checkout_nobody_completes_expires(fixture: StripeFixture) -> None:
    key, early = session_of(fixture)["id"], session_of(fixture)["id"]
    assert fixture.client.v1.checkout.sessions.expire(early).status == "expired"
    fixture.control.advance(DAY + 1)
    assert fixture.client.v1.checkout.sessions.retrieve(key).status == "expired"
    assert len(fixture.client.v1.events.list({"type": "checkout.session.expired"}).data) == 2


def test_a_declined_card_leaves_the_checkout_open(fixture: StripeFixture) -> None:
    key = session_of(fixture)["id"]
    with pytest.raises(ValueError, match="declined"):
        fixture.control.complete_checkout(key, card="pm_card_chargeCustomerFail")
    assert fixture.client.v1.checkout.sessions.retrieve(key).status == "open"
    assert fixture.client.v1.customers.list().data == []


@pytest.mark.parametrize(
    ("anchor", "start", "interval", "end"),
    [
        ("2026-01-31", "2026-01-31", ("month", 1), "2026-02-28"),
        ("2026-01-31", "2026-02-28", ("month", 1), "2026-03-31"),
        ("2024-02-29", "2024-02-29", ("year", 1), "2025-02-28"),
        ("2026-11-15", "2026-11-15", ("month", 3), "2027-02-15"),
        ("2026-01-01", "2026-01-08", ("week", 1), "2026-01-15"),
        ("2026-01-01", "2026-01-01", ("day", 10), "2026-01-11"),
    ],
)
def test_periods_are_counted_from_the_anchor(
    anchor: str, start: str, interval: tuple[str, int], end: str
) -> None:
    def moment(day: str) -> int:
        return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())

    recurring = {"interval": interval[0], "interval_count": interval[1]}
    assert periods.end(moment(anchor), moment(start), recurring) == moment(end)
