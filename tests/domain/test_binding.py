"""Which tenant a contract is for, and what a tenant should be by all of its contracts.

A customer's contracts and tenants are written in a line each: `paid("a", "team")` is a live contract for a
team plan that nobody has bound yet, `holder("t-1", "team")` a tenant of the same customer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.binding import Asked, Binding, Holder, Known, Verdict, bind
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.contract import NO_WISHES, Contract, ContractOutcome, Line, Standing, Wishes
from controlplane.domain.hold import Hold, HoldKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Lifecycle, TenantSpec

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
    custom_domains = 2
    dunning_grace_days = 14
"""
CATALOGUE = parse_catalogue(
    "version = 1\n"
    + "".join(
        f"[plans.{name}]\nprice_ids = ['price_{name}']\n{more}\n{CAPACITY}"
        for name, more in {
            "small": "",
            "team": "suspend_on_pause_collection = true",
            "big": "",
            "site": "family = 'sites'",
            "shop": "family = 'sites'",
            "lab": "family = 'labs'",
        }.items()
    )
    + """
    [families.sites]
    tenants = "many"
    [families.labs]
    tenants = "one"
    [addons.projects]
    price_ids = ["price_projects"]
    [addons.seats]
    price_ids = ["price_seats"]
    seats = true
    [ignore]
    price_ids = ["price_letter"]
    """,
    source="plans.toml",
)
OURS, OTHERS = "cus_1", "cus_2"


def line(bought: str | tuple[str, int]) -> Line:
    name, quantity = (bought, 1) if isinstance(bought, str) else bought
    return Line(f"price_{name}", None, None, quantity, f"{name}.")


STATUS = {
    Standing.PENDING: "incomplete",
    Standing.LIVE: "active",
    Standing.OVERDUE: "past_due",
    Standing.STOPPED: "unpaid",
    Standing.ENDED: "canceled",
}


def contract(
    name: str, *bought: str | tuple[str, int], standing: Standing = Standing.LIVE, day: int = 0, **more: Any
) -> Contract:
    """Started on `day`."""
    fields: dict[str, Any] = {
        "customer": OURS,
        "status": STATUS[standing],
        "started_at": NOW - 100 * DAY + day * DAY,
        "lines": tuple(line(each) for each in bought),
    } | more
    return Contract(id=name, standing=standing, **fields)


def paid(name: str, *bought: str | tuple[str, int], to: str | None = None, **more: Any) -> Known:
    """`to`: the tenant that it is bound to."""
    beside = {key: more.pop(key) for key in ("unread", "heard", "alone") if key in more}
    wishes = beside.pop("heard", Wishes())
    return Known(name, contract(name, *bought, **more), to, wishes=wishes, **beside)


def pending(name: str, *bought: Any, **more: Any) -> Known:
    return paid(name, *bought, standing=Standing.PENDING, **more)


def overdue(name: str, *bought: Any, days: int = 1, **more: Any) -> Known:
    return paid(name, *bought, standing=Standing.OVERDUE, overdue_since=NOW - days * DAY, **more)


def stopped(name: str, *bought: Any, **more: Any) -> Known:
    return paid(name, *bought, standing=Standing.STOPPED, **more)


def ended(name: str, *bought: Any, **more: Any) -> Known:
    return paid(name, *bought, standing=Standing.ENDED, **more)


def holder(name: str, plan: str = "team", lifecycle: Lifecycle = Lifecycle.ACTIVE, **more: Any) -> Holder:
    fields = {"slug": f"slug-of-{name}", "customer": OURS} | {
        key: more.pop(key) for key in ("slug", "customer", "gone", "others", "holds") if key in more
    }
    return Holder(id=name, spec=TenantSpec(lifecycle, plan, "active", **more), **fields)


def retained(name: str, plan: str = "team", **more: Any) -> Holder:
    return holder(name, plan, Lifecycle.CLOSED, **more)


def of(*known: Known | Holder, wishes: Wishes = NO_WISHES) -> Binding:
    return bind(
        OURS,
        [each for each in known if isinstance(each, Known)],
        [each for each in known if isinstance(each, Holder)],
        CATALOGUE,
        platform_zone=ZONE,
        now=NOW,
        wishes=wishes,
    )


def homes(binding: Binding) -> dict[str, str | None]:
    return {name: verdict.tenant_id for name, verdict in binding.verdicts.items()}


def only(binding: Binding) -> Asked:
    (asked,) = binding.tenants.values()
    return asked


APPLIED, WAITING, IGNORED, PARKED = (
    ContractOutcome.APPLIED,
    ContractOutcome.WAITING,
    ContractOutcome.IGNORED,
    ContractOutcome.PARKED,
)


def parked(binding: Binding, name: str) -> str:
    """Why, of one that waits for a person."""
    verdict = binding.verdicts[name]
    assert verdict.outcome is PARKED, verdict
    assert verdict.reason is not None
    return verdict.reason


# ------------------------------------------------------------------------------ founding


def test_a_new_contract_founds_a_tenant() -> None:
    new = paid("a", ("team", 3), closes_at=NOW + DAY, wishes=Wishes("acme", "Acme"))
    made = tenant_id_for("a")
    assert of(new) == Binding(
        {"a": Verdict(APPLIED, None, made)},
        {
            made: Asked(
                tenant_id=made,
                customer=OURS,
                spec=TenantSpec(Lifecycle.ACTIVE, "team", "active", 3, closes_at=NOW + DAY),
                wishes=Wishes("acme", "Acme"),
                warnings=(),
                refused=(),
                founder="a",
                doubled=(),
            )
        },
    )


def test_two_new_contracts_at_once_found_one_tenant_and_the_oldest_founds_it() -> None:
    binding = of(paid("a", "small", day=2), paid("b", "team", day=1), paid("c", "big", day=2))
    assert homes(binding) == dict.fromkeys("abc", tenant_id_for("b"))
    assert (only(binding).founder, only(binding).spec.plan) == ("b", "big")


def test_of_two_that_started_at_once_the_lesser_id_founds() -> None:
    binding = of(paid("b", "team"), paid("a", "team"))
    assert homes(binding) == dict.fromkeys("ab", tenant_id_for("a"))
    assert only(binding).founder == "a"


def test_where_a_family_has_many_each_contract_founds_its_own() -> None:
    binding = of(paid("a", "site"), paid("b", "shop"))
    assert homes(binding) == {"a": tenant_id_for("a"), "b": tenant_id_for("b")}
    assert [asked.doubled for asked in binding.tenants.values()] == [(), ()]


def test_each_family_has_tenants_of_its_own() -> None:
    binding = of(paid("a", "team"), paid("b", "lab"), paid("c", "site"))
    assert homes(binding) == {name: tenant_id_for(name) for name in "abc"}
    assert homes(of(paid("a", "lab"), holder("t-1", "team"), holder("t-2", "site"))) == {
        "a": tenant_id_for("a")
    }


