import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import controlplane
from controlplane.domain.catalogue import (
    DEFAULT_FAMILY,
    Addon,
    Catalogue,
    CatalogueError,
    Ignored,
    Isolation,
    Plan,
    PoolLimits,
    Tenants,
    parse_catalogue,
)
from controlplane.domain.errors import NotFound, Refused

PLAN: dict[str, Any] = {
    "isolation": '"dedicated"',
    "lookup_keys": '["team"]',
    "min_acu": "0.5",
    "max_acu": "4",
    "backup_retention_days": "7",
    "pool_size": "5",
    "connection_limit": "20",
    "retention_days": "30",
}
SHARED = {"isolation": '"shared"', "slots": "10"}
PAUSING = {"min_acu": "0", "seconds_until_auto_pause": "300"}


def plan_text(name: str = "team", **changes: str | None) -> str:
    """A good plan with some fields changed; None leaves a field out."""
    fields = {key: value for key, value in (PLAN | changes).items() if value is not None}
    return f"[plans.{name}]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())


def parse(*parts: str) -> Catalogue:
    return parse_catalogue("version = 1\n" + "\n".join(parts), source="plans.toml")


def errors_of(*parts: str) -> tuple[str, ...]:
    with pytest.raises(CatalogueError) as caught:
        parse(*parts)
    return caught.value.errors


# ------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("name", [f.name for f in fields(Plan) if f.name != "name"])
def test_every_field_of_a_plan_is_read(name: str) -> None:
    """One that nobody reads would be accepted whatever it holds, and do nothing."""
    if name == "limits":
        errors = errors_of(plan_text(), '[plans.team.limits]\nseats = "many"')
    else:
        errors = errors_of(plan_text(**{name: "[{}]"}))
    assert any(name in error for error in errors)


def test_a_dedicated_plan() -> None:
    text = plan_text(
        **PAUSING,
        price_ids='["price_1", "price_2"]',
        instance_count="2",
        custom_domains="3",
        snapshot_before_migration="true",
    )
    assert parse(text, "[plans.team.limits]\nseats = 5").plan("team") == Plan(
        name="team",
        isolation=Isolation.DEDICATED,
        min_acu=0.0,
        max_acu=4.0,
        backup_retention_days=7,
        pool_size=5,
        connection_limit=20,
        retention_days=30,
        price_ids=("price_1", "price_2"),
        lookup_keys=("team",),
        seconds_until_auto_pause=300,
        instance_count=2,
        slots=1,
        custom_domains=3,
        snapshot_before_migration=True,
        limits={"seats": 5},
    )


def test_a_shared_plan_has_slots_and_the_rest_by_default() -> None:
    plan = parse(plan_text(**SHARED)).plan("team")
    assert (plan.isolation, plan.slots) == (Isolation.SHARED, 10)
    assert plan.seconds_until_auto_pause is None
    assert (plan.instance_count, plan.custom_domains, plan.snapshot_before_migration) == (1, 0, False)
    assert plan.limits == {}


def test_prices_are_found_by_id_by_lookup_key_and_by_product() -> None:
    catalogue = parse(
        plan_text("team", price_ids='["price_1"]'),
        plan_text("big", lookup_keys='["big"]', product_ids='["prod_big"]'),
        '[addons.support]\nprice_ids = ["price_9"]\nlookup_keys = ["support"]\nproduct_ids = ["prod_9"]',
        '[ignore]\nprice_ids = ["price_x"]\nlookup_keys = ["letter"]\nproduct_ids = ["prod_x"]',
    )
    team, big, support = catalogue.plan("team"), catalogue.plan("big"), catalogue.addons["support"]
    assert catalogue.sold("price_1", None) == team
    assert catalogue.sold("price_7", "big") == catalogue.sold("price_7", None, "prod_big") == big
    assert catalogue.sold("price_9", None) == catalogue.sold("price_7", "support") == support
    assert catalogue.sold("price_7", None, "prod_9") == support
    assert support == Addon("support", ("price_9",), ("support",), ("prod_9",))
    ignored = Ignored(("price_x",), ("letter",), ("prod_x",))
    assert catalogue.sold("price_x", None) == catalogue.sold("price_7", "letter") == ignored
    assert catalogue.sold("price_7", None, "prod_x") == catalogue.ignored == ignored
    assert catalogue.sold("price_7", "none", "prod_none") is None
    assert catalogue.sold("price_7", None) is None


