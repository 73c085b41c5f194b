"""What a billing source says is owed, in nobody's dialect, and what one contract alone asks for.

Both functions are pure and never raise, because they stand behind an event that has been acknowledged: what
can't be understood is a decision too (`Park`, which names the field), not a crash that the queue repeats. And
nothing is guessed: a price that the catalogue does not know or two plans in one contract stop for a person.

By standing:

    live                     active, but where collection is paused and the plan says that this suspends
    overdue                  active until the plan's `dunning_grace_days` are over, then suspended
    stopped                  suspended
    ended                    closed
    pending                  Wait: the first payment is still open, nothing is provisioned or taken

The grace of an overdue contract counts from its oldest debt; a newer invoice, paid or not, ends no older
one, and who has never paid has none. So its end is the same whenever and however often the source is asked.

Who does not pay is suspended and who has ended is closed whatever the catalogue knows: an item that nobody
has listed must not keep a tenant served. Beside one plan an unknown item is told of and holds nothing up.

Which tenant a contract is for is decided with all the others of its customer: `domain.binding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from controlplane.domain.catalogue import Addon, Catalogue, Ignored, Plan
from controlplane.domain.errors import Invalid
from controlplane.domain.hostname import RefusedDomain, validate_custom_domain
from controlplane.domain.safe_repr import safe_repr
from controlplane.domain.tenant import Lifecycle, TenantSpec


class Standing(StrEnum):
    """`pending`: never paid yet. `overdue`: a payment is late. `stopped`: not paid for, or paused.
    `ended`: for ever."""

    PENDING = "pending"
    LIVE = "live"
    OVERDUE = "overdue"
    STOPPED = "stopped"
    ENDED = "ended"


class ContractOutcome(StrEnum):
    """What became of the last observation of a contract; any may follow any."""

    NEW = "new"
    APPLIED = "applied"
    WAITING = "waiting"
    IGNORED = "ignored"
    PARKED = "parked"


LIFECYCLE_OF_STANDING: Mapping[Standing, Lifecycle] = {
    Standing.LIVE: Lifecycle.ACTIVE,
    Standing.OVERDUE: Lifecycle.ACTIVE,
    Standing.STOPPED: Lifecycle.SUSPENDED,
    Standing.ENDED: Lifecycle.CLOSED,
}

_LAST_DAY = datetime.fromtimestamp(253_402_300_799, UTC)  # of the year 9999, where datetime ends


@dataclass(frozen=True, slots=True)
class Line:
    """What is bought: a price of a product. `where`: its place in the source's object, for messages.
    `problem`: why its quantity could not be read."""

    price: str
    key: str | None
    product: str | None
    quantity: int
    where: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a tenant is to be called: free text, that of a slug too."""

    slug: str | None = None
    name: str | None = None

    def over(self, other: Wishes) -> Wishes:
        """These, and the other's where there is none."""
        return Wishes(self.slug or other.slug, self.name or other.name)


NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class Contract:
    """What a customer is owed now.

    `status`: the source's own word for `standing`. `overdue_since`: of the oldest debt, None where the source
    does not say; `never_paid`: that is the first one. `problem`: what of the rest could not be read.
    `tenant`: the id or slug of the one that it is for. `domains`: wishes for custom domains as they were
    written, by the field that they stand in; a field that is absent says nothing, an empty one wishes for
    none.
    """

    id: str
    customer: str
    standing: Standing
    status: str
    started_at: datetime
    lines: tuple[Line, ...] = ()
    overdue_since: datetime | None = None
    never_paid: bool = False
    collection_paused: bool = False
    period_end: datetime | None = None
    trial_ends_at: datetime | None = None
    closes_at: datetime | None = None
    tenant: str | None = None
    wishes: Wishes = NO_WISHES
    domains: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "customer": self.customer,
            "standing": self.standing.value,
            "status": self.status,
            "lines": [list(astuple(line)) for line in self.lines],
            "never_paid": self.never_paid,
            "collection_paused": self.collection_paused,
            "tenant": self.tenant,
            "wishes": asdict(self.wishes),
            "domains": dict(self.domains),
            "problem": self.problem,
            **{name: _text(getattr(self, name)) for name in _MOMENTS},
        }

    def same_news(self, other: Contract | None) -> bool:
        """Is this what the source's events would have told of? Of a lookup key that was moved and of an older
        invoice that was voided no event comes that is acted on."""
        return other is not None and self._told() == other._told()

    def _told(self) -> Contract:
        lines = tuple(replace(line, key=None) for line in self.lines)
        return replace(self, lines=lines, overdue_since=None, never_paid=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Contract:
        """Of what another release wrote, too: a field that is unknown here is left out, and one that was
        unknown there has its default."""
        known = {each.name for each in fields(cls)}
        data = {name: value for name, value in data.items() if name in known}
        rest: dict[str, Any] = {name: _moment(data[name]) for name in _MOMENTS if name in data}
        rest |= {
            "standing": Standing(data["standing"]),
            "lines": tuple(Line(*line[: len(fields(Line))]) for line in data["lines"]),
            "wishes": Wishes(data["wishes"].get("slug"), data["wishes"].get("name")),
        }
        return cls(**{**data, **rest})


_MOMENTS = ("started_at", "overdue_since", "period_end", "trial_ends_at", "closes_at")


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Apply:
    """The tenant should be as `spec`. `warnings` are for support: requests that could not be granted and
    that must not hold up a paying customer. `refused`: the custom domains among them. `seats`: of add-ons
    that seats are sold as, where there are such."""

    spec: TenantSpec
    warnings: tuple[str, ...] = ()
    refused: tuple[RefusedDomain, ...] = ()
    seats: int | None = None


@dataclass(frozen=True, slots=True)
class Add:
    """Add-ons alone: what they add to the tenant that another contract makes. `seats`: the number paid for,
    where one of them is what seats are sold as."""

    addons: Mapping[str, int]
    seats: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """It has ended, or is not paid for, and names no plan that could be applied: its tenant comes to
    `lifecycle`, where there is one, and keeps its other requests. Where there is none, nothing is
    provisioned. Neither depends on the catalogue, so a plan that has been taken off it can't keep anybody
    alive who does not pay."""

    lifecycle: Lifecycle
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not paid yet: nothing to provision, nothing to take away. Another event will follow."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing of it is sold here."""

    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """A person must look. `reason` names the field, holds no control characters and is short."""

    reason: str


Decision = Apply | Add | Turn | Wait | Ignore | Park


class _Unknown(Exception):
    """It names no plan that could be applied; the message says where and what was expected."""


def decide(contract: Contract, catalogue: Catalogue, *, platform_zone: str, now: datetime) -> Decision:
    """What this contract alone asks for. `platform_zone` is normalised. `now` decides one thing: whether the
    grace of what is overdue is over."""
    if contract.standing is Standing.PENDING:
        return Wait(f"the first payment is still open ({contract.status})")
    lifecycle = LIFECYCLE_OF_STANDING[contract.standing]
    try:
        return _apply(contract, catalogue, lifecycle, platform_zone, now)
    except _Unknown as unknown:
        if lifecycle is Lifecycle.ACTIVE:
            return Park(str(unknown))
        return Turn(lifecycle, str(unknown))


def _apply(
    contract: Contract, catalogue: Catalogue, lifecycle: Lifecycle, platform_zone: str, now: datetime
) -> Decision:
    bought = _bought(contract, catalogue)
    if bought.plan is None:
        if bought.foreign:
            return Ignore("nothing of it is sold here: the catalogue ignores it")
        paid = lifecycle is Lifecycle.ACTIVE
        return Add(bought.addons if paid else {}, bought.seats if paid else None, bought.warnings)
    plan = bought.plan
    grace_end, lifecycle = grace_ends_at(contract, plan), lifecycle_by_plan(contract, plan, lifecycle, now)
    if contract.trial_ends_at is not None and plan.trial_plan is not None:
        plan = catalogue.plan(plan.trial_plan)
    domains, warnings, refused = custom_domains(contract, plan, platform_zone)
    return Apply(
        TenantSpec(
            lifecycle=lifecycle,
            plan=plan.name,
            subscription_status=contract.status,
            quantity=bought.quantity if bought.seats is None else bought.seats,
            custom_domains=domains,
            addons=bought.addons,
            trial_ends_at=contract.trial_ends_at,
            grace_ends_at=grace_end,
            closes_at=contract.closes_at,
        ),
        warnings=(*bought.warnings, *warnings),
        refused=refused,
        seats=bought.seats,
    )


def grace_ends_at(contract: Contract, plan: Plan) -> datetime | None:
    """Of what is overdue. None where nobody says since when: nothing is guessed, and the customer is
    served."""
    if contract.standing is not Standing.OVERDUE or contract.overdue_since is None:
        return None
    grace = timedelta(0) if contract.never_paid else timedelta(days=plan.dunning_grace_days)
    return min(contract.overdue_since, _LAST_DAY - grace) + grace


def lifecycle_by_plan(contract: Contract, plan: Plan, lifecycle: Lifecycle, now: datetime) -> Lifecycle:
    """`lifecycle`, by the contract's standing; suspended where the plan bears it no longer."""
    grace_end = grace_ends_at(contract, plan)
    over = grace_end is not None and grace_end <= now
    paused = contract.collection_paused and plan.suspend_on_pause_collection
    return Lifecycle.SUSPENDED if lifecycle is Lifecycle.ACTIVE and (over or paused) else lifecycle


@dataclass(frozen=True, slots=True)
class _Bought:
    plan: Plan | None
    quantity: int
    addons: Mapping[str, int]
    seats: int | None
    foreign: bool
    warnings: tuple[str, ...]


def _bought(contract: Contract, catalogue: Catalogue) -> _Bought:
    """What the lines are by the catalogue, with a warning for each that it does not know. Raises _Unknown
    where it could not be read, and where there is no plan and something that nobody has listed."""
    bought = _Bought(None, 1, {}, None, foreign=True, warnings=())
    unknown: list[str] = []
    if contract.problem is not None or not contract.lines:
        raise _Unknown(contract.problem or "lines: expected one or more, got none")
    for line in contract.lines:
        sold = catalogue.sold(line.price, line.key, line.product)
        if isinstance(sold, Ignored):
            continue
        bought = replace(bought, foreign=False)
        if sold is None:
            key = f" (lookup key {safe_repr(line.key)})" if line.key else ""
            expected = f"a price of the catalogue{key}"
            unknown.append(f"{line.where}price: expected {expected}, got {safe_repr(line.price)}")
            continue
        if line.problem is not None:
            raise _Unknown(line.problem)
        if isinstance(sold, Addon):
            number = bought.addons.get(sold.name, 0) + line.quantity
            bought = replace(bought, addons={**bought.addons, sold.name: number})
            if sold.seats:
                bought = replace(bought, seats=(bought.seats or 0) + line.quantity)
        elif bought.plan is not None:
            expected = f"no second plan beside {bought.plan.name}"
            raise _Unknown(f"{line.where}price: expected {expected}, got {safe_repr(sold.name)}")
        else:
            bought = replace(bought, plan=sold, quantity=line.quantity)
    if unknown and bought.plan is None:
        raise _Unknown(unknown[0])
    return replace(bought, warnings=tuple(unknown))


def custom_domains(
    contract: Contract, plan: Plan, platform_zone: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[RefusedDomain, ...]]:
    """The good ones among the wishes, as many as the plan allows; a warning and a refusal for every
    other."""
    good: dict[str, None] = {}
    warnings: list[str] = []
    refused: list[RefusedDomain] = []
    for where, wished in contract.domains.items():
        for raw in filter(None, map(str.strip, wished.split(","))):
            try:
                good[validate_custom_domain(raw, platform_zone)] = None
            except Invalid as error:
                warnings.append(f"{where}: {error}")
                refused.append(RefusedDomain(raw[:80], f"can't be used: expected {error.expected}"))
    domains = tuple(good)
    if domains[plan.custom_domains :]:
        left_out = ", ".join(domains[plan.custom_domains :])
        warnings.append(
            f"custom_domains: plan {plan.name} allows {plan.custom_domains}, left out: {left_out}"
        )
    beyond = f"is one too many: plan {plan.name} allows {plan.custom_domains}"
    refused += [RefusedDomain(host, beyond) for host in domains[plan.custom_domains :]]
    return domains[: plan.custom_domains], tuple(warnings), tuple(dict.fromkeys(refused))