def test_who_does_not_pay_from_the_start_is_founded_suspended() -> None:
    assert only(of(stopped("a", "team"))).spec.lifecycle is Lifecycle.SUSPENDED


@pytest.mark.parametrize(
    ("known", "outcome", "reason"),
    [
        (pending("a", "team"), WAITING, "the first payment is still open (incomplete)"),
        (ended("a", "team"), IGNORED, "it ended before it was ever provisioned"),
        (ended("a", "unknown"), IGNORED, "it ended before it was ever provisioned"),
        (ended("a", "projects"), IGNORED, "it ended before it was ever provisioned"),
        (paid("a", "letter"), IGNORED, "nothing of it is sold here: the catalogue ignores it"),
        (ended("a", "letter"), IGNORED, "nothing of it is sold here: the catalogue ignores it"),
        (paid("a", "projects"), IGNORED, "add-ons alone, and no tenant that they are for"),
        (
            paid("a", "unknown"),
            PARKED,
            "unknown.price: expected a price of the catalogue, got 'price_unknown'",
        ),
        (stopped("a", "unknown"), PARKED, "unknown.price: expected a price of the catalogue, got"),
        (Known("a", None), PARKED, "it was never read"),
        (Known("a", None, unread="subscription.id: expected …"), PARKED, "subscription.id: expected …"),
    ],
)
def test_what_founds_nothing_says_why(known: Known, outcome: ContractOutcome, reason: str) -> None:
    binding = of(known)
    verdict = binding.verdicts["a"]
    assert (verdict.outcome, verdict.tenant_id, binding.tenants) == (outcome, None, {})
    assert verdict.reason is not None
    assert verdict.reason.startswith(reason)


# ------------------------------------------------------------------------------ who returns, and upgrades


@pytest.mark.parametrize("plan", ["team", "big"])
def test_who_returns_finds_its_tenant(plan: str) -> None:
    binding = of(ended("a", "team", to="t-1"), paid("b", plan, day=9), retained("t-1"))
    assert homes(binding) == {"a": "t-1", "b": "t-1"}
    asked = only(binding)
    assert (asked.spec.lifecycle, asked.spec.plan, asked.founder) == (Lifecycle.ACTIVE, plan, None)
    assert asked.doubled == ()


@pytest.mark.parametrize("lifecycle", [Lifecycle.ACTIVE, Lifecycle.SUSPENDED])
def test_one_that_serves_comes_before_those_in_their_retention(lifecycle: Lifecycle) -> None:
    binding = of(paid("a", "team"), retained("t-1"), holder("t-2", "small", lifecycle), retained("t-3"))
    assert homes(binding) == {"a": "t-2"}


def test_where_one_is_allowed_and_several_are_there_nobody_can_tell() -> None:
    for holders in ([retained("t-2"), retained("t-1")], [holder("t-2"), holder("t-1"), retained("t-3")]):
        binding = of(paid("a", "team"), *holders)
        assert parked(binding, "a") == "cus_1 has several tenants that it may be for: t-1, t-2"


def test_where_many_are_allowed_who_returns_finds_the_one_that_nobody_pays_for() -> None:
    binding = of(
        ended("a", "site", to="t-1"),
        paid("b", "site", to="t-2"),
        paid("c", "shop", day=9),
        paid("d", "site"),
        retained("t-1", "site"),
        holder("t-2", "site"),
    )
    assert homes(binding) == {"a": "t-1", "b": "t-2", "c": tenant_id_for("c"), "d": "t-1"}


def test_where_many_are_allowed_one_that_is_paid_for_is_not_taken() -> None:
    """Its own contract returns to it at once with the new one's coming."""
    for first in (paid("a", "site", to="t-1"), stopped("a", "unknown", to="t-1")):
        assert homes(of(first, paid("b", "site"), retained("t-1", "site")))["b"] == tenant_id_for("b")
    addons = paid("a", "projects", to="t-1")
    assert homes(of(addons, paid("b", "site"), retained("t-1", "site")))["b"] == "t-1"
    ignored = paid("a", "letter", to="t-1")
    assert homes(of(ignored, paid("b", "site"), retained("t-1", "site")))["b"] == "t-1"


def test_where_many_are_allowed_and_several_wait_nobody_can_tell() -> None:
    binding = of(paid("a", "site"), retained("t-2", "site"), retained("t-1", "shop"), retained("t-3", "team"))
    assert parked(binding, "a") == "cus_1 has several tenants that it may be for: t-1, t-2"


def test_a_plan_that_has_left_the_catalogue_is_of_the_default_family() -> None:
    assert homes(of(paid("a", "team"), retained("t-1", "left"))) == {"a": "t-1"}
    assert homes(of(paid("a", "site"), retained("t-1", "left"))) == {"a": tenant_id_for("a")}


