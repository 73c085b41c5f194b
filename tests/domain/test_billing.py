"""What a tenant should have, by its subscription."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.billing import (
    Apply,
    Decision,
    Park,
    Turn,
    Wait,
    spec_from_subscription,
)
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.tenant import Lifecycle, TenantSpec

ZONE = "tenants.platform.com"
CAPACITY = """
    min_acu = 0.5
    max_acu = 4
    backup_retention_days = 7
    pool_size = 5
    connection_limit = 20
    retention_days = 30
"""
CATALOGUE = parse_catalogue(
    f"""
    version = 1
    [plans.team]
    isolation = "dedicated"
    price_ids = ["price_team", "price_team_yearly"]
    lookup_keys = ["team"]
    custom_domains = 2
    {CAPACITY}
    [plans.starter]
    isolation = "shared"
    slots = 10
    lookup_keys = ["starter"]
    {CAPACITY}
    [addons.support]
    price_ids = ["price_support"]
    """,
    source="plans.toml",
)
NOW = datetime(2026, 11, 24, tzinfo=UTC)
END = 1_900_000_000
END_AT = datetime.fromtimestamp(END, UTC)


def item(price: Any = "price_team", quantity: Any = 3, **more: Any) -> dict[str, Any]:
    fields = {"price": {"id": price, "lookup_key": None}, "quantity": quantity, "current_period_end": END}
    return fields | more


def subscription(*items: Any, **changes: Any) -> dict[str, Any]:
    whole = {
        "id": "sub_1",
        "object": "subscription",
        "customer": "cus_1",
        "livemode": False,
        "status": "active",
        "metadata": {},
        "items": {"object": "list", "data": list(items) or [item()], "has_more": False},
    }
    return whole | changes


def decide(*items: Any, **changes: Any) -> Decision:
    return spec_from_subscription(subscription(*items, **changes), CATALOGUE, platform_zone=ZONE, now=NOW)


def applied(*items: Any, **changes: Any) -> Apply:
    decision = decide(*items, **changes)
    assert isinstance(decision, Apply), decision
    return decision


# ------------------------------------------------------------------------------ the table of statuses


def unpaid(days: float, *, due: float | None = None) -> dict[str, Any]:
    """An invoice made so many days ago; `due`: it was sent, to be paid until so many days ago."""
    now = NOW.timestamp()
    if due is None:
        return {
            "created": int(now - days * 86400),
            "collection_method": "charge_automatically",
            "due_date": None,
        }
    terms = {"collection_method": "send_invoice", "due_date": int(now - due * 86400)}
    return {"created": int(now - days * 86400), **terms}


START = int(NOW.timestamp()) - 20 * 86400
"""Of the period that is unpaid; the catalogue's grace is 14 days."""


@pytest.mark.parametrize(
    ("invoices", "days", "lifecycle"),
    [
        ([], 20, Lifecycle.SUSPENDED),
        ([unpaid(13)], 13, Lifecycle.ACTIVE),
        ([unpaid(14)], 14, Lifecycle.SUSPENDED),
        ([unpaid(1), unpaid(14), unpaid(3)], 14, Lifecycle.SUSPENDED),
        ([unpaid(40, due=10)], 10, Lifecycle.ACTIVE),
        ([unpaid(40, due=10), unpaid(13)], 13, Lifecycle.ACTIVE),
        ([unpaid(80, due=50), unpaid(20, due=-10)], 50, Lifecycle.SUSPENDED),
    ],
)
def test_a_payment_past_due_has_a_grace_that_counts_from_the_oldest_debt(
    invoices: list[dict[str, Any]], days: int, lifecycle: Lifecycle
) -> None:
    """From when it was due, where it was sent to be paid until then."""
    late = item(current_period_start=START)
    spec = applied(late, status="past_due", open_invoices=invoices).spec
    assert spec.grace_ends_at == NOW - timedelta(days=days) + timedelta(days=14)
    assert spec.lifecycle is lifecycle
    assert applied(late, status="active", open_invoices=invoices).spec.grace_ends_at is None


def test_a_newer_invoice_paid_or_not_changes_nothing_about_an_older_debt() -> None:
    """Half a year without a payment, an invoice a month: served for the first grace, and never again."""
    served = []
    for day in range(180):
        debts = [unpaid(day - opened) for opened in range(0, day + 1, 30)]
        decision = applied(status="past_due", open_invoices=debts, latest_invoice={"status": "paid"})
        served.append(decision.spec.lifecycle is Lifecycle.ACTIVE)
    assert served == [True] * 14 + [False] * 166