def test_a_price_id_outranks_a_lookup_key_and_that_a_product() -> None:
    catalogue = parse(
        "[ignore]\nproduct_ids = ['prod_1']",
        "[addons.support]\nlookup_keys = ['support']",
        plan_text(price_ids="['price_1']", lookup_keys="[]"),
    )
    assert catalogue.sold("price_1", "support", "prod_1") == catalogue.plan("team")
    assert catalogue.sold("price_7", "support", "prod_1") == catalogue.addons["support"]
    assert catalogue.sold("price_7", "gone", "prod_1") == catalogue.ignored


def test_a_plan_has_a_family_and_a_family_one_tenant_a_customer_or_many() -> None:
    catalogue = parse(
        plan_text(),
        plan_text("site", lookup_keys='["site"]', family='"sites"'),
        plan_text("lab", lookup_keys='["lab"]', family='"labs"'),
        '[families.sites]\ntenants = "many"\n[families.labs]\ntenants = "one"',
    )
    families = {"team": DEFAULT_FAMILY, "site": "sites", "lab": "labs", "left": DEFAULT_FAMILY}
    assert {name: catalogue.family(name) for name in families} == families
    numbers = {DEFAULT_FAMILY: Tenants.ONE, "sites": Tenants.MANY, "labs": Tenants.ONE, "left": Tenants.ONE}
    assert {name: catalogue.tenants_of(name) for name in numbers} == numbers


def test_the_family_of_plans_that_name_none_may_have_many() -> None:
    catalogue = parse(plan_text(), '[families.default]\ntenants = "many"')
    assert catalogue.tenants_of(catalogue.family("team")) is Tenants.MANY


def test_a_plan_is_higher_than_those_before_it() -> None:
    catalogue = parse(plan_text("team"), plan_text("big", lookup_keys='["big"]'))
    assert [catalogue.rank(name) for name in ("left", "team", "big")] == [-1, 0, 1]


def test_add_ons_add_to_the_limits_of_a_plan() -> None:
    catalogue = parse(
        plan_text(limits="{ projects = 10, users = 5 }"),
        '[addons.projects]\nlookup_keys = ["p"]\nlimits = { projects = 50 }',
        '[addons.all]\nlookup_keys = ["a"]\nlimits = { projects = 1, users = 2, rows = 3 }',
        '[addons.seats]\nlookup_keys = ["s"]\nseats = true',
    )
    assert catalogue.limits("team", {}) == {"projects": 10, "users": 5}
    bought = {"projects": 2, "all": 3, "seats": 9, "left": 9}
    assert catalogue.limits("team", bought) == {"projects": 113, "users": 11, "rows": 9}
    assert catalogue.limits("left", {"projects": 2}) == {"projects": 100}
    assert catalogue.limits("team", {"projects": 2**53}) == {"projects": 2**53 - 1, "users": 5}
    assert catalogue.plan("team").limits == {"projects": 10, "users": 5}, "and leave them as they are"
    assert [catalogue.addons[name].seats for name in ("projects", "seats")] == [False, True]


def test_a_plan_may_name_another_for_its_trial_and_say_that_a_pause_suspends() -> None:
    catalogue = parse(
        plan_text(trial_plan='"trial"', suspend_on_pause_collection="true"),
        plan_text("trial", lookup_keys='["trial"]'),
    )
    team, trial = catalogue.plan("team"), catalogue.plan("trial")
    assert (team.trial_plan, team.suspend_on_pause_collection) == ("trial", True)
    assert (trial.trial_plan, trial.suspend_on_pause_collection) == (None, False)