class Registry:
    """What is written of one customer, and each observation decided by it."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.holders: dict[str, Holder] = {}

    def observe(self, *contracts: Contract) -> Binding:
        for each in contracts:
            before = self.known.get(each.id) or Known(each.id, each)
            self.known[each.id] = replace(before, contract=each)
        binding = of(*self.known.values(), *self.holders.values())
        for name, verdict in binding.verdicts.items():
            self.known[name] = replace(self.known[name], tenant_id=verdict.tenant_id)
        for asked in binding.tenants.values():
            there = self.holders.get(asked.tenant_id) or Holder(
                asked.tenant_id, asked.tenant_id, OURS, asked.spec
            )
            self.holders[asked.tenant_id] = replace(there, spec=asked.spec)
        return binding


OLD, NEW = contract("old", "team"), contract("new", "big", day=50)
OVER = replace(OLD, standing=Standing.ENDED, status="canceled")


@pytest.mark.parametrize("observed", [[[NEW], [OVER]], [[OVER], [NEW]], [[NEW, OVER]]])
def test_an_upgrade_by_a_new_contract_keeps_the_tenant_in_any_order(observed: list[list[Contract]]) -> None:
    registry = Registry()
    registry.observe(OLD)
    for contracts in observed:
        binding = registry.observe(*contracts)
    asked = only(binding)
    assert asked.tenant_id == tenant_id_for("old")
    assert (asked.spec.lifecycle, asked.spec.plan, asked.doubled) == (Lifecycle.ACTIVE, "big", ())
    assert homes(binding) == {"old": asked.tenant_id, "new": asked.tenant_id}


def test_where_many_are_allowed_a_new_contract_beside_an_old_one_is_a_second_tenant() -> None:
    registry = Registry()
    registry.observe(contract("old", "site"))
    binding = registry.observe(contract("new", "shop", day=50))
    assert homes(binding) == {"old": tenant_id_for("old"), "new": tenant_id_for("new")}
    binding = registry.observe(contract("old", "site", standing=Standing.ENDED))
    assert binding.tenants[tenant_id_for("old")].spec.lifecycle is Lifecycle.CLOSED
    assert binding.tenants[tenant_id_for("new")].spec.lifecycle is Lifecycle.ACTIVE


def test_a_whole_life_in_one_tenant() -> None:
    registry, told = Registry(), []
    for observed in (
        contract("a", "team", standing=Standing.PENDING),
        contract("a", "team"),
        contract("a", "team", standing=Standing.OVERDUE, overdue_since=NOW - DAY),
        contract("a", "team", standing=Standing.STOPPED),
        contract("a", "team", standing=Standing.ENDED),
        contract("b", "big", day=50),
        contract("b", "big", day=50, standing=Standing.ENDED),
    ):
        binding = registry.observe(observed)
        told.append([(t.tenant_id, t.spec.lifecycle.value) for t in binding.tenants.values()])
    home = tenant_id_for("a")
    ways = ["active", "active", "suspended", "closed", "active", "closed"]
    assert told == [[], *([(home, way)] for way in ways)]


# ------------------------------------------------------------------------------ what a contract names


@pytest.mark.parametrize("named", ["t-2", "slug-of-t-2"])
@pytest.mark.parametrize("bought", ["team", "site", "projects"])
def test_a_contract_that_names_a_tenant_is_for_it(named: str, bought: str) -> None:
    """Whatever the family: a person has said so."""
    for second in (retained("t-2"), holder("t-2", "lab")):
        binding = of(paid("a", bought, tenant=named), holder("t-1"), second)
        assert homes(binding) == {"a": "t-2"}


@pytest.mark.parametrize(
    "named",
    ["t-9", "slug-of-t-9", "t-other", "slug-of-t-other", "t-gone", "slug-of-t-gone", "T-1", "x\0" * 90],
)
def test_one_that_names_what_its_customer_does_not_have_is_parked(named: str) -> None:
    binding = of(
        paid("a", "team", tenant=named),
        holder("t-1"),
        holder("t-other", customer=OTHERS),
        holder("t-gone", gone=True),
    )
    assert parked(binding, "a").startswith("metadata.tenant: expected a tenant of cus_1, got '")
    assert "\0" not in parked(binding, "a")
    assert len(parked(binding, "a")) < 600
    assert homes(binding) == {"a": None}


def test_a_binding_that_stands_outranks_what_is_named() -> None:
    assert homes(of(paid("a", "team", to="t-1", tenant="t-2"), holder("t-1"), holder("t-2"))) == {"a": "t-1"}


def test_another_customers_tenant_is_never_found() -> None:
    assert homes(of(paid("a", "team"), holder("t-1", customer=OTHERS))) == {"a": tenant_id_for("a")}
    assert homes(of(paid("a", "site"), retained("t-1", "site", customer=OTHERS))) == {"a": tenant_id_for("a")}


# ------------------------------------------------------------------------------ tenants that are gone


@pytest.mark.parametrize("plan", ["team", "site"])
def test_a_tenant_that_is_gone_is_never_found(plan: str) -> None:
    for gone in (holder("t-1", plan, gone=True), retained("t-1", plan, gone=True)):
        assert homes(of(paid("a", plan), gone)) == {"a": tenant_id_for("a")}


@pytest.mark.parametrize("make", [paid, overdue, stopped])
def test_who_pays_after_its_tenant_is_gone_has_another_made(make: Any) -> None:
    first, second = tenant_id_for("a"), tenant_id_for("a#2")
    binding = of(make("a", "team", to=first), retained(first, gone=True))
    assert homes(binding) == {"a": second}
    assert (only(binding).tenant_id, only(binding).founder) == (second, "a")
    again = of(make("a", "team", to=second), retained(first, gone=True), retained(second, gone=True))
    assert homes(again) == {"a": tenant_id_for("a#3")}
    assert len({first, second, tenant_id_for("a#3")}) == 3


def test_what_has_ended_stays_with_what_is_gone_and_asks_for_nothing() -> None:
    binding = of(ended("a", "team", to="t-1"), retained("t-1", gone=True))
    assert binding == Binding({"a": Verdict(APPLIED, None, "t-1")}, {})


def test_what_is_bound_to_a_tenant_that_is_not_there_is_bound_anew() -> None:
    assert homes(of(paid("a", "team", to="t-9"), holder("t-1"))) == {"a": "t-1"}


# ------------------------------------------------------------------------------ which one governs

RANKED = [
    [ended("a", "big"), stopped("b", "small")],
    [stopped("a", "big"), overdue("b", "small")],
    [overdue("a", "big"), paid("b", "small")],
    [overdue("a", "team", days=14), overdue("b", "small", days=13)],
    [paid("a", "team", collection_paused=True), overdue("b", "small")],
    [ended("a", "small"), ended("b", "team")],
    [ended("a", "unknown"), ended("b", "small")],
    [stopped("a", "unknown"), stopped("b", "small")],
    [stopped("a", "small"), stopped("b", "big")],
    [paid("a", "unknown"), paid("b", "small")],
    [paid("a", "small", day=9), paid("b", "team")],
    [paid("b", "small", day=1), paid("a", "small", day=2)],
    [overdue("b", "small", day=1), overdue("a", "small", day=2)],
    [paid("a", "small", day=1), paid("b", "small", day=1)],
]


@pytest.mark.parametrize(("lesser", "governing"), RANKED)
def test_of_two_contracts_one_governs(lesser: Known, governing: Known) -> None:
    """The better standing, then the higher plan, then the later start, then the id."""
    both = [replace(known, tenant_id="t-1") for known in (lesser, governing)]
    each: list[Known | Holder] = [*both, holder("t-1")]
    for order in permutations(each):
        asked = only(of(*order))
        alone = only(of(both[1], holder("t-1"))).spec
        assert asked.spec == alone
        assert asked.customer == OURS


def test_a_double_checkout_is_served_once_and_told_at_both() -> None:
    binding = of(paid("a", "team"), paid("b", "small"), overdue("c", "small"), stopped("d", "small"))
    doubled = "it is paid for by more than one contract: a, b, c"
    asked = only(binding)
    assert (asked.doubled, asked.warnings) == (("a", "b", "c"), (doubled,))
    reasons = {name: verdict.reason for name, verdict in binding.verdicts.items()}
    assert reasons == {"a": doubled, "b": doubled, "c": doubled, "d": None}


def test_a_contract_that_is_told_of_already_is_told_of_both() -> None:
    binding = of(paid("a", "team", "unknown"), paid("b", "team"))
    unknown = "unknown.price: expected a price of the catalogue, got 'price_unknown'"
    doubled = "it is paid for by more than one contract: a, b"
    assert binding.verdicts["a"].reason == f"{unknown}; {doubled}"
    assert binding.verdicts["b"].reason == doubled


def test_one_contract_alone_is_not_doubled() -> None:
    for beside in (ended("b", "team"), stopped("b", "team"), paid("b", "projects"), paid("b", "letter")):
        asked = only(of(paid("a", "team", to="t-1"), replace(beside, tenant_id="t-1"), holder("t-1")))
        assert (asked.doubled, asked.warnings) == ((), ())


def test_a_live_contract_whose_plan_nobody_knows_is_paid_for_too() -> None:
    binding = of(paid("a", "unknown", to="t-1"), paid("b", "small", to="t-1"), holder("t-1"))
    assert only(binding).doubled == ("a", "b")
    assert parked(binding, "a").startswith("unknown.price: expected a price of the catalogue")


# ------------------------------------------------------------------------------ no plan that could be applied

BEFORE: dict[str, Any] = {
    "quantity": 3,
    "custom_domains": ("a.com",),
    "addons": {"projects": 2},
    "trial_ends_at": NOW + DAY,
    "closes_at": NOW + 2 * DAY,
}


@pytest.mark.parametrize(
    ("make", "outcome", "lifecycle"),
    [
        (paid, PARKED, Lifecycle.ACTIVE),
        (stopped, APPLIED, Lifecycle.SUSPENDED),
        (ended, APPLIED, Lifecycle.CLOSED),
    ],
)
@pytest.mark.parametrize("before", Lifecycle)
def test_a_contract_without_a_plan_says_whether_it_is_served_and_the_rest_stays(
    make: Any, outcome: ContractOutcome, lifecycle: Lifecycle, before: Lifecycle
) -> None:
    known = make("a", "unknown", to="t-1", closes_at=NOW + DAY, domains={"metadata.custom_domain": "b.com"})
    binding = of(known, holder("t-1", "team", before, **BEFORE, grace_ends_at=NOW))
    assert binding.verdicts["a"].outcome is outcome
    assert (
        binding.verdicts["a"].reason
        == "unknown.price: expected a price of the catalogue, got 'price_unknown'"
    )
    assert only(binding).spec == TenantSpec(lifecycle, "team", known.contract.status, **BEFORE)


@pytest.mark.parametrize(("days", "lifecycle"), [(13, Lifecycle.ACTIVE), (14, Lifecycle.SUSPENDED)])
def test_the_grace_of_one_without_a_plan_is_that_of_the_plan_before(days: int, lifecycle: Lifecycle) -> None:
    known = overdue("a", "unknown", days=days, to="t-1")
    spec = only(of(known, holder("t-1"))).spec
    assert (spec.lifecycle, spec.grace_ends_at) == (lifecycle, NOW - days * DAY + 14 * DAY)
    spec = only(of(known, holder("t-1", "left"))).spec
    assert (spec.lifecycle, spec.grace_ends_at, spec.plan) == (Lifecycle.ACTIVE, None, "left")


def test_a_bound_contract_of_which_nothing_is_sold_any_more_is_parked_and_changes_nothing() -> None:
    binding = of(paid("a", "letter", to="t-1"), holder("t-1"))
    assert parked(binding, "a") == "nothing of it is sold here: the catalogue ignores it"
    assert (homes(binding), binding.tenants) == ({"a": "t-1"}, {})


def test_a_bound_contract_that_is_not_paid_yet_changes_nothing() -> None:
    binding = of(pending("a", "team", to="t-1"), holder("t-1"))
    assert (homes(binding), binding.tenants) == ({"a": "t-1"}, {})
    assert binding.verdicts["a"].reason == "the first payment is still open (incomplete)"
    beside = of(pending("a", "big", to="t-1"), stopped("b", "team", to="t-1"), holder("t-1"))
    assert (only(beside).spec.plan, only(beside).spec.lifecycle) == ("team", Lifecycle.SUSPENDED)


# ------------------------------------------------------------------------------ add-ons alone


def test_add_ons_alone_are_for_the_tenant_that_is_paid_for() -> None:
    team = paid("a", "team", ("projects", 2), to="t-1")
    more = paid("b", ("projects", 3), ("seats", 7), day=9)
    binding = of(team, more, holder("t-1"))
    assert homes(binding) == {"a": "t-1", "b": "t-1"}
    assert (only(binding).spec.addons, only(binding).spec.quantity) == ({"projects": 5, "seats": 7}, 7)
    assert only(binding).doubled == ()


def test_add_ons_of_several_contracts_are_added_up() -> None:
    adds = [paid("b", "projects"), paid("c", ("projects", 4)), paid("d", ("seats", 5))]
    for order in permutations([replace(each, tenant_id="t-1") for each in adds]):
        asked = only(of(paid("a", ("team", 2), to="t-1"), *order, holder("t-1")))
        assert (asked.spec.addons, asked.spec.quantity) == ({"projects": 5, "seats": 5}, 5)
        assert (asked.spec.plan, asked.doubled) == ("team", ())


def test_seats_of_several_contracts_are_added_up() -> None:
    for order in permutations([paid("b", ("seats", 3), to="t-1"), paid("c", ("seats", 5), to="t-1")]):
        assert only(of(paid("a", "team", to="t-1"), *order, holder("t-1"))).spec.quantity == 8
    own = paid("a", "team", ("seats", 4), to="t-1")
    assert only(of(own, paid("b", ("seats", 3), to="t-1"), holder("t-1"))).spec.quantity == 7


def test_add_ons_without_seats_leave_the_plans_quantity() -> None:
    assert only(of(paid("a", ("team", 2)), paid("b", "projects", to="t-9", day=9))).spec.quantity == 2


@pytest.mark.parametrize("make", [stopped, ended])
def test_add_ons_that_are_not_paid_for_add_nothing(make: Any) -> None:
    asked = only(of(paid("a", "team", to="t-1"), make("b", "projects", "seats", to="t-1"), holder("t-1")))
    assert (asked.spec.addons, asked.spec.quantity) == ({}, 1)


def test_an_unknown_item_among_add_ons_alone_is_parked() -> None:
    """Beside a plan it is a warning."""
    binding = of(paid("a", "team"), paid("b", "projects", "unknown", to="t-1"), holder("t-1"))
    assert parked(binding, "b").startswith("unknown.price: expected a price of the catalogue")


def test_add_ons_beside_several_tenants_are_parked() -> None:
    contracts = [paid("a", "site", to="t-2"), paid("b", "team", to="t-1")]
    two: list[Known | Holder] = [*contracts, holder("t-1"), holder("t-2", "site")]
    binding = of(*two, paid("c", "projects", day=9))
    assert parked(binding, "c") == "add-ons alone, and several tenants that they may be for: t-1, t-2"
    assert homes(of(*two, paid("c", "projects", day=9, tenant="t-2")))["c"] == "t-2"


@pytest.mark.parametrize("first", [ended("a", "team", to="t-1"), paid("a", "letter", to="t-1")])
def test_add_ons_alone_are_not_for_a_tenant_that_nobody_pays_for(first: Known) -> None:
    binding = of(first, paid("b", "projects", day=9), holder("t-1"))
    assert binding.verdicts["b"].outcome is IGNORED
    assert homes(binding)["b"] is None


def test_add_ons_that_a_tenant_is_left_with_do_not_keep_it() -> None:
    """Its plan's contract was bound to another tenant, or has lost its plan."""
    addons = paid("a", "projects", to="t-1")
    before: dict[str, Any] = {"custom_domains": ("a.com",), "quantity": 3}
    left = only(of(addons, holder("t-1", **before)))
    assert left == Asked(
        "t-1", OURS, TenantSpec(Lifecycle.CLOSED, "team", "active", **before), Wishes(), (), (), None, ()
    )
    assert only(of(holder("t-1"))).spec.lifecycle is Lifecycle.CLOSED
    assert of(addons, paid("b", "unknown"), holder("t-1")).tenants == {}, "it may be what that is for"
    assert of(addons, pending("b", "team", to="t-1"), holder("t-1")).tenants == {}
    assert only(of(ended("a", "projects", to="t-1"), holder("t-1"))).spec.lifecycle is Lifecycle.CLOSED


