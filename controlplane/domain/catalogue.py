"""The plan catalogue: what a price of the billing system buys.

The catalogue is a file that the company edits, so it is read as a stranger would write it: every
mistake of the file is found at once, and each names file, plan, field and what was expected. What
passes here is also accepted by AWS: the bounds are those of Aurora Serverless v2 (capacity in steps
of half an ACU, at most 256; automatic pause after 300 to 86,400 seconds and only from zero) and of
RDS (backups kept 1 to 35 days, at most 16 instances). A price that is not in the catalogue is no
plan: nothing here guesses.

    version = 1

    [plans.team]
    isolation = "dedicated"
    lookup_keys = ["team_monthly", "team_yearly"]
    min_acu = 0.5
    …

    [addons.projects]
    lookup_keys = ["more_projects"]
    limits = { projects = 50 }

    [ignore]
    product_ids = ["prod_newsletter"]
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar

from controlplane.domain.errors import NotFound, Refused
from controlplane.domain.safe_repr import safe_repr

VERSION = 1
DEFAULT_FAMILY = "default"
_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
_LIMIT_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}\Z")
# Stripe's own price ids, and the ids that older accounts chose for their plans themselves.
_PRICE_ID = re.compile(r"^[!-~]{1,255}\Z")
_LOOKUP_KEY = re.compile(r"^[ -~]{1,200}\Z")
_MAX_LIMIT = 2**53 - 1  # the largest integer that JavaScript reads exactly


C = TypeVar("C", bound=StrEnum)


class CatalogueError(Refused):
    """The plan catalogue can't be used; `errors` has a line for each mistake."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


class Tenants(StrEnum):
    """How many a customer has in a product family."""

    ONE = "one"
    MANY = "many"


class Isolation(StrEnum):
    DEDICATED = "dedicated"  # a cluster of its own
    SHARED = "shared"  # a slot of a shared cluster


def _whole(lowest: int, highest: int, *, default: int | None = None) -> Any:
    """A field of `Plan` that is a whole number; it must be there where it has no default."""

    def read(table: _Table, name: str) -> int:
        return table.integer(name, lowest, highest, default=default)

    return field(default=MISSING if default is None else default, metadata={"read": read})


def _flag() -> Any:
    return field(default=False, metadata={"read": lambda table, name: table.boolean(name)})


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan.

    `min_acu`, `max_acu`: Aurora capacity units of the cluster. `seconds_until_auto_pause`: idle time
    after which the cluster pauses; None means never, a number only with `min_acu` 0. `slots`: tenants
    that a cluster of this plan holds. `pool_size`: connections one application process may hold for a
    tenant. `connection_limit`: connections that the database accepts from each of its app logins.
    `warm_slots`: free slots kept ready ahead of demand. `custom_domains`: how many the customer may
    bring. `retention_days`: how long data is kept after the tenant has closed. `rotation_days`: age at
    which the database login gets a new password; 0 for never by itself. `limits`: numbers for the
    application's own use, passed through. `dunning_grace_days`: how long a customer whose payment is
    past due is served. `purge_without_approval`: data goes at the end of its retention without two
    persons' word. `copy_days`: how long the copy that a purge makes first is kept. `family`: the product
    family that it belongs to. `trial_plan`: the plan that is given while a trial lasts.
    `suspend_on_pause_collection`: whose payments are paused is not served. `suspend_on_dispute`: nor is who
    disputes one, until a person ends that hold.

    A plan that stands further down in the catalogue ranks above those before it.
    """

    name: str
    isolation: Isolation
    min_acu: float
    max_acu: float
    backup_retention_days: int = _whole(1, 35)
    pool_size: int = _whole(1, 1000)
    connection_limit: int = _whole(1, 5000)
    retention_days: int = _whole(0, 3650)
    price_ids: tuple[str, ...] = ()
    lookup_keys: tuple[str, ...] = ()
    product_ids: tuple[str, ...] = ()
    seconds_until_auto_pause: int | None = None
    instance_count: int = _whole(1, 16, default=1)
    slots: int = 1
    warm_slots: int = _whole(0, 1000, default=0)
    custom_domains: int = _whole(0, 100, default=0)
    snapshot_before_migration: bool = _flag()
    limits: dict[str, int] = field(default_factory=dict)
    rotation_days: int = _whole(0, 3650, default=30)
    dunning_grace_days: int = _whole(0, 365, default=14)
    purge_without_approval: bool = _flag()
    copy_days: int = _whole(1, 3650, default=30)
    family: str = DEFAULT_FAMILY
    trial_plan: str | None = None
    suspend_on_pause_collection: bool = _flag()
    suspend_on_dispute: bool = _flag()


@dataclass(frozen=True, slots=True)
class Addon:
    """Something sold beside a plan, in the same contract or in one of its own. `limits`: what each of it adds
    to the plan's. `seats`: its quantity is the number of seats that are paid for, instead of the plan's."""

    name: str
    price_ids: tuple[str, ...] = ()
    lookup_keys: tuple[str, ...] = ()
    product_ids: tuple[str, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    seats: bool = False


@dataclass(frozen=True, slots=True)
class Ignored:
    """What the same account of the billing system sells beside this product."""

    price_ids: tuple[str, ...] = ()
    lookup_keys: tuple[str, ...] = ()
    product_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What the warm pool may take. A paying customer's own cluster is bound by none of it.

    `max_clusters`: no cluster is made ahead of demand once the control plane has this many; also the
    limit where AWS does not tell the account's quota. `reserve_clusters`: that many of the account's
    quota are left to paying customers. `max_idle_acu_hours_per_day`: what all empty clusters together
    may use at their least capacity, None for no such limit; ACU hours because that is what AWS bills
    and the price of one differs by region and year. `retire_after_hours`: for how long a cluster must
    have been more than is asked for before it goes, so that an edit taken back costs nothing.
    """

    max_clusters: int = 40
    reserve_clusters: int = 2
    max_idle_acu_hours_per_day: float | None = None
    retire_after_hours: float = 24.0