def test_nobody_who_has_never_paid_has_a_grace_but_by_the_terms_of_a_sent_invoice() -> None:
    first = {"billing_reason": "subscription_create"}
    charged = applied(status="past_due", open_invoices=[unpaid(0) | first]).spec
    assert (charged.lifecycle, charged.grace_ends_at) == (Lifecycle.SUSPENDED, NOW)
    sent = applied(status="past_due", open_invoices=[unpaid(30, due=0) | first]).spec
    assert (sent.lifecycle, sent.grace_ends_at) == (Lifecycle.ACTIVE, NOW + timedelta(days=14))


@pytest.mark.parametrize(
    "broken", ["none", {"data": []}, ["in_1"], [{"created": "yesterday"}], [{"due_date": -1}]]
)
def test_open_invoices_that_can_not_be_read_park(broken: Any) -> None:
    decision = decide(status="past_due", open_invoices=broken)
    assert isinstance(decision, Park)
    assert decision.reason.startswith("subscription.open_invoices")


def test_the_periods_start_of_older_shapes_and_none_at_all() -> None:
    spec = applied(status="past_due", current_period_start=START).spec
    assert spec.grace_ends_at == NOW - timedelta(days=6)
    assert applied(status="past_due").spec.lifecycle is Lifecycle.ACTIVE
    late = applied(item(current_period_start=253_402_300_799), status="past_due").spec
    assert late.grace_ends_at is not None
    assert applied(status="past_due", open_invoices=[{}]).spec.lifecycle is Lifecycle.ACTIVE


def test_a_trial_has_an_end() -> None:
    assert applied(status="trialing", trial_end=END).spec.trial_ends_at == END_AT
    assert applied(status="active", trial_end=END).spec.trial_ends_at is None


def test_everything_that_a_subscription_says() -> None:
    assert decide(metadata={"slug": "Acme", "name": "Acme Corp", "custom_domain": "www.acme.com"}) == Apply(
        subscription_id="sub_1",
        customer_id="cus_1",
        livemode=False,
        spec=TenantSpec(
            lifecycle=Lifecycle.ACTIVE,
            plan="team",
            subscription_status="active",
            quantity=3,
            custom_domains=("www.acme.com",),
            current_period_end=END_AT,
        ),
        requested_slug="Acme",
        display_name="Acme Corp",
        warnings=(),
    )


@pytest.mark.parametrize(
    ("status", "lifecycle"),
    [
        ("trialing", Lifecycle.ACTIVE),
        ("active", Lifecycle.ACTIVE),
        ("past_due", Lifecycle.ACTIVE),
        ("unpaid", Lifecycle.SUSPENDED),
        ("paused", Lifecycle.SUSPENDED),
        ("canceled", Lifecycle.CLOSED),
    ],
)
def test_a_status_asks_for_a_lifecycle(status: str, lifecycle: Lifecycle) -> None:
    spec = applied(status=status).spec
    assert (spec.lifecycle, spec.subscription_status) == (lifecycle, status)


def test_an_open_first_payment_waits_whatever_is_bought() -> None:
    assert isinstance(decide(status="incomplete"), Wait)
    assert isinstance(decide(item("price_unknown"), status="incomplete"), Wait)


def test_a_first_payment_that_never_came_closes() -> None:
    assert decide(status="incomplete_expired") == Turn(
        "sub_1", "cus_1", False, Lifecycle.CLOSED, "incomplete_expired", "the first payment never came"
    )


@pytest.mark.parametrize("broken", [{"items": None}, {"customer": None}])
def test_what_is_cancelled_closes_even_if_its_plan_is_unknown(broken: dict[str, Any]) -> None:
    decision = decide(status="canceled", **broken)
    assert isinstance(decision, Turn)
    assert decision.lifecycle is Lifecycle.CLOSED
    assert (decision.subscription_id, decision.subscription_status) == ("sub_1", "canceled")


@pytest.mark.parametrize("status", ["ended", "", "Active", None, 1, [], {}])
def test_an_unknown_status_parks(status: Any) -> None:
    decision = decide(status=status)
    assert isinstance(decision, Park)
    assert decision.reason.startswith("subscription.status: expected")