def test_a_trial_is_of_the_family_of_its_plan() -> None:
    """Else the tenant would leave its family when it is bought."""
    sites = plan_text(trial_plan='"trial"', family='"sites"') + "[families.sites]\ntenants = 'many'"
    (error,) = errors_of(sites, plan_text("trial", lookup_keys="['trial']"))
    assert "plans.team.trial_plan: expected a plan of this file and of its family, got 'trial'" in error
    parse(sites, plan_text("trial", lookup_keys="['trial']", family='"sites"'))


def test_an_unknown_plan_is_not_found_and_the_known_are_named() -> None:
    with pytest.raises(NotFound, match=r"plan: 'gold' .*\(team\)"):
        parse(plan_text()).plan("gold")


def test_the_catalogue_that_ships_is_good() -> None:
    path = Path(controlplane.__file__).with_name("plans.toml")
    catalogue = parse_catalogue(path.read_text(encoding="utf-8"), source=path.name)
    assert {plan.isolation for plan in catalogue.plans.values()} == set(Isolation)


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"isolation": None}, 'isolation: expected "dedicated" or "shared"'),
        ({"isolation": '"Shared"'}, 'isolation: expected "dedicated" or "shared", got \'Shared\''),
        ({"isolation": "[]"}, 'isolation: expected "dedicated" or "shared", got a list'),
        ({"max_acu": None}, "max_acu: expected 1 to 256 in steps of 0.5"),
        ({"max_acu": "true"}, "max_acu: expected 1 to 256 in steps of 0.5, got true"),
        ({"max_acu": '"4"'}, "max_acu: expected 1 to 256 in steps of 0.5, got '4'"),
        ({"max_acu": "0.5"}, "max_acu: expected 1 to 256 in steps of 0.5, got 0.5"),
        ({"max_acu": "256.5"}, "max_acu: expected 1 to 256 in steps of 0.5, got 256.5"),
        ({"max_acu": "1.25"}, "max_acu: expected 1 to 256 in steps of 0.5, got 1.25"),
        ({"max_acu": "nan"}, "max_acu: expected 1 to 256 in steps of 0.5, got nan"),
        ({"max_acu": "inf"}, "max_acu: expected 1 to 256 in steps of 0.5, got a huge number"),
        ({"min_acu": None}, "min_acu: expected 0 to 256 in steps of 0.5"),
        ({"min_acu": "-0.5"}, "min_acu: expected 0 to 256 in steps of 0.5, got -0.5"),
        ({"min_acu": "4.5"}, "min_acu: expected at most max_acu, which is 4, got 4.5"),
        ({"min_acu": "0"}, "seconds_until_auto_pause: expected 300 to 86400, because min_acu is 0"),
        (PAUSING | {"seconds_until_auto_pause": "299"}, "seconds_until_auto_pause: expected a whole number"),
        (PAUSING | {"seconds_until_auto_pause": "86401"}, "seconds_until_auto_pause: expected a whole"),
        (
            {"seconds_until_auto_pause": "300"},
            "seconds_until_auto_pause: expected nothing, because only min_acu 0 pauses and it is 0.5, got",
        ),
        ({"backup_retention_days": "0"}, "backup_retention_days: expected a whole number, 1 to 35, got 0"),
        ({"backup_retention_days": "36"}, "backup_retention_days: expected a whole number, 1 to 35, got 36"),
        (
            {"backup_retention_days": "7.0"},
            "backup_retention_days: expected a whole number, 1 to 35, got 7.0",
        ),
        (
            {"backup_retention_days": "true"},
            "backup_retention_days: expected a whole number, 1 to 35, got true",
        ),
        ({"pool_size": "0"}, "pool_size: expected a whole number, 1 to 1000, got 0"),
        ({"pool_size": "21"}, "pool_size: expected at most connection_limit, which is 20, got 21"),
        ({"connection_limit": None}, "connection_limit: expected a whole number, 1 to 5000"),
        ({"retention_days": "-1"}, "retention_days: expected a whole number, 0 to 3650, got -1"),
        (
            {"retention_days": "0x" + "f" * 9999},
            "retention_days: expected a whole number, 0 to 3650, got a huge",
        ),
        ({"instance_count": "17"}, "instance_count: expected a whole number, 1 to 16, got 17"),
        ({"custom_domains": "-1"}, "custom_domains: expected a whole number, 0 to 100, got -1"),
        ({"snapshot_before_migration": "1"}, "snapshot_before_migration: expected true or false, got 1"),
        ({"slots": "2"}, "slots: expected a whole number, 1, got 2"),
        (SHARED | {"slots": None}, "slots: expected a whole number, 2 to 1000"),
        (SHARED | {"slots": "1"}, "slots: expected a whole number, 2 to 1000, got 1"),
        ({"product_ids": '["prod 1"]'}, "product_ids: expected a list of Stripe product ids, got 'prod 1'"),
        ({"family": '"Sites"'}, "family: expected a name of 1 to 31 of a-z, 0-9 and hyphens, a letter first"),
        (
            {"family": "7"},
            "family: expected a name of 1 to 31 of a-z, 0-9 and hyphens, a letter first, got 7",
        ),
        ({"family": '"sites"'}, "family: expected one of the tables [families.<name>], got 'sites'"),
        ({"trial_plan": "[]"}, "trial_plan: expected a name of 1 to 31 of a-z, 0-9 and hyphens, a letter"),
        (
            {"trial_plan": '"trial"'},
            "trial_plan: expected a plan of this file and of its family, got 'trial'",
        ),
        ({"suspend_on_pause_collection": "1"}, "suspend_on_pause_collection: expected true or false, got 1"),
        ({"lookup_keys": None}, "price_ids: expected at least one price id here or one key in lookup_keys"),
        ({"lookup_keys": "[]"}, "price_ids: expected at least one price id here or one key in lookup_keys"),
        ({"lookup_keys": '"team"'}, "lookup_keys: expected a list of Stripe lookup keys, got 'team'"),
        ({"lookup_keys": "[1]"}, "lookup_keys: expected a list of Stripe lookup keys, got 1"),
        ({"lookup_keys": '[""]'}, "lookup_keys: expected a list of Stripe lookup keys, got ''"),
        ({"price_ids": '["price 1"]'}, "price_ids: expected a list of Stripe price ids, got 'price 1'"),
        ({"price_ids": "[[]]"}, "price_ids: expected a list of Stripe price ids, got a list"),
        ({"limits": "1"}, "limits: expected a table [plans.team.limits], got 1"),
        (
            {"limits": "{ seats = -1 }"},
            "limits.seats: expected a whole number, 0 to 9007199254740991, got -1",
        ),
        ({"limits": "{ seats = true }"}, "limits.seats: expected a whole number"),
        ({"limits": "{ Seats = 1 }"}, "limits.Seats: expected a name of a-z, 0-9 and underscores"),
        ({"pool_sise": "1"}, "pool_sise: expected a field that is known here (did you mean pool_size?)"),
        ({"zzz": "1"}, "zzz: expected a field that is known here (one of backup_retention_days, "),
        ({"names": '"x"'}, "names: expected a field that is known here"),
    ],
)
def test_a_mistake_is_named_once_with_file_plan_and_field(changes: dict[str, str | None], error: str) -> None:
    (found,) = errors_of(plan_text(**changes))
    assert found.startswith(f"plans.toml: plans.team.{error}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "version: expected a whole number, 1"),
        ("version = 2", "version: expected a whole number, 1, got 2"),
        ("version = true", "version: expected a whole number, 1, got true"),
        ("version = 1.0", "version: expected a whole number, 1, got 1.0"),
        ("version = 1", "plans: expected at least one table [plans.<name>]"),
        ("version = 1\nplans = 3", "plans: expected a table [plans], got 3"),
        ("version = 1\nplans.a = 3", "plans.a: expected a table [plans.a], got 3"),
        ("version = 1\n[[plans]]", "plans: expected a table [plans], got a list"),
        ("version = 1\n[plans.Team]", "plans.Team: expected a name of 1 to 31"),
        ("version = 1\nplan = 1", "plan: expected a field that is known here (did you mean plans?)"),
        ("version = 1\nversion = 1", "expected TOML: Cannot overwrite a value"),
        ("version = ", "expected TOML: Invalid value (at end of document)"),
        ("version = " + "9" * 5000, "expected TOML: Exceeds the limit"),
        ("version = " + "[" * 5000, "expected TOML: "),
    ],
)
def test_a_mistake_of_the_file_is_named(text: str, error: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse_catalogue(text, source="plans.toml")
    assert caught.value.errors[0].startswith(f"plans.toml: {error}")


def test_an_addon_needs_a_price_and_has_no_capacity() -> None:
    errors = errors_of(plan_text(), "[addons.support]\nmin_acu = 1")
    assert [error.split(": expected")[0] for error in errors] == [
        "plans.toml: addons.support.min_acu",
        "plans.toml: addons.support.price_ids",
    ]


@pytest.mark.parametrize("field", ["price_ids", "lookup_keys", "product_ids"])
def test_one_price_key_or_product_is_enough(field: str) -> None:
    text = plan_text(**({"lookup_keys": None} | {field: '["x"]'}))
    addon = f'[addons.a]\n{field} = ["y"]'
    assert getattr(parse(text, addon).plan("team"), field) == ("x",)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[addons.a]\nlookup_keys = ['a']\nseats = 1", "addons.a.seats: expected true or false, got 1"),
        ("[addons.a]\nlookup_keys = ['a']\nlimits = 1", "addons.a.limits: expected a table [addons.a.lim"),
        (
            "[addons.a]\nlookup_keys = ['a']\nlimits = { x = -1 }",
            "addons.a.limits.x: expected a whole number, 0 to 9007199254740991, got -1",
        ),
        ("[families.a]", 'families.a.tenants: expected "one" or "many"'),
        ("[families.a]\ntenants = 2", 'families.a.tenants: expected "one" or "many", got 2'),
        ("[families.a]\ntenants = 'one'\nx = 1", "families.a.x: expected a field that is known here"),
        ("[families.A]\ntenants = 'one'", "families.A: expected a name of 1 to 31"),
        ("[ignore]\nlimits = {}", "ignore.limits: expected a field that is known here"),
        ("[ignore]\nprice_ids = 7", "ignore.price_ids: expected a list of Stripe price ids, got 7"),
        (
            "[ignore]\nlookup_keys = ['team']",
            "ignore.lookup_keys: expected each value once in the whole file",
        ),
    ],
)
def test_a_mistake_beside_the_plans_is_named(text: str, error: str) -> None:
    (found,) = errors_of(plan_text(), text)
    assert found.startswith(f"plans.toml: {error}")