@dataclass(frozen=True, slots=True)
class Catalogue:
    version: int
    plans: Mapping[str, Plan]
    addons: Mapping[str, Addon] = field(default_factory=dict)
    pool: PoolLimits = PoolLimits()
    families: Mapping[str, Tenants] = field(default_factory=dict)
    ignored: Ignored = Ignored()

    def plan(self, name: str) -> Plan:
        try:
            return self.plans[name]
        except KeyError as error:
            raise NotFound(f"plan: {name!r} is not in the catalogue ({', '.join(self.plans)})") from error

    def family(self, plan: str) -> str:
        """Of a plan, of one that has left the catalogue too."""
        known = self.plans.get(plan)
        return DEFAULT_FAMILY if known is None else known.family

    def tenants_of(self, family: str) -> Tenants:
        return self.families.get(family, Tenants.ONE)

    def rank(self, plan: str) -> int:
        """Higher is more; -1 for one that has left the catalogue."""
        return list(self.plans).index(plan) if plan in self.plans else -1

    def limits(self, plan: str, addons: Mapping[str, int]) -> dict[str, int]:
        """The plan's, and what each add-on, by name and number, adds to them."""
        found = dict(self.plans[plan].limits) if plan in self.plans else {}
        for name, number in addons.items():
            for limit, each in self.addons[name].limits.items() if name in self.addons else ():
                found[limit] = min(found.get(limit, 0) + each * number, _MAX_LIMIT)
        return found

    def sold(
        self, price_id: str, lookup_key: str | None, product_id: str | None = None
    ) -> Plan | Addon | Ignored | None:
        """What lists this price. Its id outranks a lookup key, which Stripe lets move, and that the product,
        whose every price it covers."""
        everything: list[Plan | Addon | Ignored] = [
            *self.plans.values(),
            *self.addons.values(),
            self.ignored,
        ]
        for each in everything:
            if price_id in each.price_ids:
                return each
        for each in everything:
            if lookup_key in each.lookup_keys:
                return each
        return next((each for each in everything if product_id in each.product_ids), None)


