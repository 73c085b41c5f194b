"""What a subscription of Stripe's asks for, alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.billing import (
    ENDED,
    STANDING_OF_STATUS,
    contract_of,
    wishes_of_checkout,
    wishes_of_customer,
)
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.contract import Add, Apply, Contract, Decision, Park, Standing, Turn, Wait, Wishes
from controlplane.domain.tenant import Lifecycle, TenantSpec
from tests.domain.alone import decided

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
        "status": "active",
        "metadata": {},
        "items": {"object": "list", "data": list(items) or [item()], "has_more": False},
    }
    return whole | changes


def decide(*items: Any, **changes: Any) -> Decision:
    return decided(subscription(*items, **changes), CATALOGUE, platform_zone=ZONE, now=NOW)


def applied(*items: Any, **changes: Any) -> Apply:
    decision = decide(*items, **changes)
    assert isinstance(decision, Apply), decision
    return decision


def read(*items: Any, **changes: Any) -> Contract:
    contract = contract_of(subscription(*items, **changes))
    assert isinstance(contract, Contract), contract
    return contract


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
    said = {"metadata": {"slug": "Acme", "name": "Acme Corp", "custom_domain": "www.acme.com"}}
    contract = read(**said, start_date=END - 86400)
    assert (contract.id, contract.customer, contract.period_end) == ("sub_1", "cus_1", END_AT)
    assert (contract.wishes, contract.tenant) == (Wishes("Acme", "Acme Corp"), None)
    assert contract.started_at == END_AT - timedelta(days=1)
    assert decide(**said) == Apply(
        TenantSpec(
            lifecycle=Lifecycle.ACTIVE,
            plan="team",
            subscription_status="active",
            quantity=3,
            custom_domains=("www.acme.com",),
        )
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
        ("incomplete_expired", Lifecycle.CLOSED),
    ],
)
def test_a_status_asks_for_a_lifecycle(status: str, lifecycle: Lifecycle) -> None:
    spec = applied(status=status).spec
    assert (spec.lifecycle, spec.subscription_status) == (lifecycle, status)


def test_an_open_first_payment_waits_whatever_is_bought() -> None:
    assert isinstance(decide(status="incomplete"), Wait)
    assert isinstance(decide(item("price_unknown"), status="incomplete"), Wait)


def test_what_has_ended_is_what_stripe_never_leaves_again() -> None:
    assert {"canceled", "incomplete_expired"} == ENDED
    assert {STANDING_OF_STATUS[status] for status in ENDED} == {Standing.ENDED}


@pytest.mark.parametrize("status", sorted(ENDED))
def test_what_is_cancelled_closes_even_if_its_plan_is_unknown(status: str) -> None:
    decision = decide(status=status, items=None)
    assert isinstance(decision, Turn)
    assert decision.lifecycle is Lifecycle.CLOSED


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
    assert read(old, current_period_end=END).period_end == END_AT
    assert read(current_period_end=1).period_end == END_AT
    assert read(old).period_end is None


@pytest.mark.parametrize("end", ["1", 1.5, -1, 10**12, True, []])
def test_a_period_without_a_good_end_parks(end: Any) -> None:
    decision = decide(item(current_period_end=end))
    assert isinstance(decision, Park)
    assert decision.reason.startswith("subscription.items.data[0].current_period_end: expected seconds")


@pytest.mark.parametrize("customer", ["user_7", {"id": "user_7"}, {"id": "user_7", "deleted": True}])
def test_a_customer_is_an_id_of_any_form_or_an_object(customer: Any) -> None:
    """Imports give ids of their own."""
    assert read(customer=customer).customer == "user_7"


# ------------------------------------------------------------------------------ items


def test_the_plan_is_found_among_add_ons_and_gives_the_quantity() -> None:
    support = item("price_support", 9, current_period_end=END + 1)
    for items in ([item(), support], [support, item()]):
        spec = applied(*items).spec
        assert (spec.plan, spec.quantity, spec.addons) == ("team", 3, {"support": 9})


def test_add_ons_alone_are_added_to_what_another_makes() -> None:
    assert decide(item("price_support", 2)) == Add({"support": 2})


def test_all_items_have_one_period_and_the_first_says_it() -> None:
    later = item("price_support", 9, current_period_end=END + 1)
    assert read(item(), later).period_end == END_AT
    assert read(later, item()).period_end == END_AT + timedelta(seconds=1)


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
    assert decision.lifecycle is lifecycle
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
        ({"customer": "cus 1"}, "subscription.customer: expected a Stripe id (…), got 'cus 1'"),
        ({"customer": {"id": 7}}, "subscription.customer: expected a Stripe id (…), got 7"),
        ({"customer": None}, "subscription.customer: expected a Stripe id (…), got nothing"),
        ({"customer": None, "status": "canceled"}, "subscription.customer: expected a Stripe id (…), got"),
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
    contract = contract_of(whole)
    assert isinstance(contract, Park)
    assert contract.reason.startswith("subscription: expected an object, got")


# ------------------------------------------------------------------------------ what was asked for

SESSION = {
    "metadata": {"slug": "from-session", "name": "Session Inc"},
    "custom_fields": [
        {"key": "vat", "text": {"value": "DE1"}},
        {"key": "slug", "text": {"value": " "}},
        {"key": "slug", "text": {"value": "from-field"}},
    ],
    "customer_details": {"name": "Payer"},
}
CUSTOMER = {"id": "cus_1", "name": "Customer Ltd", "metadata": {"slug": "from-customer", "name": "Other"}}


def wished(metadata: Any, session: Any, customer: Any) -> Wishes:
    nearest = read(metadata=metadata).wishes
    return nearest.over(wishes_of_checkout(session)).over(wishes_of_customer(customer))


@pytest.mark.parametrize(
    ("metadata", "session", "customer", "slug"),
    [
        ({"slug": "mine"}, SESSION, CUSTOMER, "mine"),
        ({"slug": " "}, SESSION, CUSTOMER, "from-session"),
        ({}, SESSION | {"metadata": None}, CUSTOMER, "from-field"),
        ({}, SESSION | {"metadata": {}, "custom_fields": None}, CUSTOMER, "from-customer"),
        ({}, SESSION | {"metadata": {}, "custom_fields": "slug"}, CUSTOMER, "from-customer"),
        ({}, None, CUSTOMER, "from-customer"),
        ({"slug": 7}, None, None, None),
        ({}, None, None, None),
    ],
)
def test_the_wish_for_a_slug_comes_from_the_nearest(
    metadata: Any, session: Any, customer: Any, slug: str | None
) -> None:
    assert wished(metadata, session, customer).slug == slug


@pytest.mark.parametrize(
    ("metadata", "session", "customer", "name"),
    [
        ({"name": "Mine"}, SESSION, CUSTOMER, "Mine"),
        ({}, SESSION, CUSTOMER, "Session Inc"),
        ({}, SESSION | {"metadata": {}}, CUSTOMER, "Customer Ltd"),
        ({}, SESSION | {"metadata": {}}, {"id": "cus_1", "deleted": True}, None),
        ({"slug": "acme"}, None, None, None),
        ({"name": "  Zoë\n\0日本\ud800 🎉 \u202egnp "}, None, None, "Zoë 日本 🎉 gnp"),
        ({"name": "x" * 1000}, None, None, "x" * 200),
    ],
)
def test_the_name_comes_from_the_nearest_and_is_fit_to_show(
    metadata: dict[str, str], session: Any, customer: Any, name: str | None
) -> None:
    assert wished(metadata, session, customer).name == name


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


# ------------------------------------------------------------------------------ Stripe's own examples

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "stripe" / "objects.json"


@pytest.mark.skipif(not REFERENCE.exists(), reason="Stripe's example objects are not beside the repository")
def test_stripes_own_examples_are_understood() -> None:
    objects = json.loads(REFERENCE.read_text(encoding="utf-8"))
    example = objects["subscription"]
    assert isinstance(decided(example, CATALOGUE, platform_zone=ZONE, now=NOW), Park)
    example["items"]["data"][0]["price"]["lookup_key"] = "team"
    assert isinstance(decided(example, CATALOGUE, platform_zone=ZONE, now=NOW), Apply)
    contract = contract_of(example)
    assert isinstance(contract, Contract)
    assert (contract.id, contract.customer) == (example["id"], example["customer"])
    assert contract.period_end is not None
    assert contract.started_at == datetime.fromtimestamp(example["start_date"], UTC)
    wishes_of_checkout(objects["checkout.session"])
    assert wishes_of_customer(objects["customer"]).name == objects["customer"]["name"]