@pytest.mark.parametrize("pause", [None, {"behavior": "void", "resumes_at": None}])
def test_paused_collection_goes_on_serving(pause: Any) -> None:
    assert applied(pause_collection=pause).spec == applied().spec


def test_cancelling_at_the_periods_end_goes_on_until_then() -> None:
    spec = applied(cancel_at_period_end=True).spec
    assert spec == replace(applied().spec, closes_at=END_AT)
    sooner = applied(cancel_at=END - 86400, cancel_at_period_end=False).spec.closes_at
    assert sooner == END_AT - timedelta(days=1)
    assert applied(status="canceled", cancel_at=END).spec.closes_at is None


# ------------------------------------------------------------------------------ shapes old and new


@pytest.mark.parametrize(
    "bought",
    [
        item(),
        item(price="price_new") | {"price": {"id": "price_new", "lookup_key": "team"}},
        item() | {"price": "price_team"},
        {"plan": {"id": "price_team", "object": "plan"}, "quantity": 3, "current_period_end": END},
        {"plan": "price_team", "quantity": 3, "current_period_end": END},
        item() | {"plan": {"id": "price_unknown"}},
    ],
)
def test_a_price_is_an_object_an_id_or_an_old_plan(bought: dict[str, Any]) -> None:
    assert applied(bought) == applied()


def test_the_period_ends_on_the_item_or_on_the_subscription() -> None:
    old = item()
    del old["current_period_end"]
    assert applied(old, current_period_end=END).spec.current_period_end == END_AT
    assert applied(current_period_end=1).spec.current_period_end == END_AT
    assert applied(old).spec.current_period_end is None


@pytest.mark.parametrize("end", ["1", 1.5, -1, 10**12, True, []])
def test_a_period_without_a_good_end_parks(end: Any) -> None:
    decision = decide(item(current_period_end=end))
    assert isinstance(decision, Park)
    assert decision.reason.startswith("subscription.items.data[0].current_period_end: expected seconds")


@pytest.mark.parametrize("customer", ["cus_1", {"id": "cus_1"}, {"id": "cus_1", "deleted": True}])
def test_a_customer_is_an_id_or_an_object(customer: Any) -> None:
    assert applied(customer=customer).customer_id == "cus_1"


# ------------------------------------------------------------------------------ items


def test_the_plan_is_found_among_add_ons_and_gives_the_quantity() -> None:
    support = item("price_support", 9, current_period_end=END + 1)
    for items in ([item(), support], [support, item()]):
        spec = applied(*items).spec
        assert (spec.plan, spec.quantity, spec.current_period_end) == ("team", 3, END_AT)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([item("price_x")], "items.data[0].price: expected a price of the catalogue, got 'price_x'"),
        (
            [item() | {"price": {"id": "price_x", "lookup_key": "gold"}}],
            "items.data[0].price: expected a price of the catalogue (lookup key 'gold'), got 'price_x'",
        ),
        ([item("price_x"), item("price_support")], "items.data[0].price: expected a price of the catalogue"),
        (
            [item(), item() | {"price": {"id": "price_x", "lookup_key": "starter"}}],
            "items.data[1].price: expected no second plan beside team, got 'starter'",
        ),
        (
            [item(), item("price_team_yearly")],
            "items.data[1].price: expected no second plan beside team, got 'team'",
        ),
        ([item("price_support")], "items.data: expected an item that is a plan, got 'add-ons alone'"),
        ([7], "items.data[0].plan: expected a price or its id, got nothing"),
        ([item() | {"price": {}}], "items.data[0].price: expected a price or its id, got nothing"),
        ([item() | {"price": 7}], "items.data[0].price: expected a price or its id, got 7"),
        (
            [item() | {"price": {"id": "price_team", "lookup_key": 7}}],
            "items.data[0].price.lookup_key: expected text or null, got 7",
        ),
    ],
)
def test_items_that_are_not_one_plan_park(items: list[Any], reason: str) -> None:
    decision = decide(*items)
    assert isinstance(decision, Park)
    assert decision.reason.startswith(f"subscription.{reason}")


def test_beside_one_plan_an_unknown_item_is_told_of_and_holds_nothing_up() -> None:
    """A line for the onboarding, say, that finance has added."""
    for items in ([item(), item("price_x")], [item("price_x"), item()]):
        decision = applied(*items)
        assert decision.spec.plan == "team"
        [warning] = decision.warnings
        assert "price: expected a price of the catalogue, got 'price_x'" in warning