# ------------------------------------------------------------------------------ domains


def domains(known: Known, wished: str, field: str = "metadata.custom_domain") -> Known:
    assert known.contract is not None
    return replace(known, contract=replace(known.contract, domains={field: wished}))


def test_a_wish_for_domains_holds_until_one_that_governs_says_another() -> None:
    old = domains(ended("a", "team", to="t-1"), "a.com, http://x, b.com, c.com")
    silent = paid("b", "team", to="t-1", day=9)
    asked = only(of(old, silent, holder("t-1")))
    assert asked.spec.custom_domains == ("a.com", "b.com")
    assert [refused.host for refused in asked.refused] == ["http://x", "c.com"]
    assert [warning.split(":")[0] for warning in asked.warnings] == [
        "metadata.custom_domain",
        "custom_domains",
    ]
    asked = only(of(old, domains(silent, "d.com"), holder("t-1")))
    assert (asked.spec.custom_domains, asked.refused, asked.warnings) == (("d.com",), (), ())


def test_an_empty_wish_is_one_for_none() -> None:
    old = domains(ended("a", "team", to="t-1"), "a.com")
    assert only(of(old, domains(paid("b", "team", to="t-1"), ""), holder("t-1"))).spec.custom_domains == ()


def test_the_nearest_wish_is_that_of_the_next_in_rank() -> None:
    each: list[Known | Holder] = [
        domains(ended("a", "big", to="t-1"), "a.com"),
        domains(stopped("b", "small", to="t-1"), "b.com"),
        paid("c", "team", to="t-1"),
        holder("t-1"),
    ]
    for order in permutations(each):
        assert only(of(*order)).spec.custom_domains == ("b.com",)


