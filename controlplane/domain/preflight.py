"""A plan catalogue held against the account that it is for, before anything is founded by it. Pure.

What becomes of each subscription is decided by what decides for an event (`contract_of`, `decide` within
`bind`), as if all of them were heard of for the first time. Which tenants there are is the registry's to
know: a subscription that names its tenant is decided by itself, and told of.

Stripe lists no price that was made for one customer within a subscription or checkout. So whatever a
subscription is to is there as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from controlplane.domain.billing import contract_of
from controlplane.domain.binding import Binding, Known, bind
from controlplane.domain.catalogue import Addon, Catalogue, Ignored, Plan
from controlplane.domain.contract import Contract, ContractOutcome, Line, Park, Standing
from controlplane.domain.safe_repr import safe_repr
from controlplane.domain.stripe_json import dig
from controlplane.domain.tenant import Lifecycle

NAMED = 5
"""Subscriptions or customers that are named of each sort."""
_LIFECYCLES = (Lifecycle.ACTIVE, Lifecycle.SUSPENDED)
_OUTCOMES = (ContractOutcome.WAITING, ContractOutcome.IGNORED, ContractOutcome.PARKED)
_PLACE = re.compile(r"\[\d+\]")
_TENANTS = re.compile(r"\bt-[a-z2-7]{12}(, t-[a-z2-7]{12})*")


@dataclass(frozen=True, slots=True)
class Price:
    """A recurring price of the account."""

    id: str
    lookup_key: str | None
    product: str | None
    active: bool = True


@dataclass(frozen=True, slots=True)
class Missing:
    """What the catalogue names, in the field `where`, and the account has not."""

    where: str
    name: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """An active price that the catalogue neither sells nor ignores. `subscriptions`: how many are to it."""

    price: str
    lookup_key: str | None
    product: str | None
    subscriptions: int


@dataclass(frozen=True, slots=True)
class Some:
    """How many there are, and the first of them."""

    count: int
    first: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Parked:
    """Subscriptions that would wait for a person, for one reason. `first`: some of them."""

    reason: str
    count: int
    first: Sequence[str]


@dataclass(frozen=True, slots=True)
class Preflight:
    """`prices`: how many the account has. `paid_twice`: customers, with the contracts that one tenant would
    be paid for by. `name_a_tenant`: subscriptions that do. `subscriptions`: what would become of them, of
    one that is for a tenant what becomes of that. `tenants`: those that would be founded."""

    prices: int
    missing: Sequence[Missing]
    unlisted: Sequence[Unlisted]
    parked: Sequence[Parked]
    paid_twice: Some
    name_a_tenant: Some
    subscriptions: Mapping[str, int]
    tenants: Mapping[str, int]

    @property
    def ok(self) -> bool:
        return not self.missing and not self.parked

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def price_of(found: Mapping[str, Any]) -> Price:
    """`found`: Stripe's object as plain JSON."""
    product = found.get("product")
    return Price(
        str(found["id"]),
        found.get("lookup_key"),
        dig(product, "id") if isinstance(product, dict) else product,
        found.get("active") is True,
    )


def preflight(
    catalogue: Catalogue, prices: Iterable[Price], subscriptions: Iterable[Any], *, now: datetime
) -> Preflight:
    """`subscriptions`: Stripe's objects with all that belongs to them; what has ended is passed over."""
    listed = {price.id: price for price in prices}
    found = _Found()
    contracts: dict[str, list[Contract]] = {}
    for subscription in subscriptions:
        contract = contract_of(subscription)
        if isinstance(contract, Park):
            found.park(str(dig(subscription, "id")), contract.reason)
        elif contract.standing is not Standing.ENDED:
            contracts.setdefault(contract.customer, []).append(contract)
    for together in _decided_together(contracts.values()):
        found.add(together, _bound(together, catalogue, now))
    everything = [contract for all_of_one in contracts.values() for contract in all_of_one]
    to = Counter(price for contract in everything for price in {line.price for line in contract.lines})
    unlisted = [
        Unlisted(price.id, price.lookup_key, price.product, to[price.id])
        for price in listed.values()
        if price.active and catalogue.sold(price.id, price.lookup_key, price.product) is None
    ]
    lines = [Price(line.price, line.key, line.product) for each in everything for line in each.lines]
    return Preflight(
        prices=len(listed),
        missing=list(_missing(catalogue, [*listed.values(), *lines])),
        unlisted=sorted(unlisted, key=lambda each: (-each.subscriptions, each.price)),
        parked=found.parked(),
        paid_twice=_some(found.paid_twice),
        name_a_tenant=_some([contract.id for contract in everything if contract.tenant is not None]),
        subscriptions={what.value: found.subscriptions[what] for what in (*_LIFECYCLES, *_OUTCOMES)},
        tenants={what.value: found.tenants[what] for what in _LIFECYCLES},
    )