def parse_catalogue(text: str, *, source: str) -> Catalogue:
    """Read a catalogue; `source` names the file in errors. Raises CatalogueError with all mistakes."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise CatalogueError([f"{source}: expected TOML: {error}"]) from error
    root = _Table(source, "", document, errors=[])
    root.only({"version", "plans", "addons", "pool", "families", "ignore"})
    if root.integer("version", VERSION, VERSION) != VERSION:
        raise CatalogueError(root.errors)  # what follows may be written by other rules
    owners: dict[str, str] = {}
    plans = {name: _plan(name, table, owners) for name, table in root.tables("plans")}
    addons = {name: _addon(name, table, owners) for name, table in root.tables("addons")}
    pool = next((_pool(table) for table in root.table("pool")), PoolLimits())
    families = {name: _tenants(table) for name, table in root.tables("families")}
    ignored = next((_ignored(table, owners) for table in root.table("ignore")), Ignored())
    if not plans and not root.errors:
        root.wrong("plans", "at least one table [plans.<name>]")
    _check_names(root, plans, families)
    if root.errors:
        raise CatalogueError(root.errors)
    return Catalogue(VERSION, plans, addons, pool, families, ignored)


def _check_names(root: _Table, plans: Mapping[str, Plan], families: Mapping[str, Tenants]) -> None:
    """Of the plans and families that a plan names."""
    for name, plan in plans.items():
        if plan.family != DEFAULT_FAMILY and plan.family not in families:
            root.wrong(f"plans.{name}.family", "one of the tables [families.<name>]", plan.family)
        given = plan if plan.trial_plan is None else plans.get(plan.trial_plan)
        if given is None or given.family != plan.family:
            root.wrong(f"plans.{name}.trial_plan", "a plan of this file and of its family", plan.trial_plan)


def _tenants(table: _Table) -> Tenants:
    table.only({"tenants"})
    return table.choice("tenants", Tenants) or Tenants.ONE


def _ignored(table: _Table, owners: dict[str, str]) -> Ignored:
    table.only({f.name for f in fields(Ignored)})
    return Ignored(*_prices(table, owners, needed=False))


def _plan(name: str, table: _Table, owners: dict[str, str]) -> Plan:
    table.only({f.name for f in fields(Plan)} - {"name"})
    isolation = table.choice("isolation", Isolation)
    min_acu, max_acu = table.capacity("min_acu", 0), table.capacity("max_acu", 1)
    if min_acu > max_acu:
        table.wrong("min_acu", f"at most max_acu, which is {max_acu:g}", min_acu)
    read = {f.name: f.metadata["read"](table, f.name) for f in fields(Plan) if f.metadata}
    if read["pool_size"] > read["connection_limit"] > 0:
        most = f"at most connection_limit, which is {read['connection_limit']}"
        table.wrong("pool_size", most, read["pool_size"])
    price_ids, lookup_keys, product_ids = _prices(table, owners)
    return Plan(
        name=name,
        isolation=isolation or Isolation.DEDICATED,
        min_acu=min_acu,
        max_acu=max_acu,
        price_ids=price_ids,
        lookup_keys=lookup_keys,
        product_ids=product_ids,
        family=table.name("family") or DEFAULT_FAMILY,
        trial_plan=table.name("trial_plan"),
        seconds_until_auto_pause=_pause(table, min_acu),
        slots=_slots(table, isolation),
        limits=_limits(table),
        **read,
    )


def _addon(name: str, table: _Table, owners: dict[str, str]) -> Addon:
    table.only({f.name for f in fields(Addon)} - {"name"})
    return Addon(name, *_prices(table, owners), limits=_limits(table), seats=table.boolean("seats"))


def _pool(table: _Table) -> PoolLimits:
    table.only({f.name for f in fields(PoolLimits)})
    usual = PoolLimits()
    idle = "max_idle_acu_hours_per_day"
    return PoolLimits(
        max_clusters=table.integer("max_clusters", 0, 10_000, default=usual.max_clusters),
        reserve_clusters=table.integer("reserve_clusters", 0, 10_000, default=usual.reserve_clusters),
        max_idle_acu_hours_per_day=table.number(idle, 0, 1_000_000) if table.has(idle) else None,
        retire_after_hours=table.number("retire_after_hours", 0, 8760, default=usual.retire_after_hours),
    )


def _prices(
    table: _Table, owners: dict[str, str], *, needed: bool = True
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Ids of prices, lookup keys, ids of products. `owners`: which field has listed one already, over the
    whole file."""
    found = {
        "price_ids": table.strings("price_ids", _PRICE_ID, "Stripe price ids"),
        "lookup_keys": table.strings("lookup_keys", _LOOKUP_KEY, "Stripe lookup keys"),
        "product_ids": table.strings("product_ids", _PRICE_ID, "Stripe product ids"),
    }
    if needed and all(map(table.lacks, found)):
        table.wrong("price_ids", "at least one price id here or one key in lookup_keys or product_ids")
    for key, values in found.items():
        for value in values:
            owner = owners.get(f"{key} {value}")
            if owner is not None:
                table.wrong(key, f"each value once in the whole file, this one is in {owner} already", value)
            owners[f"{key} {value}"] = table.path(key)
    return found["price_ids"], found["lookup_keys"], found["product_ids"]


def _pause(table: _Table, min_acu: float) -> int | None:
    key = "seconds_until_auto_pause"
    if not table.has(key):
        if min_acu == 0:
            table.wrong(key, "300 to 86400, because min_acu is 0")
        return None
    seconds = table.integer(key, 300, 86_400)
    if min_acu > 0:
        table.wrong(key, f"nothing, because only min_acu 0 pauses and it is {min_acu:g}", seconds)
    return seconds