def test_one_without_a_plan_asks_for_no_other_domains() -> None:
    old = domains(ended("a", "team", to="t-1"), "a.com")
    asked = only(of(old, paid("b", "unknown", to="t-1"), holder("t-1", custom_domains=("z.com",))))
    assert (asked.spec.custom_domains, asked.refused) == (("z.com",), ())


# ------------------------------------------------------------------------------ the end


def test_a_tenant_closes_when_all_of_its_contracts_have_ended() -> None:
    both = [ended("a", "team", to="t-1"), ended("b", "big", to="t-1")]
    assert only(of(*both, holder("t-1"))).spec.lifecycle is Lifecycle.CLOSED
    for one in (stopped("b", "big", to="t-1"), paid("b", "big", to="t-1"), overdue("b", "unknown", to="t-1")):
        assert only(of(both[0], one, holder("t-1"))).spec.lifecycle is not Lifecycle.CLOSED


SOON, LATER = NOW + DAY, NOW + 2 * DAY


@pytest.mark.parametrize(
    ("beside", "closes"),
    [
        (paid("b", "small", closes_at=LATER), LATER),
        (paid("b", "small"), None),
        (overdue("b", "small"), None),
        (ended("b", "small"), SOON),
        (stopped("b", "small"), SOON),
        (paid("b", "projects"), SOON),
    ],
)
def test_a_tenant_closes_with_the_last_contract_that_serves_it(
    beside: Known, closes: datetime | None
) -> None:
    first = paid("a", "team", to="t-1", closes_at=SOON)
    asked = only(of(first, replace(beside, tenant_id="t-1"), holder("t-1", closes_at=NOW)))
    assert asked.spec.closes_at == closes
    asked = only(of(paid("a", "team", to="t-1"), replace(beside, tenant_id="t-1"), holder("t-1")))
    assert asked.spec.closes_at is None


WAITS = [
    paid("b", "unknown"),
    overdue("b", "unknown"),
    paid("b", "site", "shop"),
    paid("b", "team", tenant="t-9"),
    paid("b", "team", problem="subscription.items.data: expected …"),
    Known("b", None, unread="subscription.status: expected …"),
]


@pytest.mark.parametrize("waits", WAITS)
@pytest.mark.parametrize("lifecycle", [Lifecycle.ACTIVE, Lifecycle.SUSPENDED])
def test_while_its_customer_pays_for_what_waits_for_a_person_an_open_tenant_stays_as_it_is(
    waits: Known, lifecycle: Lifecycle
) -> None:
    there = holder("t-1", "team", lifecycle, quantity=3, custom_domains=("a.com",), closes_at=SOON)
    for plan in ("big", "unknown"):
        binding = of(ended("a", plan, to="t-1"), waits, there)
        assert binding.verdicts["b"].outcome is PARKED
        assert only(binding).spec == there.spec


@pytest.mark.parametrize("waits", WAITS)
def test_what_is_closed_already_stays_closed_beside_it(waits: Known) -> None:
    binding = of(ended("a", "team", to="t-1"), waits, retained("t-1", closes_at=SOON))
    assert only(binding).spec == TenantSpec(Lifecycle.CLOSED, "team", "canceled")


@pytest.mark.parametrize(
    "other",
    [
        ended("b", "unknown"),
        ended("b", "team"),
        ended("b", "team", unread="unread"),
        paid("b", "letter"),
        paid("b", "projects"),
        pending("b", "team"),
        paid("b", "site"),
        paid("b", "letter", to="t-2"),
        paid("b", "unknown", to="t-2"),
    ],
)
def test_nothing_else_of_its_customer_keeps_a_tenant_open(other: Known) -> None:
    binding = of(ended("a", "team", to="t-1"), other, holder("t-1"), retained("t-2", "lab"))
    assert binding.tenants["t-1"].spec.lifecycle is Lifecycle.CLOSED


# ------------------------------------------------------------------------------ what could not be read