def test_nothing_need_be_ignored() -> None:
    assert parse(plan_text(), "[ignore]").ignored == parse(plan_text()).ignored == Ignored()


@pytest.mark.parametrize(
    "other",
    [plan_text("other"), '[addons.other]\nlookup_keys = ["team"]'],
)
def test_a_price_belongs_to_one_entry(other: str) -> None:
    (error,) = errors_of(plan_text(), other)
    assert "other.lookup_keys: expected each value once" in error
    assert "in plans.team.lookup_keys already, got 'team'" in error


def test_every_mistake_is_found_at_once() -> None:
    errors = errors_of(
        plan_text(max_acu="0", pool_size="0"), plan_text("other", lookup_keys='["other"]', slots="3")
    )
    assert [error.split(": ")[1] for error in errors] == [
        "plans.team.max_acu",
        "plans.team.pool_size",
        "plans.other.slots",
    ]


def test_the_error_is_a_refusal_with_a_line_for_each_mistake() -> None:
    with pytest.raises(Refused) as caught:
        parse(plan_text(max_acu="0", pool_size="0"))
    assert len(str(caught.value).splitlines()) == 2


# ------------------------------------------------------------------------------ for any input


@given(
    minimum=st.integers(-1, 20),
    maximum=st.integers(0, 20),
    pause=st.none() | st.integers(298, 302) | st.integers(86_399, 86_402),
)
def test_what_passes_is_what_aurora_accepts(minimum: int, maximum: int, pause: int | None) -> None:
    text = plan_text(
        min_acu=str(minimum / 2),
        max_acu=str(maximum / 2),
        seconds_until_auto_pause=None if pause is None else str(pause),
    )
    accepted = (
        0 <= minimum <= maximum
        and maximum >= 2
        and (pause is not None) == (minimum == 0)
        and (pause is None or 300 <= pause <= 86_400)
    )
    try:
        plan = parse(text).plan("team")
    except CatalogueError:
        assert not accepted
    else:
        assert accepted
        assert (plan.min_acu, plan.max_acu, plan.seconds_until_auto_pause) == (
            minimum / 2,
            maximum / 2,
            pause,
        )