def _decided_together(customers: Iterable[Sequence[Contract]]) -> Iterator[Sequence[Contract]]:
    """All of a customer, but those that name their tenant."""
    for contracts in customers:
        if unnamed := [contract for contract in contracts if contract.tenant is None]:
            yield unnamed
        yield from ([replace(each, tenant=None)] for each in contracts if each.tenant is not None)


def _bound(contracts: Sequence[Contract], catalogue: Catalogue, now: datetime) -> Binding:
    """The platform's zone only tells which custom domains are granted, and nothing parks for one."""
    known = [Known(contract.id, contract) for contract in contracts]
    return bind(contracts[0].customer, known, (), catalogue, platform_zone="", now=now)


def _missing(catalogue: Catalogue, prices: Sequence[Price]) -> Iterator[Missing]:
    there: Mapping[str, set[str | None]] = {
        "price_ids": {price.id for price in prices},
        "lookup_keys": {price.lookup_key for price in prices},
        "product_ids": {price.product for price in prices},
    }
    listing: Mapping[str, Plan | Addon | Ignored] = {
        **{f"plans.{name}": plan for name, plan in catalogue.plans.items()},
        **{f"addons.{name}": addon for name, addon in catalogue.addons.items()},
        "ignore": catalogue.ignored,
    }
    for where, table in listing.items():
        for key, known in there.items():
            yield from (Missing(f"{where}.{key}", name) for name in getattr(table, key) if name not in known)


def _some(found: Sequence[Any]) -> Some:
    return Some(len(found), found[:NAMED])


@dataclass(slots=True)
class _Group:
    """Parked for one reason. `prices`: those of `product` that nobody has listed, where that is it."""

    reason: str
    product: str | None
    ids: list[str] = field(default_factory=list)
    prices: set[str] = field(default_factory=set)

    def shown(self) -> Parked:
        others = len(self.prices) - 1
        more = f", and {others} more of product {safe_repr(self.product)}" if others > 0 else ""
        return Parked(self.reason + more, len(self.ids), self.ids[:NAMED])


@dataclass(slots=True)
class _Found:
    subscriptions: Counter[str] = field(default_factory=Counter)
    tenants: Counter[str] = field(default_factory=Counter)
    paid_twice: list[dict[str, Any]] = field(default_factory=list)
    groups: dict[str, _Group] = field(default_factory=dict)

    def add(self, contracts: Sequence[Contract], binding: Binding) -> None:
        """`contracts`: those that were bound."""
        for contract in contracts:
            verdict = binding.verdicts[contract.id]
            if verdict.outcome is ContractOutcome.PARKED:
                self.park(contract.id, str(verdict.reason), contract.lines)
            elif verdict.tenant_id is None:
                self.subscriptions[verdict.outcome] += 1
            else:
                self.subscriptions[binding.tenants[verdict.tenant_id].spec.lifecycle] += 1
        for asked in binding.tenants.values():
            self.tenants[asked.spec.lifecycle] += 1
            if asked.doubled:
                self.paid_twice.append({"customer": asked.customer, "contracts": asked.doubled})

    def park(self, name: str, reason: str, lines: Sequence[Line] = ()) -> None:
        """Where each customer has a price of its own, what they have in common is the product."""
        self.subscriptions[ContractOutcome.PARKED] += 1
        unknown = "price: expected a price of the catalogue"
        line = next((line for line in lines if reason.startswith(line.where + unknown)), None)
        product = None if line is None else line.product
        shown = _TENANTS.sub("t-…", _PLACE.sub("[…]", reason))
        group = self.groups.setdefault(product or shown, _Group(shown, product))
        group.ids.append(name)
        if line is not None:
            group.prices.add(line.price)

    def parked(self) -> list[Parked]:
        """The most first."""
        return sorted((group.shown() for group in self.groups.values()), key=lambda each: -each.count)
