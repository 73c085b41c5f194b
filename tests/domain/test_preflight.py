"""What is said of a catalogue before anything is founded by it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.domain.billing import STANDING_OF_STATUS, contract_of
from controlplane.domain.binding import Known, bind
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.contract import Contract
from controlplane.domain.preflight import Missing, Parked, Preflight, Price, Unlisted, preflight, price_of
from tests import builders

NOW = datetime.fromtimestamp(builders.NOW, UTC)
CAPACITY = """
    isolation = "dedicated"
    min_acu = 0.5
    max_acu = 4
    backup_retention_days = 7
    pool_size = 5
    connection_limit = 20
    retention_days = 30
    dunning_grace_days = 14
"""
CATALOGUE = parse_catalogue(
    f"""
    version = 1
    [plans.team]
    lookup_keys = ["team"]
    {CAPACITY}
    [plans.big]
    price_ids = ["price_big"]
    {CAPACITY}
    [plans.site]
    product_ids = ["prod_site"]
    family = "sites"
    {CAPACITY}
    [families.sites]
    tenants = "many"
    [addons.seats]
    lookup_keys = ["seat"]
    [ignore]
    product_ids = ["prod_letter"]
    """,
    source="plans.toml",
)
PRICES = [
    Price("price_team", "team", "prod_1"),
    Price("price_big", None, "prod_1"),
    Price("price_site", None, "prod_site"),
    Price("price_seat", "seat", "prod_1"),
    Price("price_letter", None, "prod_letter"),
]


def sold(price: str, *, key: str | None = None, product: str = "prod_1", **more: Any) -> dict[str, Any]:
    """An item of a subscription."""
    priced = builders.price(id=price, lookup_key=key, product=product)
    return builders.subscription_item(price_id=price, lookup_key=key) | {"price": priced} | more


TEAM, BIG = sold("price_team", key="team"), sold("price_big")
SITE, SEAT = sold("price_site", product="prod_site"), sold("price_seat", key="seat")
LETTER = sold("price_letter", product="prod_letter")


def to(*items: dict[str, Any], name: str, customer: str = "", **more: Any) -> dict[str, Any]:
    """A subscription to these; of a customer of its own unless one is named."""
    return builders.subscription(
        id=f"sub_{name}", customer=f"cus_{customer or name}", items=list(items), **more
    )


def check(*subscriptions: Any, prices: list[Price] = PRICES) -> Preflight:
    return preflight(CATALOGUE, prices, subscriptions, now=NOW)


def what(found: Preflight) -> dict[str, int]:
    return {name: number for name, number in found.subscriptions.items() if number}


def test_an_account_that_fits_its_catalogue_is_good() -> None:
    found = check(to(TEAM, name="a"), to(SITE, name="b"), to(LETTER, name="c"))
    assert found.ok
    assert found.prices == 5
    assert (found.missing, found.unlisted, found.parked) == ([], [], [])
    assert found.subscriptions == {"active": 2, "suspended": 0, "waiting": 0, "ignored": 1, "parked": 0}
    assert found.tenants == {"active": 2, "suspended": 0}


def test_an_account_without_anything_lacks_each_name() -> None:
    found = check(prices=[])
    assert not found.ok
    assert found.missing == [
        Missing("plans.team.lookup_keys", "team"),
        Missing("plans.big.price_ids", "price_big"),
        Missing("plans.site.product_ids", "prod_site"),
        Missing("addons.seats.lookup_keys", "seat"),
        Missing("ignore.product_ids", "prod_letter"),
    ]


def test_an_archived_price_is_there() -> None:
    archived = [Price(p.id, p.lookup_key, p.product, active=False) for p in PRICES]
    assert check(prices=archived).missing == []


def test_what_a_subscription_is_to_is_there_though_no_listing_has_it() -> None:
    """Stripe lists no price that was made within a subscription, and such prices may be all of a product."""
    without = [price for price in PRICES if price.id != "price_site"]
    assert check(prices=without).missing == [Missing("plans.site.product_ids", "prod_site")]
    found = check(to(sold("price_of_a", product="prod_site"), name="a"), prices=without)
    assert (found.missing, what(found), found.prices) == ([], {"active": 1}, 4)


def test_an_active_price_that_nobody_lists_is_named_with_its_subscriptions() -> None:
    more = [
        Price("price_x", "old_team", "prod_1"),
        Price("price_y", None, "prod_2"),
        Price("price_z", None, "prod_2"),
        Price("price_archived", None, "prod_2", active=False),
    ]
    found = check(
        to(TEAM, sold("price_y", product="prod_2"), name="a"),
        to(TEAM, sold("price_y", product="prod_2"), name="b", status="canceled"),
        to(TEAM, sold("price_archived", product="prod_2"), name="c"),
        prices=[*PRICES, *more],
    )
    assert found.unlisted == [
        Unlisted("price_y", None, "prod_2", 1),
        Unlisted("price_x", "old_team", "prod_1", 0),
        Unlisted("price_z", None, "prod_2", 0),
    ]
    assert found.ok, "beside a plan it is a warning"


def test_a_price_twice_in_one_subscription_is_one_subscription() -> None:
    twice = [sold("price_x"), sold("price_x")]
    found = check(to(TEAM, *twice, name="a"), prices=[*PRICES, Price("price_x", None, "prod_1")])
    assert [each.subscriptions for each in found.unlisted] == [1]


def test_what_parks_is_grouped_by_reason_the_most_first() -> None:
    found = check(
        *(to(sold("price_old", product="prod_old"), name=f"old{number}") for number in range(7)),
        to(TEAM, BIG, name="two"),
        to(LETTER, TEAM, BIG, name="also_two"),
    )
    assert not found.ok
    assert [(each.count, each.first) for each in found.parked] == [
        (7, ["sub_old0", "sub_old1", "sub_old2", "sub_old3", "sub_old4"]),
        (2, ["sub_two", "sub_also_two"]),
    ]
    assert [each.reason for each in found.parked] == [
        "subscription.items.data[…].price: expected a price of the catalogue, got 'price_old'",
        "subscription.items.data[…].price: expected no second plan beside team, got 'big'",
    ]
    assert what(found) == {"parked": 9}


def test_prices_of_one_product_are_one_reason() -> None:
    """A price for each customer is as many as there are customers, and one line in the catalogue."""
    own = [to(sold(f"price_{n}", product="prod_own"), name=str(n)) for n in range(3)]
    other = to(sold("price_other", product="prod_other", key="other"), name="other")
    assert check(*own, other).parked == [
        Parked(
            "subscription.items.data[…].price: expected a price of the catalogue, got 'price_0',"
            " and 2 more of product 'prod_own'",
            3,
            ["sub_0", "sub_1", "sub_2"],
        ),
        Parked(
            "subscription.items.data[…].price: expected a price of the catalogue (lookup key 'other'),"
            " got 'price_other'",
            1,
            ["sub_other"],
        ),
    ]


def test_the_unknown_price_is_the_one_that_the_reason_names() -> None:
    both = [to(LETTER, sold("price_x", product="prod_x"), name=name) for name in "ab"]
    beside = to(sold("price_x", product="prod_x"), sold("price_y", product="prod_y"), name="c")
    assert [(each.count, each.reason) for each in check(*both, beside).parked] == [
        (3, "subscription.items.data[…].price: expected a price of the catalogue, got 'price_x'")
    ]


def test_a_price_without_a_product_is_a_reason_of_its_own() -> None:
    items = [{"price": name, "quantity": 1} for name in ("price_1", "price_2", "price_1")]
    found = check(*(to(item, name=str(number)) for number, item in enumerate(items)))
    assert [(each.count, each.reason[-9:]) for each in found.parked] == [(2, "'price_1'"), (1, "'price_2'")]


def test_what_can_not_be_read_is_a_reason_too() -> None:
    found = check(
        to(TEAM, name="a", status="new_status"),
        to(TEAM, name="b", status="new_status"),
        {"id": 7},
        "nonsense",
    )
    assert [(each.count, each.first) for each in found.parked] == [
        (2, ["sub_a", "sub_b"]),
        (1, ["7"]),
        (1, ["None"]),
    ]


def test_who_does_not_pay_and_whom_nobody_knows_parks_as_it_would() -> None:
    assert check(to(sold("price_x"), name="a", status="unpaid")).parked[0].first == ["sub_a"]


@pytest.mark.parametrize(
    ("status", "becomes", "tenants"),
    [
        ("trialing", "active", {"active": 1, "suspended": 0}),
        ("active", "active", {"active": 1, "suspended": 0}),
        ("past_due", "active", {"active": 1, "suspended": 0}),
        ("unpaid", "suspended", {"active": 0, "suspended": 1}),
        ("paused", "suspended", {"active": 0, "suspended": 1}),
        ("incomplete", "waiting", {"active": 0, "suspended": 0}),
        ("canceled", None, {"active": 0, "suspended": 0}),
        ("incomplete_expired", None, {"active": 0, "suspended": 0}),
    ],
)
def test_what_becomes_of_each_status(status: str, becomes: str | None, tenants: dict[str, int]) -> None:
    found = check(to(TEAM, name="a", status=status))
    assert (what(found), found.tenants) == ({becomes: 1} if becomes else {}, tenants)
    assert found.ok
    assert status in STANDING_OF_STATUS


def test_a_grace_that_is_over_suspends() -> None:
    month_ago = builders.NOW - 30 * 86400
    owed = [builders.invoice(subscription="sub_a", status="open", created=month_ago)]
    assert what(check(to(TEAM, name="a", status="past_due", open_invoices=owed))) == {"suspended": 1}


def test_add_ons_alone_are_for_the_tenant_of_the_customer() -> None:
    assert what(check(to(SEAT, name="a"))) == {"ignored": 1}
    assert what(check(to(SEAT, name="a"), to(TEAM, name="b", customer="a"))) == {"active": 2}
    sites = [to(SITE, name=name, customer="a") for name in "bcd"], to(SEAT, name="a")
    found = check(*sites[0], sites[1])
    assert found.parked == [
        Parked("add-ons alone, and several tenants that they may be for: t-…", 1, ["sub_a"])
    ]


def test_who_pays_twice_in_a_family_of_one_is_named() -> None:
    pairs = [to(plan, name=f"{plan['id']}_{n}", customer=str(n)) for n in range(6) for plan in (TEAM, BIG)]
    ended = [to(TEAM, name="x", customer="x"), to(BIG, name="y", customer="x", status="canceled")]
    unpaid = [to(TEAM, name="v", customer="v"), to(BIG, name="w", customer="v", status="unpaid")]
    many = [to(SITE, name="s", customer="s"), to(SITE, name="t", customer="s")]
    found = check(*pairs, *ended, *unpaid, *many)
    assert found.ok
    assert (found.paid_twice.count, len(found.paid_twice.first)) == (6, 5)
    assert found.paid_twice.first[0] == {
        "customer": "cus_0",
        "contracts": ("sub_si_price_big_0", "sub_si_price_team_0"),
    }
    assert found.tenants == {"active": 6 + 1 + 1 + 2, "suspended": 0}
    assert what(found) == {"active": 12 + 1 + 2 + 2}, "what is not paid for governs no tenant that is"


def test_who_names_a_tenant_is_told_of_and_decided_by_itself() -> None:
    """Whether the customer has that tenant is the registry's to know."""
    first = to(TEAM, name="a", customer="a", metadata={"tenant": "acme"})
    second = to(TEAM, name="b", customer="a")
    found = check(first, second)
    assert (found.name_a_tenant.count, found.name_a_tenant.first) == (1, ["sub_a"])
    assert (found.ok, found.paid_twice.count, found.tenants["active"]) == (True, 0, 2)