def test_a_bound_contract_that_can_not_be_read_now_holds_by_what_is_known_and_is_parked() -> None:
    for known in (paid, overdue, stopped, ended):
        now, then = (known("a", "team", to="t-1", unread=unread) for unread in ("unreadable", None))
        assert of(now, holder("t-1")).tenants == of(then, holder("t-1")).tenants
        assert of(now, holder("t-1")).verdicts == {"a": Verdict(PARKED, "unreadable", "t-1")}
        assert of(then, holder("t-1")).verdicts == {"a": Verdict(APPLIED, None, "t-1")}


def test_what_is_unreadable_is_told_before_what_it_was() -> None:
    for bought in ("unknown", "letter", "projects"):
        assert (
            parked(of(paid("a", bought, to="t-1", unread="unreadable"), holder("t-1")), "a") == "unreadable"
        )


# ------------------------------------------------------------------------------ other customers' contracts


def test_a_contract_of_another_customer_that_is_bound_here_counts_and_has_no_verdict() -> None:
    theirs = contract("z", "big", customer=OTHERS, closes_at=SOON)
    binding = of(ended("a", "team", to="t-1"), holder("t-1", others=(theirs,)))
    assert set(binding.verdicts) == {"a"}
    asked = only(binding)
    assert (asked.spec.plan, asked.spec.lifecycle, asked.customer) == ("big", Lifecycle.ACTIVE, OTHERS)
    assert asked.spec.closes_at == SOON
    beside = of(paid("a", "team", to="t-1"), holder("t-1", others=(theirs,)))
    assert only(beside).doubled == ("a", "z")
    assert beside.verdicts["a"].reason == "it is paid for by more than one contract: a, z"


def test_one_may_pay_for_anothers_tenant() -> None:
    """A person has bound it there."""
    over = contract("z", "team", customer=OTHERS, standing=Standing.ENDED)
    asked = only(of(paid("a", "small", to="t-1"), holder("t-1", customer=OTHERS, others=(over,))))
    assert (asked.customer, asked.spec.plan) == (OURS, "small")


def test_anothers_parked_contract_here_is_told_of_nowhere_and_keeps_only_its_own_open() -> None:
    theirs = contract("z", "unknown", customer=OTHERS)
    two = [ended("a", "team", to="t-1"), ended("b", "lab", to="t-2")]
    binding = of(*two, holder("t-1", others=(theirs,)), holder("t-2", "lab"))
    lifecycles = {name: asked.spec.lifecycle for name, asked in binding.tenants.items()}
    assert lifecycles == {"t-1": Lifecycle.ACTIVE, "t-2": Lifecycle.CLOSED}
    assert {verdict.outcome for verdict in binding.verdicts.values()} == {APPLIED}


def test_anothers_tenant_that_one_pays_for_is_not_where_ones_add_ons_go() -> None:
    binding = of(paid("a", "team", to="t-1"), paid("b", "projects", day=9), holder("t-1", customer=OTHERS))
    assert binding.verdicts["b"].outcome is IGNORED


# ------------------------------------------------------------------------------ a person's word


def test_a_contract_that_is_to_stand_alone_founds_a_tenant_whatever_is_there() -> None:
    for plan, there in (("team", [holder("t-1")]), ("team", [retained("t-1"), retained("t-2")])):
        assert homes(of(paid("a", plan, alone=True), *there)) == {"a": tenant_id_for("a")}
    assert homes(of(paid("a", "site", alone=True), retained("t-1", "site"))) == {"a": tenant_id_for("a")}
    assert homes(of(paid("a", "team", alone=True, tenant="t-1"), holder("t-1"))) == {"a": "t-1"}
    assert homes(of(paid("a", "team", alone=True, to="t-1"), holder("t-1"))) == {"a": "t-1"}
    assert homes(of(pending("a", "team", alone=True), holder("t-1"))) == {"a": None}


SUSPEND, SERVE, FREEZE = Hold(HoldKind.SUSPEND), Hold(HoldKind.SERVE), Hold(HoldKind.FREEZE)
ACTIVE, SUSPENDED, CLOSED = Lifecycle.ACTIVE, Lifecycle.SUSPENDED, Lifecycle.CLOSED


@pytest.mark.parametrize(
    ("holds", "live", "unpaid", "over"),
    [
        ([], ACTIVE, SUSPENDED, CLOSED),
        ([FREEZE], ACTIVE, SUSPENDED, CLOSED),
        ([SUSPEND], SUSPENDED, SUSPENDED, CLOSED),
        ([SERVE], ACTIVE, ACTIVE, ACTIVE),
        ([SERVE, SUSPEND], SUSPENDED, SUSPENDED, SUSPENDED),
    ],
)
@pytest.mark.parametrize("plan", ["team", "unknown"])
def test_an_operators_word_stands_over_what_the_contracts_say(
    holds: list[Hold], live: Lifecycle, unpaid: Lifecycle, over: Lifecycle, plan: str
) -> None:
    """That nobody is served outranks that somebody is."""
    for make, lifecycle in ((paid, live), (stopped, unpaid), (ended, over)):
        for held in permutations(holds):
            there = holder("t-1", holds=held)
            binding = of(make("a", plan, to="t-1"), there)
            without = of(make("a", plan, to="t-1"), holder("t-1"))
            expected = replace(only(without), spec=only(without).spec.with_lifecycle(lifecycle))
            assert only(binding) == expected
            assert binding.verdicts == without.verdicts


def test_an_operator_may_give_another_plan_than_is_paid_for() -> None:
    wished = paid(
        "a", ("team", 3), "projects", to="t-1", domains={"metadata.custom_domain": "a.com,b.com,c.com"}
    )
    given = Hold(HoldKind.PLAN, "big")
    without = only(of(wished, holder("t-1")))
    for holds in ([given], [FREEZE, given], [Hold(HoldKind.PLAN, "left"), given]):
        asked = only(of(wished, holder("t-1", holds=tuple(holds))))
        assert asked.spec == replace(without.spec, plan="big")
        assert [str(refused) for refused in asked.refused] == [
            "custom domain c.com is one too many: plan big allows 2"
        ]
    for holds in ([Hold(HoldKind.PLAN, "team")], [Hold(HoldKind.PLAN, "left")], [FREEZE]):
        assert only(of(wished, holder("t-1", holds=tuple(holds)))) == without


def test_the_plan_that_is_given_is_not_what_a_family_is_known_by() -> None:
    given = holder("t-1", "site", holds=(Hold(HoldKind.PLAN, "site"),))
    assert homes(of(paid("a", "team", to="t-1"), paid("b", "team"), given)) == {"a": "t-1", "b": "t-1"}


# ------------------------------------------------------------------------------ names

LENT = Wishes("of-customer", "Customer")


