"""The Stripe stand-in's subscriptions through their life: every status is reached for a reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from localcloud.stripe import periods
from tests.provider.stripe_rig import (
    StripeRig,
    plain,
    run_stripe_here,
)

DAY = 86400


@pytest.fixture
def rig() -> Iterator[StripeRig]:
    """One for each test: they move its clock."""
    with run_stripe_here() as rig:
        yield rig


def create(rig: StripeRig, customer: str, **params: Any) -> dict[str, Any]:
    wanted: Any = {"customer": customer, "items": [{"price": rig.prices["shared"]}], **params}
    found: dict[str, Any] = plain(rig.client.v1.subscriptions.create(wanted))
    return found


def fetch(rig: StripeRig, key: str) -> dict[str, Any]:
    found: dict[str, Any] = plain(rig.client.v1.subscriptions.retrieve(key))
    return found


def update(rig: StripeRig, key: str, **params: Any) -> dict[str, Any]:
    wanted: Any = params
    found: dict[str, Any] = plain(rig.client.v1.subscriptions.update(key, wanted))
    return found


def test_a_card_that_pays_makes_it_active(rig: StripeRig) -> None:
    made = create(rig, rig.customer())
    assert made["status"] == "active"
    invoice = plain(rig.client.v1.invoices.retrieve(made["latest_invoice"]))
    assert (invoice["status"], invoice["amount_paid"]) == ("paid", 1900)
    assert rig.events(made["id"]) == ["created"]


def test_nothing_to_pay_with_is_refused(rig: StripeRig) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        create(rig, rig.customer(card=None))


def test_a_card_that_fails_leaves_it_incomplete_until_it_expires(rig: StripeRig) -> None:
    made = create(rig, rig.customer("pm_card_chargeCustomerFail"))
    assert made["status"] == "incomplete"
    rig.control.advance(22 * 3600)
    assert fetch(rig, made["id"])["status"] == "incomplete"
    rig.control.advance(3600)
    assert fetch(rig, made["id"])["status"] == "incomplete_expired"
    assert plain(rig.client.v1.invoices.retrieve(made["latest_invoice"]))["status"] == "void"
    assert rig.events(made["id"]) == ["created", "updated"]


def test_an_incomplete_one_is_completed_by_paying_its_invoice(rig: StripeRig) -> None:
    made = create(rig, rig.customer(card=None), payment_behavior="default_incomplete")
    assert made["status"] == "incomplete"
    with pytest.raises(stripe.CardError, match="declined"):
        rig.client.v1.invoices.pay(made["latest_invoice"])
    rig.client.v1.invoices.pay(made["latest_invoice"], {"payment_method": "pm_card_visa"})
    assert fetch(rig, made["id"])["status"] == "active"
    rig.control.advance(2 * DAY)
    assert fetch(rig, made["id"])["status"] == "active"


def test_a_trial_warns_then_turns_active(rig: StripeRig) -> None:
    made = create(rig, rig.customer(), trial_period_days=10)
    assert (made["status"], made["trial_end"] - made["trial_start"]) == ("trialing", 10 * DAY)
    assert made["items"]["data"][0]["current_period_end"] == made["trial_end"]
    rig.control.advance(8 * DAY)
    assert rig.events(made["id"]) == ["created", "trial_will_end"]
    rig.control.advance(2 * DAY)
    after = fetch(rig, made["id"])
    assert (after["status"], after["billing_cycle_anchor"]) == ("active", made["trial_end"])
    assert rig.events(made["id"]) == ["created", "trial_will_end", "updated"]


@pytest.mark.parametrize(
    ("behavior", "status", "events"),
    [
        ("pause", "paused", ["created", "trial_will_end", "updated", "paused"]),
        ("cancel", "canceled", ["created", "trial_will_end", "deleted"]),
        ("create_invoice", "past_due", ["created", "trial_will_end", "updated"]),
    ],
)
def test_a_trial_that_ends_without_a_card(
    rig: StripeRig, behavior: str, status: str, events: list[str]
) -> None:
    made = create(
        rig,
        rig.customer(card=None),
        trial_period_days=10,
        trial_settings={"end_behavior": {"missing_payment_method": behavior}},
    )
    rig.control.advance(10 * DAY)
    assert fetch(rig, made["id"])["status"] == status
    assert rig.events(made["id"]) == events


def test_a_paused_one_resumes_once_it_can_pay(rig: StripeRig) -> None:
    customer = rig.customer(card=None)
    settings = {"end_behavior": {"missing_payment_method": "pause"}}
    made = create(rig, customer, trial_period_days=1, trial_settings=settings)
    rig.control.advance(DAY)
    subscriptions = rig.client.v1.subscriptions
    assert subscriptions.resume(made["id"]).status == "paused"
    update(rig, made["id"], default_payment_method="pm_card_visa")
    assert subscriptions.resume(made["id"]).status == "active"
    assert rig.events(made["id"])[-1] == "resumed"
    with pytest.raises(stripe.InvalidRequestError, match="only resume subscriptions that are paused"):
        subscriptions.resume(made["id"])


def test_periods_renew_one_by_one(rig: StripeRig) -> None:
    made = create(rig, rig.customer())
    rig.control.advance(100 * DAY)
    now = fetch(rig, made["id"])["items"]["data"][0]
    assert now["current_period_start"] <= made["created"] + 100 * DAY < now["current_period_end"]
    invoices = plain(rig.client.v1.invoices.list({"subscription": made["id"]}))["data"]
    assert [invoice["billing_reason"] for invoice in invoices] == [
        "subscription_cycle",
        "subscription_cycle",
        "subscription_cycle",
        "subscription_create",
    ]
    assert len({invoice["created"] for invoice in invoices}) == 4


@pytest.mark.parametrize("outcome", ["canceled", "unpaid", "past_due"])
def test_dunning_ends_as_the_account_says(outcome: str) -> None:
    with run_stripe_here(dunning_outcome=outcome) as rig:
        customer = rig.customer()
        made = create(rig, customer)
        bad: Any = {"invoice_settings": {"default_payment_method": "pm_card_chargeCustomerFail"}}
        rig.client.v1.customers.update(customer, bad)
        rig.control.advance(31 * DAY)
        assert fetch(rig, made["id"])["status"] == "past_due"
        assert plain(rig.client.v1.customers.retrieve(customer))["delinquent"] is True
        rig.control.advance(8 * DAY)
        after = fetch(rig, made["id"])
        assert after["status"] == outcome
        failed = rig.client.v1.events.list({"type": "invoice.payment_failed", "limit": 100}).data
        assert len(failed) == 4
        if outcome == "canceled":
            assert after["cancellation_details"]["reason"] == "payment_failed"


def test_a_card_that_pays_again_ends_the_dunning(rig: StripeRig) -> None:
    customer = rig.customer()
    made = create(rig, customer)
    subscriptions = rig.client.v1.subscriptions
    subscriptions.update(made["id"], {"default_payment_method": "pm_card_chargeCustomerFail"})
    rig.control.advance(31 * DAY)
    subscriptions.update(made["id"], {"default_payment_method": "pm_card_visa"})
    rig.control.advance(3 * DAY)
    assert fetch(rig, made["id"])["status"] == "active"
    assert plain(rig.client.v1.customers.retrieve(customer))["delinquent"] is False


def test_a_plan_change_needs_the_items_id(rig: StripeRig) -> None:
    """The classic mistake: without the id the new price is added, and the old one stays."""
    made = create(rig, rig.customer())
    (item,) = made["items"]["data"]
    both = update(rig, made["id"], items=[{"price": rig.prices["dedicated"]}])["items"]["data"]
    assert [row["price"]["lookup_key"] for row in both] == ["shared", "dedicated"]
    (one,) = update(rig, made["id"], items=[{"id": item["id"], "deleted": True}])["items"]["data"]
    assert one["price"]["lookup_key"] == "dedicated"
    moved = update(rig, made["id"], items=[{"id": one["id"], "price": rig.prices["shared"], "quantity": 3}])
    assert [(row["price"]["lookup_key"], row["quantity"]) for row in moved["items"]["data"]] == [
        ("shared", 3)
    ]
    with pytest.raises(stripe.InvalidRequestError, match="Missing required param: items"):
        update(rig, made["id"], items=[{"id": one["id"], "deleted": True}])
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription item"):
        update(rig, made["id"], items=[{"id": "si_x", "quantity": 1}])


def test_an_update_says_what_was_before(rig: StripeRig) -> None:
    made = create(rig, rig.customer(), metadata={"slug": "acme", "kept": "1"})
    update(rig, made["id"], metadata={"slug": "", "size": "big"})
    event = rig.client.v1.events.list({"type": "customer.subscription.updated"}).data[0]
    data = plain(rig.client.v1.events.retrieve(event.id))["data"]
    assert data["object"]["metadata"] == {"kept": "1", "size": "big"}
    assert data["previous_attributes"] == {"metadata": {"slug": "acme", "size": None}}


def test_an_update_that_changes_nothing_says_nothing(rig: StripeRig) -> None:
    made = create(rig, rig.customer(), metadata={"slug": "acme"})
    update(rig, made["id"], metadata={"slug": "acme"})
    assert rig.events(made["id"]) == ["created"]


def test_cancellation_at_the_periods_end_can_be_taken_back(rig: StripeRig) -> None:
    made = create(rig, rig.customer())
    leaving = update(rig, made["id"], cancel_at_period_end=True)
    assert leaving["cancel_at"] == leaving["items"]["data"][0]["current_period_end"]
    staying = update(rig, made["id"], cancel_at_period_end=False)
    assert (staying["cancel_at"], staying["canceled_at"], staying["status"]) == (None, None, "active")
    update(rig, made["id"], cancel_at_period_end=True)
    rig.control.advance(31 * DAY)
    gone = fetch(rig, made["id"])
    assert (gone["status"], gone["ended_at"]) == ("canceled", leaving["cancel_at"])


def test_a_canceled_one_stays_readable_and_closed(rig: StripeRig) -> None:
    made = create(rig, rig.customer())
    subscriptions = rig.client.v1.subscriptions
    assert subscriptions.cancel(made["id"]).status == "canceled"
    assert rig.events(made["id"]) == ["created", "deleted"]
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        subscriptions.cancel(made["id"])
    with pytest.raises(stripe.InvalidRequestError, match="can only update its cancellation_details"):
        update(rig, made["id"], cancel_at_period_end=True)
    assert update(rig, made["id"], metadata={"note": "left"})["metadata"] == {"note": "left"}
    listed = [item.id for item in subscriptions.list().data]
    assert made["id"] not in listed
    assert made["id"] in [item.id for item in subscriptions.list({"status": "all"}).data]


def test_pausing_collection_is_no_pause(rig: StripeRig) -> None:
    """`pause_collection` leaves the status alone and sends no `paused`."""
    made = create(rig, rig.customer())
    paused = update(rig, made["id"], pause_collection={"behavior": "void"})
    assert (paused["status"], paused["pause_collection"]) == (
        "active",
        {"behavior": "void", "resumes_at": None},
    )
    rig.control.advance(31 * DAY)
    assert len(plain(rig.client.v1.invoices.list({"subscription": made["id"]}))["data"]) == 1
    assert update(rig, made["id"], pause_collection="")["pause_collection"] is None
    # The renewal and this; what happened 31 days ago has left the list, as at Stripe after 30.
    assert rig.events(made["id"]) == ["updated", "updated"]


def test_a_deleted_customer_takes_its_subscriptions_along(rig: StripeRig) -> None:
    customer = rig.customer()
    made = create(rig, customer)
    rig.client.v1.customers.delete(customer)
    assert fetch(rig, made["id"])["status"] == "canceled"
    assert rig.client.v1.events.list({"type": "customer.deleted"}).data[0].data.object["id"] == customer


@pytest.mark.parametrize(
    "status",
    ["trialing", "active", "past_due", "unpaid", "paused", "incomplete", "incomplete_expired", "canceled"],
)
def test_any_status_can_be_forced(rig: StripeRig, status: str) -> None:
    made = create(rig, rig.customer(), trial_period_days=20)
    rig.control.set_status(made["id"], "past_due" if status == "trialing" else "trialing")
    rig.control.set_status(made["id"], status)
    assert fetch(rig, made["id"])["status"] == status
    assert fetch(rig, made["id"])["items"]["data"][0]["price"]["lookup_key"] == "shared"


@pytest.mark.parametrize("ended", ["canceled", "incomplete_expired"])
def test_no_status_can_be_forced_on_one_that_has_ended(rig: StripeRig, ended: str) -> None:
    made = create(rig, rig.customer())
    rig.control.set_status(made["id"], ended)
    told = rig.events(made["id"])
    for status in ("active", "trialing", "past_due", "unpaid", "paused", "incomplete"):
        with pytest.raises(ValueError, match=f"is {ended}, which is for ever"):
            rig.control.set_status(made["id"], status)
    assert fetch(rig, made["id"])["status"] == ended
    assert rig.events(made["id"]) == told


def test_a_payment_that_fails_after_the_end_revives_nobody(rig: StripeRig) -> None:
    done = rig.control.complete_checkout(session_of(rig)["id"], delayed=True)
    rig.client.v1.subscriptions.cancel(done["subscription"])
    rig.control.settle_checkout(done["id"], succeeded=False)
    assert fetch(rig, done["subscription"])["status"] == "canceled"


def test_an_unknown_status_is_refused(rig: StripeRig) -> None:
    with pytest.raises(ValueError, match="status: expected one of"):
        rig.control.set_status(create(rig, rig.customer())["id"], "open")


def session_of(rig: StripeRig, **params: Any) -> dict[str, Any]:
    wanted: Any = {
        "mode": "subscription",
        "success_url": "https://acme.dev/",
        "line_items": [{"price": rig.prices["shared"], "quantity": 2}],
        **params,
    }
    found: dict[str, Any] = plain(rig.client.v1.checkout.sessions.create(wanted))
    return found


def test_a_checkout_makes_customer_and_subscription(rig: StripeRig) -> None:
    field = {"key": "slug", "type": "text", "label": {"type": "custom", "custom": "Your name"}}
    open_ = session_of(rig, subscription_data={"metadata": {"slug": "acme"}}, custom_fields=[field])
    assert (open_["status"], open_["payment_status"], open_["amount_total"]) == ("open", "unpaid", 3800)
    done = rig.control.complete_checkout(open_["id"], email="a@acme.dev", custom_fields={"slug": "acme"})
    assert (done["status"], done["payment_status"]) == ("complete", "paid")
    assert done["custom_fields"][0]["text"]["value"] == "acme"
    made = fetch(rig, done["subscription"])
    assert (made["customer"], made["metadata"]) == (done["customer"], {"slug": "acme"})
    assert made["items"]["data"][0]["quantity"] == 2
    types = [event.type for event in rig.client.v1.events.list({"limit": 100}).data]
    assert types[0] == "checkout.session.completed"
    assert "customer.subscription.created" in types
    with pytest.raises(ValueError, match="complete, not open"):
        rig.control.complete_checkout(open_["id"])


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_delayed_payment_completes_unpaid(rig: StripeRig, succeeded: bool) -> None:
    key = session_of(rig)["id"]
    done = rig.control.complete_checkout(key, delayed=True)
    assert (done["status"], done["payment_status"]) == ("complete", "unpaid")
    after = rig.control.settle_checkout(key, succeeded=succeeded)
    assert after["payment_status"] == ("paid" if succeeded else "unpaid")
    assert fetch(rig, done["subscription"])["status"] == ("active" if succeeded else "past_due")
    outcome = f"checkout.session.async_payment_{'succeeded' if succeeded else 'failed'}"
    assert len(rig.client.v1.events.list({"type": outcome}).data) == 1


def test_a_checkout_nobody_completes_expires(rig: StripeRig) -> None:
    key, early = session_of(rig)["id"], session_of(rig)["id"]
    assert rig.client.v1.checkout.sessions.expire(early).status == "expired"
    rig.control.advance(DAY + 1)
    assert rig.client.v1.checkout.sessions.retrieve(key).status == "expired"
    assert len(rig.client.v1.events.list({"type": "checkout.session.expired"}).data) == 2


def test_a_declined_card_leaves_the_checkout_open(rig: StripeRig) -> None:
    key = session_of(rig)["id"]
    with pytest.raises(ValueError, match="declined"):
        rig.control.complete_checkout(key, card="pm_card_chargeCustomerFail")
    assert rig.client.v1.checkout.sessions.retrieve(key).status == "open"
    assert rig.client.v1.customers.list().data == []


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