def test_domains_that_are_refused_park_nobody() -> None:
    wished = {"custom_domains": "a.tenants.platform.com, not a host"}
    assert check(to(TEAM, name="a", metadata=wished)).ok


def test_it_says_what_the_product_says() -> None:
    """One customer's, decided here and by the function that decides for an event."""
    bought = [to(TEAM, name="a", customer="a"), to(sold("price_x"), name="b", customer="a")]
    contracts = [contract for contract in map(contract_of, bought) if isinstance(contract, Contract)]
    known = [Known(contract.id, contract) for contract in contracts]
    verdicts = bind("cus_a", known, (), CATALOGUE, platform_zone="platform.com", now=NOW).verdicts
    assert {name: verdict.outcome.value for name, verdict in verdicts.items()} == {
        "sub_a": "applied",
        "sub_b": "parked",
    }
    assert what(check(*bought)) == {"active": 1, "parked": 1}


def test_it_is_json() -> None:
    pairs = [to(TEAM, name="a", customer="a"), to(BIG, name="b", customer="a")]
    found = check(*pairs, prices=[Price("price_x", None, None)]).to_json()
    assert json.loads(json.dumps(found)) == {
        "ok": False,
        "prices": 1,
        "missing": [
            {"where": "plans.site.product_ids", "name": "prod_site"},
            {"where": "addons.seats.lookup_keys", "name": "seat"},
            {"where": "ignore.product_ids", "name": "prod_letter"},
        ],
        "unlisted": [{"price": "price_x", "lookup_key": None, "product": None, "subscriptions": 0}],
        "parked": [],
        "paid_twice": {
            "count": 1,
            "first": [{"customer": "cus_a", "contracts": ["sub_a", "sub_b"]}],
        },
        "name_a_tenant": {"count": 0, "first": []},
        "subscriptions": {"active": 2, "suspended": 0, "waiting": 0, "ignored": 0, "parked": 0},
        "tenants": {"active": 1, "suspended": 0},
    }


def test_a_price_is_read_with_its_product_expanded_or_not() -> None:
    price = builders.price(id="price_a", lookup_key="a")
    assert price_of(price) == Price("price_a", "a", "prod_1", active=True)
    assert price_of(price | {"product": {"id": "prod_2"}, "active": False}) == Price(
        "price_a", "a", "prod_2", active=False
    )