def test_a_name_comes_from_the_nearest() -> None:
    """The governing contract, what was wished for beside it, its customer, then the other contracts."""
    first = paid(
        "a", "team", to="t-1", wishes=Wishes(None, "Contract"), heard=Wishes("of-session", "Session")
    )
    other = stopped("b", "team", to="t-1", wishes=Wishes("of-other", "Other"))
    there = holder("t-1")
    assert only(of(first, other, there, wishes=LENT)).wishes == Wishes("of-session", "Contract")
    bare = paid("a", "team", to="t-1")
    assert only(of(bare, other, there, wishes=LENT)).wishes == LENT
    assert only(of(bare, other, there, wishes=Wishes(None, "Customer"))).wishes == Wishes(
        "of-other", "Customer"
    )
    assert only(of(bare, there)).wishes == Wishes()


def test_the_customers_own_name_is_lent_to_no_one_elses_contract() -> None:
    theirs = contract("z", "big", customer=OTHERS)
    own = paid("a", "team", to="t-1", wishes=Wishes("of-own", None))
    asked = only(of(own, holder("t-1", others=(theirs,)), wishes=LENT))
    assert asked.wishes == Wishes("of-own", None)


# ------------------------------------------------------------------------------ cases that are easily
# forgotten


def test_one_that_was_never_read_keeps_its_binding() -> None:
    assert homes(of(Known("a", None, "t-1"), holder("t-1"))) == {"a": "t-1"}


@pytest.mark.parametrize("bought", ["projects", "seats"])
def test_add_ons_that_are_older_than_the_plan_beside_them_are_for_its_tenant(bought: str) -> None:
    binding = of(paid("a", bought, day=1), paid("b", "team", day=2))
    assert homes(binding) == dict.fromkeys("ab", tenant_id_for("b"))


def test_what_is_named_is_bound_before_what_names_nothing() -> None:
    """Else the first waits for a person, and is bound by itself as soon as anything is decided again."""
    many = of(
        paid("a", "site", day=1),
        paid("b", "site", day=2, tenant="t-1"),
        retained("t-1", "site"),
        retained("t-2", "site"),
    )
    assert homes(many) == {"a": "t-2", "b": "t-1"}
    one = of(
        paid("a", "team", day=1), paid("b", "team", day=2, tenant="t-1"), retained("t-1"), retained("t-2")
    )
    assert homes(one) == {"a": "t-1", "b": "t-1"}


def test_a_tenant_is_open_where_its_contracts_open_it() -> None:
    """The spec is what was decided before."""
    binding = of(paid("a", "team", to="t-1"), paid("b", "team"), retained("t-1"), retained("t-2"))
    assert homes(binding) == {"a": "t-1", "b": "t-1"}


def test_where_many_are_allowed_the_cancellation_may_come_with_the_new_contract() -> None:
    """Or before it: with the same end (I12)."""
    cancelled = contract("old", "site", standing=Standing.ENDED)
    both, one_by_one = Registry(), Registry()
    for registry in (both, one_by_one):
        registry.observe(contract("old", "site"))
    one_by_one.observe(cancelled)
    after = one_by_one.observe(contract("new", "shop", day=50))
    assert homes(both.observe(cancelled, contract("new", "shop", day=50))) == homes(after)


def test_a_tenants_family_is_that_of_the_plan_that_governs_it_now() -> None:
    """Its own contract has left the family, so what is new there does not come to it."""
    binding = of(paid("a", "site", to="t-1"), paid("b", "team"), holder("t-1", "team"))
    assert homes(binding) == {"a": "t-1", "b": tenant_id_for("b")}


def test_add_ons_beside_the_plan_of_another_contract_are_added_too() -> None:
    """Of the double checkout both are paid for. The module says: add-ons of the others are added to it."""
    asked = only(of(paid("a", "team", "projects"), paid("b", "small", ("projects", 2))))
    assert asked.spec.addons == {"projects": 3}


def test_a_bound_contract_that_is_not_paid_yet_is_waiting() -> None:
    assert of(pending("a", "team", to="t-1"), holder("t-1")).verdicts["a"].outcome is WAITING


def test_a_contract_that_can_not_be_read_now_is_parked_where_it_has_no_tenant_too() -> None:
    assert parked(of(pending("a", "team", unread="unreadable")), "a") == "unreadable"


def test_add_ons_of_a_tenant_that_is_gone_are_for_the_next_one() -> None:
    addons = paid("a", "projects", to="t-1")
    binding = of(addons, paid("b", "team", to="t-2"), retained("t-1", gone=True), holder("t-2"))
    assert homes(binding) == {"a": "t-2", "b": "t-2"}


def test_who_is_out_of_grace_is_not_served_by_a_plan_that_nobody_knows() -> None:
    out = overdue("a", "unknown", days=14, to="t-1")
    binding = of(out, overdue("b", "small", to="t-1"), holder("t-1"))
    assert only(binding).doubled == ()


def test_the_plan_before_says_whether_paused_collection_suspends() -> None:
    paused = paid("a", "unknown", to="t-1", collection_paused=True)
    assert only(of(paused, holder("t-1", "team", Lifecycle.SUSPENDED))).spec.lifecycle is Lifecycle.SUSPENDED


@pytest.mark.parametrize("make", [stopped, overdue])
def test_what_is_suspended_keeps_the_day_for_which_it_was_cancelled(make: Any) -> None:
    more = {"days": 20} if make is overdue else {}
    assert only(of(make("a", "team", to="t-1", closes_at=SOON, **more), holder("t-1"))).spec.closes_at == SOON


def test_a_contract_that_is_not_paid_keeps_no_tenant_open_that_it_is_not_bound_to() -> None:
    """`while its customer pays for something`: it does not."""
    binding = of(ended("a", "team", to="t-1"), stopped("b", "unknown"), holder("t-1"))
    assert only(binding).spec.lifecycle is Lifecycle.CLOSED


# ------------------------------------------------------------------------------ what is not so yet


@pytest.mark.parametrize("beside", [[], [ended("b", "team", to="t-1")], [paid("b", "projects", to="t-1")]])
def test_a_tenant_that_one_which_was_never_read_is_bound_to_does_not_close(beside: list[Known]) -> None:
    """Somebody has bound it there, and it may be paid for (I14)."""
    binding = of(Known("a", None, "t-1"), *beside, holder("t-1"))
    assert all(asked.spec.lifecycle is ACTIVE for asked in binding.tenants.values())


@pytest.mark.parametrize("first", [Known("a", None, "t-1"), paid("a", "letter", to="t-1")])
def test_where_many_are_allowed_one_that_a_parked_contract_is_bound_to_is_not_taken(first: Known) -> None:
    assert homes(of(first, paid("b", "site"), holder("t-1", "site")))["b"] == tenant_id_for("b")


@pytest.mark.parametrize("first", [paid("a", "projects", to="t-1"), ended("a", "letter", to="t-1")])
def test_where_many_are_allowed_one_that_nothing_keeps_is_taken_before_it_has_closed(first: Known) -> None:
    assert homes(of(first, paid("b", "site"), holder("t-1", "site")))["b"] == "t-1"