@given(st.text(max_size=200))
def test_any_text_is_a_catalogue_or_refused(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(CatalogueError, match="expected TOML"):
            parse_catalogue(text, source="plans.toml")
        return
    with pytest.raises(CatalogueError):
        parse_catalogue(text, source="plans.toml")


values = st.sampled_from(
    [
        "0",
        "1",
        "2.5",
        "-1",
        "true",
        "nan",
        "inf",
        '""',
        '"a"',
        "[]",
        "[1]",
        '["a"]',
        "{}",
        "{a=1}",
        "1979-05-27",
    ]
)


@given(st.dictionaries(st.sampled_from([*PLAN, "slots", "limits", "price_ids", "x"]), values | st.none()))
def test_any_fields_make_a_plan_or_errors_that_name_it(changes: dict[str, str | None]) -> None:
    try:
        catalogue = parse(plan_text(**changes))
    except CatalogueError as error:
        lines = error.errors
    else:
        assert isinstance(catalogue.plan("team"), Plan)
        return
    assert all(line.startswith("plans.toml: plans.team.") for line in lines)


# ------------------------------------------------------------------------------ the warm pool


def test_a_catalogue_without_a_pool_keeps_nothing_warm() -> None:
    catalogue = parse(plan_text())
    assert catalogue.pool == PoolLimits()
    assert catalogue.plan("team").warm_slots == 0


def test_the_pool_and_its_limits() -> None:
    catalogue = parse(
        plan_text(warm_slots="2"),
        "[pool]\nmax_clusters = 10\nreserve_clusters = 1\n"
        "max_idle_acu_hours_per_day = 12.5\nretire_after_hours = 1\n",
    )
    assert catalogue.plan("team").warm_slots == 2
    assert catalogue.pool == PoolLimits(10, 1, 12.5, 1.0)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_clusters = -1", "pool.max_clusters: expected a whole number, 0 to 10000, got -1"),
        ("reserve_clusters = 0.5", "pool.reserve_clusters: expected a whole number, 0 to 10000, got 0.5"),
        ("max_idle_acu_hours_per_day = true", "expected a number, 0 to 1000000, got true"),
        (
            'retire_after_hours = "a day"',
            "retire_after_hours: expected a number, 0 to 8760, got 'a day'",
        ),
        (
            "max_cluster = 1",
            "pool.max_cluster: expected a field that is known here (did you mean max_",
        ),
    ],
)
def test_a_mistake_in_the_pool_is_named(line: str, expected: str) -> None:
    (error,) = errors_of(plan_text(), f"[pool]\n{line}\n")
    assert expected in error


@pytest.mark.parametrize("value", ["-1", "1001", "1.5", '"many"'])
def test_warm_slots_are_a_whole_number(value: str) -> None:
    (error,) = errors_of(plan_text(warm_slots=value))
    assert "plans.team.warm_slots: expected a whole number, 0 to 1000" in error


def test_the_pool_is_a_table() -> None:
    (error,) = errors_of("pool = 3\n" + plan_text())
    assert "pool: expected a table [pool], got 3" in error
