"""What an event is about, and whose: Connect's and an organisation's name another account."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.domain.billing import (
    DISPUTES,
    EVENT_TYPES,
    SubscriptionRef,
    event_type,
    foreign_account,
    subscription_of_event,
)
from controlplane.domain.contract import Park
from tests.domain.test_billing import REFERENCE, subscription


def event(kind: str, target: Any) -> dict[str, Any]:
    return {"id": "evt_1", "object": "event", "type": kind, "data": {"object": target}}


SUBSCRIPTION_EVENTS = sorted(kind for kind in EVENT_TYPES if kind.startswith("customer.subscription."))
CHECKOUT_EVENTS = sorted(kind for kind in EVENT_TYPES if kind.startswith("checkout."))
INVOICE_EVENTS = sorted(kind for kind in EVENT_TYPES if kind.startswith("invoice."))


def test_the_events_that_are_acted_on() -> None:
    assert [len(SUBSCRIPTION_EVENTS), len(CHECKOUT_EVENTS), len(INVOICE_EVENTS), len(EVENT_TYPES)] == [
        6,
        3,
        2,
        16,
    ]


@pytest.mark.parametrize("kind", SUBSCRIPTION_EVENTS)
@pytest.mark.parametrize("customer", ["cus_1", {"id": "cus_1"}])
def test_a_subscriptions_own_event(kind: str, customer: Any) -> None:
    found = subscription_of_event(event(kind, subscription(customer=customer, status="past_due")))
    assert found == SubscriptionRef("sub_1", "cus_1")


@pytest.mark.parametrize("kind", CHECKOUT_EVENTS)
@pytest.mark.parametrize("bought", ["sub_1", {"id": "sub_1", "object": "subscription"}])
def test_a_checkout_names_its_subscription_and_itself(kind: str, bought: Any) -> None:
    session = {"id": "cs_test_1", "subscription": bought, "customer": "cus_1"}
    assert subscription_of_event(event(kind, session)) == SubscriptionRef("sub_1", "cus_1")


@pytest.mark.parametrize("kind", INVOICE_EVENTS)
@pytest.mark.parametrize(
    "shape",
    [
        {"subscription": "sub_1"},
        {"subscription": {"id": "sub_1"}},
        {"parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}}},
        {"parent": {"subscription_details": {"subscription": {"id": "sub_1"}}}, "subscription": None},
    ],
)
def test_an_invoice_names_its_subscription_in_the_old_and_the_new_place(
    kind: str, shape: dict[str, Any]
) -> None:
    found = subscription_of_event(event(kind, {"id": "in_1", "customer": "cus_1"} | shape))
    assert found == SubscriptionRef("sub_1", "cus_1", paid=kind == "invoice.paid")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("customer.deleted", {"id": "cus_1", "object": "customer"}),
        ("customer.updated", {"id": "cus_1", "object": "customer"}),
        ("entitlements.active_entitlement_summary.updated", {"customer": "cus_1"}),
    ],
)
def test_an_event_about_the_customer_as_a_whole(kind: str, target: Any) -> None:
    assert subscription_of_event(event(kind, target)) == SubscriptionRef(None, "cus_1")


@pytest.mark.parametrize(
    "concern",
    [
        event("plan.created", {"id": "plan_1"}),
        event("invoice.created", {"id": "in_1", "customer": "cus_1", "subscription": "sub_1"}),
        event("invoice.paid", {"id": "in_1", "customer": "cus_1", "parent": None}),
        event("invoice.paid", {"id": "in_1", "parent": {"type": "quote_details"}, "subscription": None}),
        event("checkout.session.completed", {"id": "cs_1", "mode": "payment", "subscription": None}),
        {},
        None,
        [],
        {"type": ["invoice.paid"]},
    ],
)
def test_what_is_of_no_concern(concern: Any) -> None:
    assert subscription_of_event(concern) is None


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        ("invoice.paid", None, "data.object: expected an object, got nothing"),
        (
            "invoice.paid",
            {"subscription": 7},
            "data.object.subscription: expected a Stripe id (sub_…), got 7",
        ),
        (
            "invoice.paid",
            {"parent": {"subscription_details": {"subscription": "x"}}},
            "data.object.subscription: expected a Stripe id (sub_…), got 'x'",
        ),
        ("customer.subscription.updated", {}, "data.object.id: expected a Stripe id (sub_…), got nothing"),
        ("customer.deleted", {"id": "a b"}, "data.object.id: expected a Stripe id (…), got 'a b'"),
        (
            "checkout.session.completed",
            {"subscription": 7},
            "data.object.subscription: expected a Stripe id (sub_…), got 7",
        ),
        (
            "entitlements.active_entitlement_summary.updated",
            {},
            "data.object.customer: expected a Stripe id (…), got nothing",
        ),
    ],
)
def test_an_event_that_does_not_say_what_it_is_about_parks(kind: str, target: Any, reason: str) -> None:
    assert subscription_of_event(event(kind, target)) == Park(f"{kind}: {reason}")


@pytest.mark.parametrize("kind", sorted(DISPUTES))
@pytest.mark.parametrize("charge", ["ch_1", {"id": "ch_1", "object": "charge", "customer": "cus_1"}])
def test_a_dispute_names_the_charge(kind: str, charge: Any) -> None:
    found = subscription_of_event(event(kind, {"id": "dp_1", "charge": charge, "payment_intent": "pi_1"}))
    assert found == SubscriptionRef(None, None, charge_id="ch_1")
    parked = subscription_of_event(event(kind, {"id": "dp_1", "charge": None}))
    assert isinstance(parked, Park)
    assert parked.reason.startswith(f"{kind}: data.object.charge: expected a Stripe id (")


@pytest.mark.parametrize("kind", sorted(DISPUTES))
def test_a_charge_of_a_debit_or_of_another_currency_is_one_too(kind: str) -> None:
    """Stripe calls those `py_…`."""
    found = subscription_of_event(event(kind, {"id": "pdp_1", "charge": "py_1"}))
    assert found == SubscriptionRef(None, None, charge_id="py_1")


def thin(kind: str, target: Any) -> dict[str, Any]:
    return {"id": "evt_1", "object": "v2.core.event", "type": kind, "related_object": target}


@pytest.mark.parametrize("status", ["trialing", "active", "past_due", "incomplete", None])
def test_a_subscription_that_is_live_says_that_it_was_paid_for(status: str | None) -> None:
    found = subscription_of_event(event("customer.subscription.updated", subscription(status=status)))
    assert isinstance(found, SubscriptionRef)
    assert found.paid is (status in {"trialing", "active"})


@pytest.mark.parametrize("status", ["paid", "no_payment_required", "unpaid", None])
def test_a_checkout_says_whether_it_was_paid(status: str | None) -> None:
    session = {"id": "cs_1", "subscription": "sub_1", "payment_status": status}
    found = subscription_of_event(event("checkout.session.completed", session))
    assert found == SubscriptionRef("sub_1", None, paid=status in {"paid", "no_payment_required"})


@pytest.mark.parametrize(
    ("whole", "kind"),
    [
        ({"type": "invoice.paid"}, "invoice.paid"),
        ({"type": "v1.invoice.paid"}, "v1.invoice.paid"),
        ({"object": "v2.core.event", "type": "v1.invoice.paid"}, "invoice.paid"),
        ({"object": "v2.core.event", "type": "v2.core.account.updated"}, "v2.core.account.updated"),
        ({"type": 7}, None),
        (7, None),
    ],
)
def test_a_thin_events_type_is_the_old_one_behind_its_version(whole: Any, kind: str | None) -> None:
    assert event_type(whole) == kind


@pytest.mark.parametrize("kind", SUBSCRIPTION_EVENTS)
def test_a_thin_event_names_its_subscription(kind: str) -> None:
    target = {"id": "sub_1", "type": "subscription", "url": "/v1/subscriptions/sub_1"}
    assert subscription_of_event(thin(f"v1.{kind}", target)) == SubscriptionRef("sub_1", None)


@pytest.mark.parametrize("kind", ["customer.updated", "customer.deleted"])
def test_a_thin_event_names_its_customer(kind: str) -> None:
    assert subscription_of_event(thin(f"v1.{kind}", {"id": "user_7"})) == SubscriptionRef(None, "user_7")


@pytest.mark.parametrize("kind", [*CHECKOUT_EVENTS, *INVOICE_EVENTS, "product.updated"])
def test_a_thin_event_that_does_not_say_whose_it_is_is_of_no_concern(kind: str) -> None:
    assert subscription_of_event(thin(f"v1.{kind}", {"id": "in_1"})) is None
    assert subscription_of_event(thin(f"v1.{kind}", None)) is None


@pytest.mark.parametrize("target", [None, {}, {"id": "in_1"}])
def test_a_thin_event_without_its_object_parks(target: Any) -> None:
    parked = subscription_of_event(thin("v1.customer.subscription.updated", target))
    assert isinstance(parked, Park)
    assert parked.reason.startswith(
        "customer.subscription.updated: related_object.id: expected a Stripe id (sub_…), got "
    )


OURS = "acct_ours"


@pytest.mark.parametrize(
    "event", [{}, {"account": None, "context": None}, {"account": OURS}, {"context": f"org_1/{OURS}"}, 7]
)
def test_what_names_none_or_ours_is_ours(event: Any) -> None:
    assert foreign_account(event, OURS) is None


@pytest.mark.parametrize("field", ["account", "context"])
@pytest.mark.parametrize("named", ["acct_other", f"{OURS}/acct_other", 7, ["acct_ours"]])
def test_what_names_another_says_which_field_and_what_was_expected(field: str, named: Any) -> None:
    reason = foreign_account({field: named}, OURS)
    assert reason is not None
    assert reason.startswith(f"{field}: expected none or {OURS}, got ")


@pytest.mark.parametrize("field", ["account", "context"])
def test_where_our_own_is_not_known_whoever_is_named_is_another(field: str) -> None:
    reason = foreign_account({field: OURS}, None)
    assert reason is not None
    assert "CONTROLPLANE_STRIPE_ACCOUNT may name" in reason
    assert foreign_account({}, None) is None


@pytest.mark.skipif(not REFERENCE.exists(), reason="Stripe's example objects are not beside the repository")
def test_stripes_own_events_are_understood() -> None:
    objects = json.loads(REFERENCE.read_text(encoding="utf-8"))
    example = objects["subscription"]
    assert subscription_of_event(objects["event"] | {"type": "customer.subscription.updated"}) is not None
    updated = event("customer.subscription.updated", example)
    assert subscription_of_event(updated) == SubscriptionRef(example["id"], example["customer"], paid=True)
