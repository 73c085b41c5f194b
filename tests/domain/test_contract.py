"""What one contract asks for, in nobody's dialect, and what a catalogue makes of what Stripe sells."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.billing import contract_of
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.contract import (
    LIFECYCLE_OF_STANDING,
    NO_WISHES,
    Add,
    Apply,
    Contract,
    Decision,
    Ignore,
    Line,
    Park,
    Standing,
    Turn,
    Wait,
    Wishes,
    custom_domains,
    decide,
    grace_ends_at,
)
from controlplane.domain.hostname import RefusedDomain
from controlplane.domain.tenant import Lifecycle
from tests.domain.alone import decided

ZONE = "tenants.platform.com"
NOW = datetime(2026, 11, 24, tzinfo=UTC)
DAY = timedelta(days=1)
CAPACITY = """
    isolation = "dedicated"
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
    [plans.trial]
    lookup_keys = ["trial"]
    custom_domains = 1
    {CAPACITY}
    [plans.team]
    price_ids = ["price_team"]
    lookup_keys = ["team"]
    product_ids = ["prod_team"]
    custom_domains = 2
    trial_plan = "trial"
    suspend_on_pause_collection = true
    {CAPACITY}
    [plans.plain]
    price_ids = ["price_plain"]
    dunning_grace_days = 3
    {CAPACITY}
    [addons.projects]
    price_ids = ["price_projects"]
    lookup_keys = ["projects"]
    product_ids = ["prod_projects"]
    [addons.seats]
    price_ids = ["price_seats"]
    seats = true
    [addons.guests]
    price_ids = ["price_guests"]
    seats = true
    [ignore]
    price_ids = ["price_letter"]
    lookup_keys = ["letter"]
    product_ids = ["prod_letter"]
    """,
    source="plans.toml",
)
PAYING = (Standing.LIVE, Standing.OVERDUE)
NOT_PAYING = (Standing.STOPPED, Standing.ENDED)


def line(name: str, quantity: int = 1, **more: Any) -> Line:
    fields = {"key": None, "product": None, "where": f"{name}."} | more
    return Line(f"price_{name}", quantity=quantity, **fields)


def contract(*lines: Line, standing: Standing = Standing.LIVE, **more: Any) -> Contract:
    fields = {"customer": "cus_1", "status": standing.value, "started_at": NOW - 90 * DAY} | more
    return Contract(id="sub_1", standing=standing, lines=lines, **fields)


def decision(*lines: Line, **more: Any) -> Decision:
    return decide(contract(*lines, **more), CATALOGUE, platform_zone=ZONE, now=NOW)


def applied(*lines: Line, **more: Any) -> Apply:
    found = decision(*lines, **more)
    assert isinstance(found, Apply), found
    return found


def sold(*items: dict[str, Any], **changes: Any) -> Decision:
    """Of a subscription as Stripe has it."""
    whole = {"id": "sub_1", "customer": "cus_1", "status": "active", "items": {"data": list(items)}}
    return decided(whole | changes, CATALOGUE, platform_zone=ZONE, now=NOW)


def item(price: Any, quantity: Any = 1) -> dict[str, Any]:
    return {"price": price, "quantity": quantity}


# ------------------------------------------------------------------------------ as it is kept

words = st.none() | st.text()
moments = st.none() | st.datetimes(timezones=st.just(UTC))
contracts = st.builds(
    Contract,
    id=st.text(),
    customer=st.text(),
    standing=st.sampled_from(Standing),
    status=st.text(),
    started_at=st.datetimes(timezones=st.just(UTC)),
    lines=st.lists(
        st.builds(
            Line,
            st.sampled_from(["price_team", "price_projects", "price_seats", "price_letter", "price_x"]),
            words,
            words,
            st.integers(0, 9),
            st.text(),
            words,
        ),
        max_size=3,
    ).map(tuple),
    overdue_since=moments,
    never_paid=st.booleans(),
    collection_paused=st.booleans(),
    period_end=moments,
    trial_ends_at=moments,
    closes_at=moments,
    tenant=words,
    wishes=st.builds(Wishes, words, words),
    domains=st.dictionaries(st.text(), st.text(), max_size=2),
    problem=words,
)


@given(contracts)
def test_a_contract_comes_back_from_the_registry_as_it_was(found: Contract) -> None:
    assert Contract.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_every_field_is_kept() -> None:
    assert set(contract().to_json()) == {each.name for each in fields(Contract)}


def test_what_another_release_wrote_is_read_too() -> None:
    """Fields that are unknown here are left out, and those that were unknown there have their defaults."""
    written = contract(line("team"), wishes=Wishes("acme", None)).to_json()
    needed = {"id", "customer", "standing", "status", "started_at", "lines", "wishes"}
    older = {name: value for name, value in written.items() if name in needed}
    for found in (older, {**written, "colour": "red"}):
        assert Contract.from_json(found) == contract(line("team"), wishes=Wishes("acme", None))


@pytest.mark.parametrize(
    "newer",
    [
        {"wishes": {"slug": "acme", "name": None, "colour": "red"}},
        {"lines": [["price_team", None, None, 1, "team.", None, "red"]]},
    ],
)
def test_what_a_newer_release_wrote_into_a_part_is_left_out_too(newer: dict[str, Any]) -> None:
    written = contract(line("team"), wishes=Wishes("acme", None))
    assert Contract.from_json({**written.to_json(), **newer}) == written


def test_a_lookup_key_that_moved_and_a_debt_that_is_another_are_no_news() -> None:
    """No event that is acted on tells of them, so none was missed."""
    known = contract(line("team", key="team"), standing=Standing.OVERDUE, overdue_since=NOW)
    assert known.same_news(known)
    assert not known.same_news(None)
    for lesser in ({"lines": (line("team"),)}, {"overdue_since": NOW - DAY}, {"never_paid": True}):
        assert replace(known, **lesser).same_news(known)
    assert known == contract(line("team", key="team"), standing=Standing.OVERDUE, overdue_since=NOW)


@pytest.mark.parametrize(
    "news",
    [
        {"id": "sub_2"},
        {"customer": "cus_2"},
        {"standing": Standing.STOPPED},
        {"status": "unpaid"},
        {"started_at": NOW},
        {"lines": (line("plain"),)},
        {"lines": (line("team", 2),)},
        {"lines": ()},
        {"collection_paused": True},
        {"period_end": NOW},
        {"trial_ends_at": NOW},
        {"closes_at": NOW},
        {"tenant": "t-1"},
        {"wishes": Wishes("acme", None)},
        {"domains": {"metadata.custom_domain": ""}},
        {"problem": "subscription.items: expected …"},
    ],
)
def test_whatever_else_changed_is_news(news: dict[str, Any]) -> None:
    known = contract(line("team"))
    assert not replace(known, **news).same_news(known)


@given(contracts)
def test_no_contract_raises(found: Contract) -> None:
    decide(found, CATALOGUE, platform_zone=ZONE, now=NOW)


# ------------------------------------------------------------------------------ by standing


def test_what_is_not_paid_yet_waits_whatever_it_is() -> None:
    waits = Wait("the first payment is still open (incomplete)")
    for lines in ([line("team")], [line("x")], [line("letter")], [line("projects")], []):
        assert decision(*lines, standing=Standing.PENDING, status="incomplete") == waits
    assert decision(standing=Standing.PENDING, status="incomplete", problem="subscription.items: …") == waits


@pytest.mark.parametrize("standing", [*PAYING, *NOT_PAYING])
@pytest.mark.parametrize(
    ("lines", "problem", "reason"),
    [
        ([line("team")], "subscription.items.data: expected …", "subscription.items.data: expected …"),
        ([], "subscription.items.data: expected …", "subscription.items.data: expected …"),
        ([line("letter")], "subscription.trial_end: expected …", "subscription.trial_end: expected …"),
        ([], None, "lines: expected one or more, got none"),
        ([line("x")], None, "x.price: expected a price of the catalogue, got 'price_x'"),
        (
            [line("x", key="gold")],
            None,
            "x.price: expected a price of the catalogue (lookup key 'gold'), got 'price_x'",
        ),
        ([line("x"), line("y")], None, "x.price: expected a price of the catalogue, got 'price_x'"),
        ([line("letter"), line("x")], None, "x.price: expected a price of the catalogue, got 'price_x'"),
        ([line("seats"), line("x")], None, "x.price: expected a price of the catalogue, got 'price_x'"),
        (
            [line("team"), line("plain")],
            None,
            "plain.price: expected no second plan beside team, got 'plain'",
        ),
        ([line("team"), line("team")], None, "team.price: expected no second plan beside team, got 'team'"),
    ],
)
def test_without_a_plan_who_pays_waits_for_a_person_and_who_does_not_is_turned(
    standing: Standing, lines: list[Line], problem: str | None, reason: str
) -> None:
    expected = Park(reason) if standing in PAYING else Turn(LIFECYCLE_OF_STANDING[standing], reason)
    assert decision(*lines, standing=standing, problem=problem) == expected


@pytest.mark.parametrize("standing", [*PAYING, *NOT_PAYING])
def test_a_standing_asks_for_a_lifecycle(standing: Standing) -> None:
    spec = applied(line("team", 4), standing=standing, status="word", closes_at=NOW + DAY).spec
    assert spec.lifecycle is LIFECYCLE_OF_STANDING[standing]
    assert (spec.plan, spec.subscription_status, spec.quantity) == ("team", "word", 4)
    assert (spec.closes_at, spec.grace_ends_at, spec.trial_ends_at) == (NOW + DAY, None, None)


# ------------------------------------------------------------------------------ what is not sold here


@pytest.mark.parametrize("standing", [*PAYING, *NOT_PAYING])
@pytest.mark.parametrize(
    "lines",
    [
        [line("letter")],
        [line("x", key="letter")],
        [line("x", product="prod_letter"), line("letter", problem="subscription.…quantity: expected …")],
    ],
)
def test_what_is_ignored_alone_is_ignored_in_any_standing(standing: Standing, lines: list[Line]) -> None:
    ignored = Ignore("nothing of it is sold here: the catalogue ignores it")
    assert decision(*lines, standing=standing) == ignored


def test_what_is_ignored_says_nothing_beside_what_is_sold() -> None:
    letter = line("letter", 9, problem="subscription.…quantity: expected …")
    for lines in ([line("team", 3), letter], [letter, line("team", 3)]):
        assert applied(*lines) == applied(line("team", 3))
    assert (
        decision(line("projects", 2), letter) == decision(letter, line("projects", 2)) == Add({"projects": 2})
    )


# ------------------------------------------------------------------------------ what a price is of


@pytest.mark.parametrize(
    "price",
    [
        "price_team",
        {"id": "price_team"},
        {"id": "price_new", "lookup_key": "team"},
        {"id": "price_adhoc", "product": "prod_team"},
        {"id": "price_adhoc", "product": {"id": "prod_team", "name": "Team"}},
        {"id": "price_archived", "active": False, "lookup_key": None, "product": "prod_team"},
        {"id": "price_moved", "lookup_key": "elsewhere", "product": "prod_team"},
        {"id": "price_team", "lookup_key": "projects", "product": "prod_letter"},
        {"id": "price_new", "lookup_key": "team", "product": "prod_projects"},
        {"id": "price_team", "product": {"name": "no id"}},
        {"id": "price_team", "product": 7},
    ],
)
def test_a_price_is_known_by_its_id_before_its_key_before_its_product(price: Any) -> None:
    """An ad-hoc price of a sale has its product alone, and so has one whose key went to another."""
    found = sold(item(price, 3))
    assert isinstance(found, Apply)
    assert (found.spec.plan, found.spec.quantity, found.warnings) == ("team", 3, ())


@pytest.mark.parametrize(
    "price",
    [
        {"id": "price_x", "product": "prod_x"},
        {"id": "price_x", "product": {"id": 7}},
        {"id": "price_x", "lookup_key": "", "product": None},
    ],
)
def test_a_price_of_which_nothing_is_known_is_told_by_its_id(price: Any) -> None:
    reason = "subscription.items.data[0].price: expected a price of the catalogue, got 'price_x'"
    assert sold(item(price)) == Park(reason)


def test_the_product_of_older_shapes_stands_in_the_plan() -> None:
    found = sold({"plan": {"id": "plan_adhoc", "product": "prod_team"}, "quantity": 2})
    assert isinstance(found, Apply)
    assert (found.spec.plan, found.spec.quantity) == ("team", 2)


# ------------------------------------------------------------------------------ add-ons


def test_add_ons_are_counted_by_name() -> None:
    spec = applied(line("projects", 2), line("team", 3), line("x", 4, key="projects"), line("seats", 0)).spec
    assert spec.addons == {"projects": 6, "seats": 0}


def test_seats_may_be_an_item_of_their_own() -> None:
    """Of which there may be several, and none of them is a number too."""
    team = line("team", 3)
    for lines, quantity, seats in [
        ([team, line("seats", 8)], 8, 8),
        ([line("seats", 8), team, line("guests", 2)], 10, 10),
        ([team, line("seats", 0)], 0, 0),
        ([team, line("projects", 8)], 3, None),
        ([team], 3, None),
    ]:
        found = applied(*lines)
        assert (found.spec.quantity, found.seats) == (quantity, seats)


def test_add_ons_alone_are_what_they_add_while_they_are_paid_for() -> None:
    lines = [line("projects", 2), line("seats", 8), line("guests", 1)]
    bought = {"projects": 2, "seats": 8, "guests": 1}
    for standing in PAYING:
        assert decision(*lines, standing=standing) == Add(bought, seats=9)
    for standing in NOT_PAYING:
        assert decision(*lines, standing=standing) == Add({}, seats=None)
    assert decision(line("projects")) == Add({"projects": 1}, seats=None)
    assert decision(line("seats", 0)) == Add({"seats": 0}, seats=0)


def test_the_quantity_of_an_item_that_is_not_known_need_not_be_read() -> None:
    unread = "subscription.items.data[1].quantity: expected a whole number, 0 to 2147483647, got 'many'"
    found = sold(item("price_team"), item("price_x", "many"))
    assert isinstance(found, Apply)
    assert found.warnings == (
        "subscription.items.data[1].price: expected a price of the catalogue, got 'price_x'",
    )
    assert isinstance(sold(item("price_team"), item("price_letter", "many")), Apply)
    assert sold(item("price_team"), item("price_projects", "many")) == Park(unread)
    assert sold(item("price_team"), item("price_projects", "many"), status="unpaid") == Turn(
        Lifecycle.SUSPENDED, unread
    )


# ------------------------------------------------------------------------------ trials, pauses and debts


def test_a_trial_may_be_of_another_plan() -> None:
    ends = NOW + 7 * DAY
    wished = {"metadata.custom_domains": "a.com,b.com"}
    trial = applied(line("team", 3), line("projects"), trial_ends_at=ends, domains=wished).spec
    assert (trial.plan, trial.trial_ends_at, trial.quantity) == ("trial", ends, 3)
    assert (trial.custom_domains, trial.addons) == (("a.com",), {"projects": 1})
    bought = applied(line("team", 3), domains=wished).spec
    assert (bought.plan, bought.trial_ends_at) == ("team", None)
    assert bought.custom_domains == ("a.com", "b.com")
    assert applied(line("plain"), trial_ends_at=ends).spec.plan == "plain"


@pytest.mark.parametrize(
    ("plan", "standing", "lifecycle"),
    [
        ("team", Standing.LIVE, Lifecycle.SUSPENDED),
        ("team", Standing.OVERDUE, Lifecycle.SUSPENDED),
        ("team", Standing.STOPPED, Lifecycle.SUSPENDED),
        ("team", Standing.ENDED, Lifecycle.CLOSED),
        ("plain", Standing.LIVE, Lifecycle.ACTIVE),
        ("plain", Standing.OVERDUE, Lifecycle.ACTIVE),
    ],
)
def test_paused_collection_suspends_where_the_plan_says_so(
    plan: str, standing: Standing, lifecycle: Lifecycle
) -> None:
    assert applied(line(plan), standing=standing, collection_paused=True).spec.lifecycle is lifecycle


def test_stripe_says_that_collection_is_paused_by_an_object() -> None:
    for pause in ({"behavior": "void"}, {}):
        found = contract_of({"id": "sub_1", "customer": "c", "status": "active", "pause_collection": pause})
        assert isinstance(found, Contract)
        assert found.collection_paused
    found = contract_of({"id": "sub_1", "customer": "c", "status": "active", "pause_collection": None})
    assert isinstance(found, Contract)
    assert not found.collection_paused


@pytest.mark.parametrize(
    ("days", "never_paid", "ends", "lifecycle"),
    [
        (0, False, 3, Lifecycle.ACTIVE),
        (2, False, 1, Lifecycle.ACTIVE),
        (3, False, 0, Lifecycle.SUSPENDED),
        (4, False, -1, Lifecycle.SUSPENDED),
        (0, True, 0, Lifecycle.SUSPENDED),
        (-1, True, 1, Lifecycle.ACTIVE),
    ],
)
def test_a_debt_has_the_grace_of_its_plan(
    days: int, never_paid: bool, ends: int, lifecycle: Lifecycle
) -> None:
    debt = {"overdue_since": NOW - days * DAY, "never_paid": never_paid}
    spec = applied(line("plain"), standing=Standing.OVERDUE, **debt).spec
    assert (spec.lifecycle, spec.grace_ends_at) == (lifecycle, NOW + ends * DAY)
    for standing in set(Standing) - {Standing.OVERDUE}:
        assert grace_ends_at(contract(standing=standing, **debt), CATALOGUE.plan("plain")) is None


def test_a_debt_of_the_last_day_has_an_end_too() -> None:
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    overdue = contract(standing=Standing.OVERDUE, overdue_since=last)
    assert grace_ends_at(overdue, CATALOGUE.plan("plain")) == last
    assert grace_ends_at(replace(overdue, overdue_since=None), CATALOGUE.plan("plain")) is None


# ------------------------------------------------------------------------------ wishes


def test_wishes_are_those_of_the_nearest_and_each_for_itself() -> None:
    near, far = Wishes("near", None), Wishes("far", "Far")
    assert near.over(far) == Wishes("near", "Far")
    assert far.over(near) == far
    assert NO_WISHES.over(near) == near.over(NO_WISHES) == near


def test_a_domain_that_can_not_be_used_is_told_once_as_it_was_written() -> None:
    long = "x" * 300
    wished = {
        "metadata.custom_domain": f"http://x, {long}",
        "metadata.custom_domains": "http://x,a.com,A.com.",
    }
    domains, warnings, refused = custom_domains(contract(domains=wished), CATALOGUE.plan("team"), ZONE)
    assert domains == ("a.com",)
    assert [warning.split(": expected")[0] for warning in warnings] == [
        "metadata.custom_domain: custom_domain",
        "metadata.custom_domain: custom_domain",
        "metadata.custom_domains: custom_domain",
    ]
    assert [each.host for each in refused] == ["http://x", "x" * 80]
    assert all(each.reason.startswith("can't be used: expected a host name") for each in refused)


def test_domains_beyond_the_plan_are_refused() -> None:
    wished = {"metadata.custom_domains": "a.com,b.com,c.com"}
    domains, warnings, refused = custom_domains(contract(domains=wished), CATALOGUE.plan("team"), ZONE)
    assert (domains, warnings) == (
        ("a.com", "b.com"),
        ("custom_domains: plan team allows 2, left out: c.com",),
    )
    assert refused == (RefusedDomain("c.com", "is one too many: plan team allows 2"),)
    assert custom_domains(contract(domains={"x": "a.com"}), CATALOGUE.plan("plain"), ZONE)[0] == ()
    assert custom_domains(contract(), CATALOGUE.plan("team"), ZONE) == ((), (), ())