@pytest.mark.parametrize(
    ("status", "lifecycle"),
    [("unpaid", Lifecycle.SUSPENDED), ("paused", Lifecycle.SUSPENDED), ("canceled", Lifecycle.CLOSED)],
)
@pytest.mark.parametrize("items", [[item("price_x")], [item(), item("price_team_yearly")], []])
def test_who_does_not_pay_is_not_served_whatever_the_catalogue_knows(
    items: list[Any], status: str, lifecycle: Lifecycle
) -> None:
    decision = decide(*items, status=status, items={"data": items})
    assert isinstance(decision, Turn)
    assert (decision.lifecycle, decision.subscription_status) == (lifecycle, status)
    assert isinstance(decide(*items, status="active", items={"data": items}), Park)


def test_no_seats_are_a_quantity_too() -> None:
    assert applied(item(quantity=0)).spec.quantity == 0


@pytest.mark.parametrize("quantity", [-1, 1.0, "3", True, None, 2**31, []])
def test_a_quantity_that_is_none_parks(quantity: Any) -> None:
    decision = decide(item(quantity=quantity))
    assert isinstance(decision, Park)
    assert decision.reason.startswith("subscription.items.data[0].quantity: expected a whole number")


@pytest.mark.parametrize(
    "metered",
    [
        {"price": {"id": "price_team", "recurring": {"usage_type": "metered"}}},
        {"price": "price_team", "plan": {"id": "price_team", "usage_type": "metered"}},
    ],
)
def test_what_is_billed_by_use_counts_once(metered: dict[str, Any]) -> None:
    assert applied(item(quantity=None) | metered).spec.quantity == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"object": "invoice"}, "subscription.object: expected subscription, got 'invoice'"),
        ({"id": "in_1"}, "subscription.id: expected a Stripe id (sub_…), got 'in_1'"),
        ({"id": "sub_1\n"}, "subscription.id: expected a Stripe id (sub_…), got 'sub_1\\n'"),
        ({"id": "sub_" + "x" * 300}, "subscription.id: expected a Stripe id (sub_…), got 'sub_xxx"),
        ({"customer": "cus_"}, "subscription.customer: expected a Stripe id (cus_…), got 'cus_'"),
        ({"customer": {"id": 7}}, "subscription.customer: expected a Stripe id (cus_…), got 7"),
        ({"livemode": 1}, "subscription.livemode: expected true or false, got 1"),
        ({"items": None}, "subscription.items.data: expected a list of one item or more, got nothing"),
        ({"items": {"data": []}}, "subscription.items.data: expected a list of one item or more, got a list"),
        (
            {"items": {"data": [item()], "has_more": True}},
            "subscription.items.has_more: expected all items in one list, got true",
        ),
    ],
)
def test_a_malformed_subscription_parks_and_names_the_field(changes: dict[str, Any], reason: str) -> None:
    decision = decide(**changes)
    assert isinstance(decision, Park)
    assert decision.reason.startswith(reason)


@pytest.mark.parametrize("whole", [None, [], "sub_1", 7])
def test_what_is_no_object_parks(whole: Any) -> None:
    decision = spec_from_subscription(whole, CATALOGUE, platform_zone=ZONE, now=NOW)
    assert isinstance(decision, Park)
    assert decision.reason.startswith("subscription: expected an object, got")


# ------------------------------------------------------------------------------ what was asked for

SESSION = {
    "metadata": {"slug": "from-session", "name": "Session Inc"},
    "custom_fields": [
        {"key": "vat", "text": {"value": "DE1"}},
        {"key": "slug", "text": {"value": "from-field"}},
    ],
    "customer_details": {"name": "Payer"},
}
CUSTOMER = {"id": "cus_1", "name": "Customer Ltd", "metadata": {"slug": "from-customer"}}


