"""Which tenant a contract is for, and what the tenant should be by all of its contracts. Pure.

One function of all the customer's contracts as they are now, the tenants that it has and the bindings that
stand; so the answer is the same whatever event asked, and in whatever order events came (I12).

A standing binding never changes by itself. A contract without one that may be paid for is bound by the first
of these that applies:

- It names a tenant of its customer (metadata `tenant`: an id or a slug): to that one. It names another:
  parked.
- Its product family has one tenant a customer: to the tenant that the customer has there, whether it serves
  or is in its retention. So who returns, or upgrades by a new contract, finds its rows, slug and domains.
- Its family has many: to the one tenant that is in its retention and that nobody pays for. Where there are
  several of those, nobody can tell which: parked.
- Otherwise a tenant is founded for it.

Of a tenant's contracts one governs: the best standing, then the highest plan, then the latest start, then the
id. It makes the spec; add-ons of the others are added to it, and a wish for custom domains holds until a
contract that governs says another. A tenant closes when all of its contracts have ended, and not while its
customer has a contract that waits for a person: that may be what it is meant to be served for (I14).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce

from controlplane.domain.catalogue import Catalogue, Tenants
from controlplane.domain.contract import (
    LIFECYCLE_OF_STANDING,
    NO_WISHES,
    Add,
    Apply,
    Contract,
    ContractOutcome,
    Decision,
    Ignore,
    Park,
    Standing,
    Turn,
    Wait,
    Wishes,
    custom_domains,
    decide,
    grace_ends_at,
    lifecycle_by_plan,
)
from controlplane.domain.hold import Hold, HoldKind
from controlplane.domain.hostname import RefusedDomain
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.safe_repr import safe_repr
from controlplane.domain.tenant import Lifecycle, TenantSpec


@dataclass(frozen=True, slots=True)
class Known:
    """A contract as it is known: `contract` is None for one that could never be read, `unread` why it can't
    be now. `tenant_id`: its standing binding. `wishes`: what was wished for beside it, when it was bought.
    `alone`: a person has said that it is for a tenant of its own."""

    id: str
    contract: Contract | None
    tenant_id: str | None = None
    unread: str | None = None
    wishes: Wishes = NO_WISHES
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A tenant that the customer has, or that one of its contracts is bound to. `gone`: its data is deleted,
    or on the way out, so nothing can be bound to it any more. `others`: contracts of other customers that are
    bound to it. `holds`: an operator's word over what they say."""

    id: str
    slug: str
    customer: str
    spec: TenantSpec
    gone: bool = False
    others: tuple[Contract, ...] = ()
    holds: tuple[Hold, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a contract."""

    outcome: ContractOutcome
    reason: str | None
    tenant_id: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a tenant should be. `founder`: the contract for which it is made, where there is none yet.
    `doubled`: the contracts that are paid for side by side, where there is more than one."""

    tenant_id: str
    customer: str
    spec: TenantSpec
    wishes: Wishes
    warnings: tuple[str, ...]
    refused: tuple[RefusedDomain, ...]
    founder: str | None
    doubled: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    verdicts: Mapping[str, Verdict]
    tenants: Mapping[str, Asked]


@dataclass(frozen=True, slots=True)
class _Offered:
    known: Known
    contract: Contract
    decision: Decision

    @property
    def payable(self) -> bool:
        """It may bring money or is owed some for a plan: what a tenant is for."""
        return self.contract.standing is not Standing.ENDED and not isinstance(self.decision, (Add, Ignore))


@dataclass(slots=True)
class _Home:
    """A tenant while contracts are bound."""

    id: str
    customer: str
    slug: str | None = None
    spec: TenantSpec | None = None
    gone: bool = False
    founder: str | None = None
    holds: tuple[Hold, ...] = ()
    contracts: list[_Offered] = field(default_factory=list)
    unread: bool = False  # a contract that could never be read is bound to it

    @property
    def open(self) -> bool:
        """By its contracts; by its spec, which only says what was decided before, where it has none."""
        return self.taken or (not self.contracts and self.asked_to_be_open)

    @property
    def asked_to_be_open(self) -> bool:
        return self.spec is not None and self.spec.lifecycle is not Lifecycle.CLOSED

    @property
    def paid_for(self) -> bool:
        return any(offered.payable for offered in self.contracts)

    @property
    def taken(self) -> bool:
        """Something is bound to it that has not ended: it pays, or it waits for a person and keeps open what
        is."""
        waits = self.unread or any(
            isinstance(o.decision, Ignore) and o.contract.standing is not Standing.ENDED
            for o in self.contracts
        )
        return self.paid_for or (waits and self.asked_to_be_open)


def bind(
    customer: str,
    contracts: Sequence[Known],
    holders: Sequence[Holder],
    catalogue: Catalogue,
    *,
    platform_zone: str,
    now: datetime,
    wishes: Wishes = NO_WISHES,
) -> Binding:
    """`contracts`: all of this customer's. `holders`: all tenants of the customer and of its contracts.
    `wishes`: what the customer itself is called."""
    rules = _Rules(customer, catalogue, platform_zone, now, wishes)
    homes = {
        holder.id: _Home(
            holder.id,
            holder.customer,
            holder.slug,
            holder.spec,
            holder.gone,
            holds=holder.holds,
            contracts=[rules.offer(Known(each.id, each, holder.id), each) for each in holder.others],
        )
        for holder in holders
    }
    verdicts: dict[str, Verdict] = {}
    unbound: list[_Offered] = []
    waits = False
    for known in contracts:
        home = homes.get(known.tenant_id or "")
        if known.contract is None:
            verdicts[known.id] = _parked(known.unread or "it was never read", known.tenant_id)
            if home is None:
                waits = True
            else:
                home.unread = True
            continue
        offered = rules.offer(known, known.contract)
        if home is None or (home.gone and known.contract.standing is not Standing.ENDED):
            unbound.append(offered)
        else:
            home.contracts.append(offered)
    for offered in sorted(unbound, key=_turn):
        verdict = rules.bind_one(offered, homes)
        if verdict is not None:
            verdicts[offered.known.id] = verdict
            paid = LIFECYCLE_OF_STANDING.get(offered.contract.standing) is Lifecycle.ACTIVE
            waits = waits or (paid and verdict.outcome is ContractOutcome.PARKED)
    tenants: dict[str, Asked] = {}
    for home in homes.values():
        asked = rules.asked(home, held_open=waits or home.unread)
        if asked is not None and not home.gone:
            tenants[home.id] = asked
        for offered in home.contracts:
            verdicts[offered.known.id] = _verdict(offered, home, asked)
    named = {known.id for known in contracts}
    return Binding({name: v for name, v in verdicts.items() if name in named}, tenants)


def _turn(offered: _Offered) -> tuple[bool, bool, datetime, str]:
    """What names its tenant goes first, and add-ons after the plans that they may be for; else by age."""
    contract = offered.contract
    unnamed = contract.tenant is None
    return unnamed, isinstance(offered.decision, Add), contract.started_at, contract.id


@dataclass(frozen=True, slots=True)
class _Rules:
    customer: str
    catalogue: Catalogue
    zone: str
    now: datetime
    wishes: Wishes

    def offer(self, known: Known, contract: Contract) -> _Offered:
        return _Offered(
            known, contract, decide(contract, self.catalogue, platform_zone=self.zone, now=self.now)
        )

    # ------------------------------------------------------------------------------------- binding

    def bind_one(self, offered: _Offered, homes: dict[str, _Home]) -> Verdict | None:
        """Bind it to one of the `homes`, which may be a new one; else what becomes of it."""
        decision, contract = offered.decision, offered.contract
        if offered.known.unread is not None:
            return _parked(offered.known.unread)
        if not isinstance(decision, (Apply, Add)) or contract.standing is Standing.ENDED:
            return _unbound(decision)
        living = [home for home in homes.values() if not home.gone and home.customer == self.customer]
        if contract.tenant is None:
            if isinstance(decision, Add):
                return _bind_addons(offered, living)
            return self._bind_plan(offered, decision, homes, living)
        named = [home for home in living if contract.tenant in (home.id, home.slug)]
        if not named:
            expected = f"a tenant of {self.customer}"
            return _parked(f"metadata.tenant: expected {expected}, got {safe_repr(contract.tenant)}")
        named[0].contracts.append(offered)
        return None

    def _bind_plan(
        self, offered: _Offered, decision: Apply, homes: dict[str, _Home], living: Sequence[_Home]
    ) -> Verdict | None:
        family = self.catalogue.family(decision.spec.plan)
        candidates = [home for home in living if self._family(home) == family]
        if self.catalogue.tenants_of(family) is Tenants.ONE:
            candidates = [home for home in candidates if home.open] or candidates
        else:
            candidates = [home for home in candidates if not home.taken]
        if len(candidates) > 1 and not offered.known.alone:
            names = ", ".join(sorted(home.id for home in candidates))
            return _parked(f"{self.customer} has several tenants that it may be for: {names}")
        if candidates and not offered.known.alone:
            candidates[0].contracts.append(offered)
            return None
        tenant_id, life = tenant_id_for(offered.contract.id), 1
        while tenant_id in homes:
            life += 1
            tenant_id = tenant_id_for(f"{offered.contract.id}#{life}")
        homes[tenant_id] = _Home(tenant_id, self.customer, founder=offered.contract.id, contracts=[offered])
        return None

    def _family(self, home: _Home) -> str | None:
        """Of the plan that governs it now."""
        plans = [o.decision.spec.plan for o in self._ranked(home) if isinstance(o.decision, Apply)]
        if not plans and home.spec is not None:
            plans = [home.spec.plan]
        return self.catalogue.family(plans[0]) if plans else None

    # ------------------------------------------------------------------------------------- deciding

    def asked(self, home: _Home, *, held_open: bool) -> Asked | None:
        """None where none of its contracts says what it should be."""
        ranked = self._ranked(home)
        if not ranked:
            return self._left_alone(home, held_open=held_open)
        governing, decision = ranked[0], ranked[0].decision
        served = [o for o in ranked if self._lifecycle(o, home) is Lifecycle.ACTIVE]
        warnings: tuple[str, ...] = ()
        refused: tuple[RefusedDomain, ...] = ()
        if isinstance(decision, Apply):
            spec, warnings, refused = self._by_plan(decision, ranked, served, home)
        elif home.spec is None:
            return None
        else:
            spec = self._as_before(governing, home.spec, home)
        if spec.lifecycle is Lifecycle.CLOSED and held_open and home.spec and home.asked_to_be_open:
            spec = home.spec
        spec = self._held(spec, home)
        doubled = tuple(sorted(o.contract.id for o in served)) if len(served) > 1 else ()
        first, *rest = (o.contract.wishes.over(o.known.wishes) for o in ranked)
        lent = self.wishes if governing.contract.customer == self.customer else NO_WISHES
        return Asked(
            home.id,
            governing.contract.customer,
            spec,
            reduce(Wishes.over, rest, first.over(lent)),
            (*warnings, _doubled(doubled)) if doubled else warnings,
            refused,
            home.founder,
            doubled,
        )

    def _by_plan(
        self, decision: Apply, ranked: Sequence[_Offered], served: Sequence[_Offered], home: _Home
    ) -> tuple[TenantSpec, tuple[str, ...], tuple[RefusedDomain, ...]]:
        """The spec by the first of the `ranked`, and what the others say beside it."""
        spec, warnings, refused = decision.spec, decision.warnings, decision.refused
        governing = ranked[0].contract
        wishing = next((o.contract for o in ranked if o.contract.domains), governing)
        given = next((h.plan for h in home.holds if h.plan in self.catalogue.plans), None) or spec.plan
        if wishing is not governing or given != spec.plan:
            own = custom_domains(governing, self.catalogue.plan(spec.plan), self.zone)[1]
            warnings = tuple(warning for warning in warnings if warning not in own)
            spec = replace(spec, plan=given)
            domains, wished, refused = custom_domains(wishing, self.catalogue.plan(given), self.zone)
            spec, warnings = replace(spec, custom_domains=domains), (*warnings, *wished)
        seats = [decision.seats]
        beside = [o.decision for o in home.contracts if isinstance(o.decision, Add)]
        beside += [
            Add(o.decision.spec.addons, o.decision.seats)
            for o in served
            if isinstance(o.decision, Apply) and o.contract is not governing
        ]
        for add in beside:
            number = {name: spec.addons.get(name, 0) + more for name, more in add.addons.items()}
            spec, warnings = replace(spec, addons={**spec.addons, **number}), (*warnings, *add.warnings)
            seats.append(add.seats)
        paid_for = [number for number in seats if number is not None]
        ends = [o.contract.closes_at for o in served or ranked[:1]]
        return (
            replace(
                spec,
                quantity=sum(paid_for) if paid_for else spec.quantity,
                closes_at=max(filter(None, ends)) if all(ends) else None,
            ),
            warnings,
            refused,
        )

    def _left_alone(self, home: _Home, *, held_open: bool) -> Asked | None:
        """No contract is for it any more but add-ons: somebody has bound them to another tenant."""
        if home.spec is None or held_open or not all(isinstance(o.decision, Add) for o in home.contracts):
            return None
        closed = self._held(home.spec.with_lifecycle(Lifecycle.CLOSED), home)
        return Asked(home.id, home.customer, closed, NO_WISHES, (), (), None, ())

    def _held(self, spec: TenantSpec, home: _Home) -> TenantSpec:
        """An operator's word comes last; that nobody is served outranks that somebody is."""
        kinds = {hold.kind for hold in home.holds}
        if HoldKind.SERVE in kinds and spec.lifecycle is not Lifecycle.ACTIVE:
            spec = spec.with_lifecycle(Lifecycle.ACTIVE)
        if HoldKind.SUSPEND in kinds and spec.lifecycle is Lifecycle.ACTIVE:
            spec = spec.with_lifecycle(Lifecycle.SUSPENDED)
        return spec

    def _as_before(self, governing: _Offered, before: TenantSpec, home: _Home) -> TenantSpec:
        """What governs names no plan that could be applied: it says whether the tenant is served, and the
        rest stays as it was."""
        plan = self.catalogue.plans.get(before.plan)
        return replace(
            before,
            lifecycle=self._lifecycle(governing, home),
            subscription_status=governing.contract.status,
            grace_ends_at=None if plan is None else grace_ends_at(governing.contract, plan),
        )

    def _lifecycle(self, offered: _Offered, home: _Home) -> Lifecycle:
        """What this contract alone would make of the tenant. One that names no plan is judged by the one that
        another contract names, else by the one that the tenant had before."""
        decision, contract = offered.decision, offered.contract
        if isinstance(decision, Apply):
            return decision.spec.lifecycle
        named = [o for o in home.contracts if isinstance(o.decision, Apply)]
        best = max(named, key=lambda o: self._rank(o, home), default=None)
        spec = best.decision.spec if best and isinstance(best.decision, Apply) else home.spec
        plan = None if spec is None else self.catalogue.plans.get(spec.plan)
        lifecycle = LIFECYCLE_OF_STANDING[contract.standing]
        return lifecycle if plan is None else lifecycle_by_plan(contract, plan, lifecycle, self.now)

    def _ranked(self, home: _Home) -> list[_Offered]:
        """Those that say what it should be, the one that governs first."""
        says = [o for o in home.contracts if not isinstance(o.decision, (Add, Ignore, Wait))]
        return sorted(says, key=lambda offered: self._rank(offered, home), reverse=True)

    def _rank(self, offered: _Offered, home: _Home) -> tuple[int, int, datetime, str]:
        contract, decision = offered.contract, offered.decision
        plan = self.catalogue.rank(decision.spec.plan) if isinstance(decision, Apply) else -1
        if contract.standing is Standing.ENDED:
            standing = 0
        elif self._lifecycle(offered, home) is not Lifecycle.ACTIVE:
            standing = 1
        else:
            standing = 3 if contract.standing is Standing.LIVE else 2
        return standing, plan, contract.started_at, contract.id


def _unbound(decision: Decision) -> Verdict:
    """Of a contract that founds nothing."""
    match decision:
        case Wait():
            return Verdict(ContractOutcome.WAITING, decision.reason, None)
        case Ignore():
            return Verdict(ContractOutcome.IGNORED, decision.reason, None)
        case Park():
            return _parked(decision.reason)
        case Turn(lifecycle=Lifecycle.SUSPENDED):
            return _parked(decision.reason)
        case _:
            return Verdict(ContractOutcome.IGNORED, "it ended before it was ever provisioned", None)


def _bind_addons(offered: _Offered, living: Sequence[_Home]) -> Verdict | None:
    served = [home for home in living if home.paid_for]
    if len(served) > 1:
        names = ", ".join(sorted(home.id for home in served))
        return _parked(f"add-ons alone, and several tenants that they may be for: {names}")
    if not served:
        return Verdict(ContractOutcome.IGNORED, "add-ons alone, and no tenant that they are for", None)
    served[0].contracts.append(offered)
    return None


def _parked(reason: str, tenant_id: str | None = None) -> Verdict:
    return Verdict(ContractOutcome.PARKED, reason, tenant_id)


def _verdict(offered: _Offered, home: _Home, asked: Asked | None) -> Verdict:
    """Of a contract that is bound."""
    decision, reason = offered.decision, offered.known.unread
    if reason is not None:
        return _parked(reason, home.id)
    match decision:
        case Park() | Ignore():
            return _parked(decision.reason, home.id)
        case Wait():
            return Verdict(ContractOutcome.WAITING, decision.reason, home.id)
        case Apply() | Add():
            reason = "; ".join(decision.warnings) or None
        case Turn():
            reason = decision.reason
    if asked is not None and offered.contract.id in asked.doubled:
        reason = "; ".join(filter(None, (reason, _doubled(asked.doubled))))
    return Verdict(ContractOutcome.APPLIED, reason, home.id)


def _doubled(contracts: Iterable[str]) -> str:
    return f"it is paid for by more than one contract: {', '.join(contracts)}"