def _slots(table: _Table, isolation: Isolation | None) -> int:
    if isolation is Isolation.SHARED:
        return table.integer("slots", 2, 1000)
    return table.integer("slots", 1, 1000 if isolation is None else 1, default=1)


def _limits(table: _Table) -> dict[str, int]:
    return {
        name: limits.integer(name, 0, _MAX_LIMIT)
        for limits in table.table("limits")
        for name in limits.names(_LIMIT_NAME, "a name of a-z, 0-9 and underscores, a letter first")
    }


_MISSING = object()


class _Table:
    """One table of the file. Each reader notes what is wrong and returns a value of the right type
    all the same, so that reading goes on to the next mistake; with any mistake noted, nothing that
    was read is used."""

    def __init__(self, source: str, where: str, values: dict[str, Any], *, errors: list[str]) -> None:
        self._source, self._where, self._values = source, where, values
        self.errors = errors

    def path(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def has(self, key: str) -> bool:
        return key in self._values

    def lacks(self, key: str) -> bool:
        """Is the list under `key` absent or empty?"""
        value = self._values.get(key, [])
        return isinstance(value, list) and not value

    def wrong(self, key: str, expected: str, got: object = _MISSING) -> None:
        found = "" if got is _MISSING else f", got {safe_repr(got)}"
        self.errors.append(f"{self._source}: {self.path(key)}: expected {expected}{found}")

    def only(self, known: set[str]) -> None:
        for key in self._values.keys() - known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(sorted(known))}"
            self.wrong(key[:80], f"a field that is known here ({hint})")

    def names(self, pattern: re.Pattern[str], expected: str) -> Iterator[str]:
        for name in self._values:
            if pattern.match(name):
                yield name
            else:
                self.wrong(name[:80], expected)

    def table(self, key: str) -> Iterator[_Table]:
        """The table under `key`, where there is one."""
        value = self._values.get(key, {})
        if isinstance(value, dict):
            yield _Table(self._source, self.path(key), value, errors=self.errors)
        else:
            self.wrong(key, f"a table [{self.path(key)}]", value)

    def tables(self, key: str) -> Iterator[tuple[str, _Table]]:
        """The named tables under `key`."""
        for parent in self.table(key):
            for name in parent.names(_NAME, "a name of 1 to 31 of a-z, 0-9 and hyphens, a letter first"):
                for table in parent.table(name):
                    yield name, table

    def integer(self, key: str, lowest: int, highest: int, *, default: int | None = None) -> int:
        value = self._values.get(key, _MISSING if default is None else default)
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return value
        span = f"{lowest} to {highest}" if lowest < highest else f"{lowest}"
        self.wrong(key, f"a whole number, {span}", value)
        return 0

    def capacity(self, key: str, lowest: int) -> float:
        value = self._values.get(key, _MISSING)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and lowest <= value <= 256 and value * 2 == int(value * 2):
            return float(value)
        self.wrong(key, f"{lowest} to 256 in steps of 0.5", value)
        return math.nan  # compares with nothing, so no second complaint follows from it

    def number(self, key: str, lowest: int, highest: int, *, default: float | None = None) -> float:
        value = self._values.get(key, _MISSING if default is None else default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and lowest <= value <= highest:
            return float(value)
        self.wrong(key, f"a number, {lowest} to {highest}", value)
        return 0.0

    def boolean(self, key: str) -> bool:
        value = self._values.get(key, False)
        if isinstance(value, bool):
            return value
        self.wrong(key, "true or false", value)
        return False

    def choice(self, key: str, kinds: type[C]) -> C | None:
        value = self._values.get(key, _MISSING)
        if isinstance(value, str) and value in set(kinds):
            return kinds(value)
        self.wrong(key, " or ".join(f'"{kind}"' for kind in kinds), value)
        return None

    def name(self, key: str) -> str | None:
        """A name, None where there is none."""
        value = self._values.get(key)
        if value is None or (isinstance(value, str) and _NAME.match(value)):
            return value
        self.wrong(key, "a name of 1 to 31 of a-z, 0-9 and hyphens, a letter first", value)
        return None

    def strings(self, key: str, pattern: re.Pattern[str], expected: str) -> tuple[str, ...]:
        value = self._values.get(key, [])
        if not isinstance(value, list):
            self.wrong(key, f"a list of {expected}", value)
            return ()
        good = tuple(item for item in value if isinstance(item, str) and pattern.match(item))
        for item in value:
            if item not in good:
                self.wrong(key, f"a list of {expected}", item)
        return good