@pytest.mark.parametrize(
    ("changes", "requested"),
    [
        ({"metadata": {"slug": "mine"}, "session": SESSION, "customer_object": CUSTOMER}, "mine"),
        ({"metadata": {"slug": " "}, "session": SESSION, "customer_object": CUSTOMER}, "from-session"),
        ({"session": SESSION | {"metadata": None}, "customer_object": CUSTOMER}, "from-field"),
        (
            {"session": SESSION | {"metadata": {}, "custom_fields": None}, "customer_object": CUSTOMER},
            "from-customer",
        ),
        ({"customer": CUSTOMER}, "from-customer"),
        ({"metadata": {"slug": 7}}, None),
        ({}, None),
    ],
)
def test_the_wish_for_a_slug_comes_from_the_nearest(changes: dict[str, Any], requested: str | None) -> None:
    session, customer = changes.pop("session", None), changes.pop("customer_object", None)
    decision = spec_from_subscription(
        subscription(**changes), CATALOGUE, platform_zone=ZONE, now=NOW, session=session, customer=customer
    )
    assert isinstance(decision, Apply)
    assert decision.requested_slug == requested


@pytest.mark.parametrize(
    ("metadata", "session", "customer", "name"),
    [
        ({"name": "Mine"}, SESSION, CUSTOMER, "Mine"),
        ({}, SESSION, CUSTOMER, "Session Inc"),
        ({}, SESSION | {"metadata": {}}, CUSTOMER, "Customer Ltd"),
        ({}, {"customer_details": {"name": "Payer"}}, {"id": "cus_1", "deleted": True}, "Payer"),
        ({"slug": "acme"}, None, None, "acme"),
        ({}, None, None, "sub_1"),
        ({"name": "  Zoë\n\0日本\ud800 🎉 \u202egnp "}, None, None, "Zoë 日本 🎉 gnp"),
        ({"name": "x" * 1000}, None, None, "x" * 200),
    ],
)
def test_a_display_name_is_always_there_and_fit_to_show(
    metadata: dict[str, str], session: Any, customer: Any, name: str
) -> None:
    decision = spec_from_subscription(
        subscription(metadata=metadata),
        CATALOGUE,
        platform_zone=ZONE,
        now=NOW,
        session=session,
        customer=customer,
    )
    assert isinstance(decision, Apply)
    assert decision.display_name == name


def test_custom_domains_are_normalised_and_counted_once() -> None:
    decision = applied(
        metadata={"custom_domain": "WWW.Acme.com.", "custom_domains": " www.acme.com,, bücher.de"}
    )
    assert decision.spec.custom_domains == ("www.acme.com", "xn--bcher-kva.de")
    assert decision.warnings == ()


def test_a_bad_custom_domain_warns_and_holds_nothing_up() -> None:
    decision = applied(metadata={"custom_domains": f"http://x, shop.acme.com, acme.{ZONE}"})
    assert decision.spec.custom_domains == ("shop.acme.com",)
    assert [warning.split(": expected")[0] for warning in decision.warnings] == [
        "metadata.custom_domains: custom_domain"
    ] * 2


def test_domains_beyond_the_plans_allowance_are_cut_with_a_warning() -> None:
    decision = applied(metadata={"custom_domains": "a.com,b.com,c.com,d.com"})
    assert decision.spec.custom_domains == ("a.com", "b.com")
    assert decision.warnings == ("custom_domains: plan team allows 2, left out: c.com, d.com",)


def test_what_a_tenant_should_have_hangs_on_the_subscription_alone() -> None:
    session, customer = SESSION | {"metadata": {"custom_domain": "a.com"}}, CUSTOMER | {"id": "cus_2"}
    decision = spec_from_subscription(
        subscription(), CATALOGUE, platform_zone=ZONE, now=NOW, session=session, customer=customer
    )
    assert isinstance(decision, Apply)
    assert (decision.spec, decision.customer_id) == (applied().spec, "cus_1")


# ------------------------------------------------------------------------------ Stripe's own examples

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "stripe" / "objects.json"


@pytest.mark.skipif(not REFERENCE.exists(), reason="Stripe's example objects are not beside the repository")
def test_stripes_own_examples_are_understood() -> None:
    objects = json.loads(REFERENCE.read_text(encoding="utf-8"))
    example = objects["subscription"]
    assert isinstance(spec_from_subscription(example, CATALOGUE, platform_zone=ZONE, now=NOW), Park)
    example["items"]["data"][0]["price"]["lookup_key"] = "team"
    decision = spec_from_subscription(
        example,
        CATALOGUE,
        platform_zone=ZONE,
        now=NOW,
        session=objects["checkout.session"],
        customer=objects["customer"],
    )
    assert isinstance(decision, Apply)
    assert (decision.subscription_id, decision.customer_id) == (example["id"], example["customer"])
    assert decision.spec.current_period_end is not None