def test_where_one_is_allowed_one_that_closes_now_is_as_one_that_has_closed() -> None:
    """Whether its end was observed before, or with what is new (I12)."""
    new, over = paid("b", "team", day=9), ended("a", "team", to="t-1")
    before = of(new, over, retained("t-1"), retained("t-2"))
    assert homes(of(new, over, holder("t-1"), retained("t-2"))) == homes(before)


def test_what_a_parked_contract_is_worth_hangs_on_the_plan_that_is_served_and_not_on_the_one_before() -> None:
    """The plan before suspends where collection is paused, the one that governs now does not."""
    paused = paid("a", "unknown", to="t-1", collection_paused=True)
    both = [paused, paid("b", "small", to="t-1")]
    assert only(of(*both, holder("t-1", "team"))) == only(of(*both, holder("t-1", "small")))


def test_who_is_served_by_an_operators_word_is_not_closed_for_want_of_a_contract() -> None:
    for addons in ([], [paid("a", "projects", to="t-1")]):
        tenants = of(*addons, holder("t-1", holds=(SERVE,))).tenants
        assert all(asked.spec.lifecycle is ACTIVE for asked in tenants.values())


def test_what_the_plan_that_is_paid_for_would_refuse_is_no_warning_beside_the_one_that_is_given() -> None:
    wished = paid("a", "small", to="t-1", domains={"metadata.custom_domain": "a.com,b.com,c.com"})
    asked = only(of(wished, holder("t-1", holds=(Hold(HoldKind.PLAN, "big"),))))
    assert asked.warnings == ("custom_domains: plan big allows 2, left out: c.com",)


# ------------------------------------------------------------------------------ for any customer

Basket = tuple[str | tuple[str, int], ...]
ADDONS: list[Basket] = [("projects",), (("seats", 3),), (("seats", 5), "projects")]
PLANS_OR_NONE: list[Basket] = [
    *((plan,) for plan in CATALOGUE.plans),
    *(("team", "projects"), ("small", ("seats", 2)), ("site", "unknown"), ("team", "site"), ()),
    *(("letter",), ("unknown",)),
]
WISHED = [{}, {}, {"metadata.custom_domain": ""}, {"metadata.custom_domain": "a.com"}]


def any_contract(name: str, baskets: Sequence[Basket]) -> st.SearchStrategy[Contract]:
    return st.builds(
        lambda bought, standing, day, **more: contract(name, *bought, standing=standing, day=day, **more),
        st.sampled_from(baskets),
        st.sampled_from([*[Standing.LIVE] * 3, *Standing]),
        st.integers(0, 3),
        overdue_since=st.sampled_from([None, NOW - DAY, NOW - 30 * DAY]),
        collection_paused=st.booleans(),
        closes_at=st.sampled_from([None, SOON, LATER]),
        domains=st.sampled_from(WISHED),
    )


@st.composite
def customers(draw: st.DrawFn) -> list[Known | Holder]:
    holders = [
        holder(
            name,
            draw(st.sampled_from(["small", "team", "site", "shop", "lab", "left"])),
            draw(st.sampled_from(Lifecycle)),
            customer=draw(st.sampled_from([OURS, OURS, OURS, OTHERS])),
            gone=draw(st.sampled_from([False, False, False, True])),
        )
        for name in ["t-1", "t-2", "t-3"][: draw(st.integers(0, 3))]
    ]
    known = []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        read = replace(
            draw(any_contract(name, [*PLANS_OR_NONE, *ADDONS])),
            tenant=draw(st.sampled_from([*[None] * 5, "t-1", "t-2", "slug-of-t-1", "t-9"])),
        )
        bound = draw(st.sampled_from([None, None, *(each.id for each in holders)]))
        unread = draw(st.sampled_from([None, None, None, "unreadable"]))
        if draw(st.integers(0, 9)) == 0:
            known.append(Known(name, None, unread=unread))
        else:
            known.append(Known(name, read, bound, unread))
    return [*known, *holders]


def plan_is_known(each: Known) -> bool:
    return each.contract is not None and any(
        line.price.removeprefix("price_") in CATALOGUE.plans for line in each.contract.lines
    )


@settings(max_examples=200)
@given(customers(), st.integers(0, 99))
def test_the_order_in_which_they_are_given_says_nothing(customer: list[Known | Holder], seed: int) -> None:
    assert of(*Random(seed).sample(customer, len(customer))) == of(*customer)


@settings(max_examples=200)
@given(customers())
def test_a_binding_that_stands_never_changes(customer: list[Known | Holder]) -> None:
    there = {each.id for each in customer if isinstance(each, Holder) and not each.gone}
    found = homes(of(*customer))
    for known in customer:
        if isinstance(known, Known) and known.tenant_id in there:
            assert found[known.id] == known.tenant_id


@settings(max_examples=200)
@given(customers())
def test_every_contract_has_a_verdict_and_is_bound_to_nothing_that_is_gone_but_where_it_ended(
    customer: list[Known | Holder],
) -> None:
    binding = of(*customer)
    known = {each.id: each for each in customer if isinstance(each, Known)}
    gone = {each.id for each in customer if isinstance(each, Holder) and each.gone}
    assert set(binding.verdicts) == set(known)
    assert not gone & set(binding.tenants)
    for name, verdict in binding.verdicts.items():
        if verdict.tenant_id in gone:
            assert known[name].tenant_id == verdict.tenant_id


@settings(max_examples=200)
@given(customers())
def test_who_pays_for_a_plan_is_served_or_waits_for_a_person_and_keeps_what_is_open(
    customer: list[Known | Holder],
) -> None:
    binding = of(*customer)
    served = {name for name, asked in binding.tenants.items() if asked.spec.lifecycle is not Lifecycle.CLOSED}
    for known in customer:
        if not isinstance(known, Known) or known.contract is None or not plan_is_known(known):
            continue
        if known.contract.standing is not Standing.LIVE:
            continue
        verdict = binding.verdicts[known.id]
        if verdict.tenant_id is not None:
            assert verdict.tenant_id in served
            continue
        assert verdict.outcome is PARKED
        for each in customer:
            if isinstance(each, Holder) and not each.gone and each.spec.lifecycle is not Lifecycle.CLOSED:
                assert each.id in served or each.id not in binding.tenants


@st.composite
def observations(draw: st.DrawFn) -> list[Contract]:
    """Of three contracts for plans and one for add-ons, one after the other; each may have changed."""
    each = st.sampled_from("abc").flatmap(lambda name: any_contract(name, PLANS_OR_NONE))
    return draw(st.lists(each | any_contract("d", ADDONS), min_size=1, max_size=8))


@settings(max_examples=200)
@given(observations())
def test_what_is_decided_is_decided_once(observed: list[Contract]) -> None:
    registry = Registry()
    for each in observed:
        first = registry.observe(each)
        again = registry.observe()
        assert again.verdicts == first.verdicts
        assert {name: asked.spec for name, asked in again.tenants.items()} == {
            name: asked.spec for name, asked in first.tenants.items()
        }
