"""Billing: keep what the billing system says, and turn it into what a customer's tenants should be.

`record_event` is all that stands between a webhook and its 200, so it is one insert. The rest is the
worker's: `contract.revision` is read, the worker fetches all the customer's contracts as they are *now*,
`apply` decides over all of them at once (`domain.binding`) and writes only if nobody wrote since. An object
fetched earlier can therefore never overwrite one fetched later, whatever the order of the events (I12).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from controlplane.domain.billing import (
    EVENT_TYPES,
    EventState,
    SubscriptionRef,
    event_type,
    foreign_account,
    subscription_of_event,
)
from controlplane.domain.binding import Asked, Binding, Holder, Known, Verdict, bind
from controlplane.domain.catalogue import Catalogue
from controlplane.domain.contract import Contract, ContractOutcome, Park, Wishes
from controlplane.domain.hold import Hold, HoldKind
from controlplane.domain.hostname import TAKEN
from controlplane.domain.notification import NotificationKind
from controlplane.domain.stripe_json import dig
from controlplane.domain.tenant import Lifecycle
from controlplane.services import purges, tenants
from controlplane.store import audit, contract, event, hold, notification, purge, tenant
from controlplane.store.contract import ContractRow, Heard
from controlplane.store.registry import Connection
from controlplane.store.tenant import TenantRow

ACTOR = "billing"
RUNBOOK_PARKED = "parked-contract"


@dataclass(frozen=True, slots=True)
class Recorded:
    """`new`: False for a duplicate. `due`: whether a worker should be notified."""

    event_id: str
    new: bool
    due: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event."""

    state: EventState = EventState.APPLIED
    reason: str | None = None


def record_event(
    conn: Connection, payload: Mapping[str, Any], body: bytes, *, livemode: bool, account: str | None = None
) -> Recorded:
    """Store a verified event, once; one that asks for nothing is done with."""
    event_id, found = str(payload["id"]), read_event(payload, livemode=livemode, account=account)
    outcome = found if isinstance(found, Outcome) else Outcome(EventState.RECEIVED)
    ref = found if isinstance(found, SubscriptionRef) else SubscriptionRef(None, None)
    new = event.insert(
        conn,
        event_id=event_id,
        type_=str(payload["type"]),
        api_version=payload.get("api_version"),
        livemode=payload.get("livemode") is True,
        created_at=_instant(payload.get("created")),
        body=body,
        subject=ref.customer_id or ref.subscription_id or ref.charge_id or event_id,
        customer_id=ref.customer_id,
        state=outcome.state,
        reason=outcome.reason,
    )
    return Recorded(event_id, new, due=new and outcome.state is EventState.RECEIVED)


def read_event(payload: Any, *, livemode: bool, account: str | None) -> SubscriptionRef | Outcome:
    """What an event is about; what becomes of one that asks for nothing (of another account or mode, of a
    type that is not acted on, about no subscription). `account`: our own's id, where it is known. It is read
    so when it comes and when it is handled: one that is replayed has its reason again."""
    about, foreign = subscription_of_event(payload), foreign_account(payload, account)
    mode = dig(payload, "livemode")
    if foreign is not None:
        return Outcome(EventState.IGNORED, foreign)
    if mode is not livemode:
        return Outcome(EventState.PARKED, f"the event's livemode is {mode}, this endpoint's {livemode}")
    if event_type(payload) not in EVENT_TYPES:
        return Outcome(EventState.IGNORED, f"events of type {dig(payload, 'type')} are not acted on")
    if about is None:
        return Outcome(EventState.IGNORED, "it names no subscription")
    return Outcome(EventState.PARKED, about.reason) if isinstance(about, Park) else about


def keep_body(conn: Connection, event_id: str, body: bytes, *, reason: str) -> None:
    """Keep a body that was signed by Stripe and yet can't be understood: parked for a person."""
    event.insert(
        conn,
        event_id=event_id,
        type_="unreadable",
        api_version=None,
        livemode=False,
        created_at=datetime.now(UTC),
        body=body,
        subject=event_id,
        state=EventState.PARKED,
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class Account:
    """What the registry holds of a customer: `contracts`, those of others too that are bound to one of its
    tenants; `tenants`, its own and those of its contracts."""

    customer: str
    contracts: Mapping[str, ContractRow]
    tenants: Mapping[str, TenantRow]
    gone: Collection[str]
    wishes: Wishes
    holds: Mapping[str, tuple[Hold, ...]]

    def decide(
        self, fetched: Mapping[str, Contract | Park], catalogue: Catalogue, *, zone: str, now: datetime
    ) -> Binding:
        """By what was fetched, and of what was not by what is known."""
        own = {row.id for row in self.contracts.values() if row.customer_id == self.customer}
        known = [self._known(name, fetched.get(name)) for name in sorted(own | set(fetched))]
        others = [row for row in self.contracts.values() if row.id not in own | set(fetched)]
        holders = [
            Holder(
                row.id,
                row.slug,
                row.customer_id,
                row.spec,
                row.id in self.gone,
                tuple(o.terms for o in others if o.tenant_id == row.id and o.terms is not None),
                self.holds.get(row.id, ()),
            )
            for row in self.tenants.values()
        ]
        return bind(self.customer, known, holders, catalogue, platform_zone=zone, now=now, wishes=self.wishes)

    def news(self, fetched: Mapping[str, Contract | Park]) -> set[str]:
        """Those that say something that was never read before."""
        return {
            name
            for name, found in fetched.items()
            if isinstance(found, Contract)
            and (name not in self.contracts or not found.same_news(self.contracts[name].terms))
        }

    def _known(self, name: str, found: Contract | Park | None) -> Known:
        row = self.contracts.get(name)
        read, unread = (found, None) if not isinstance(found, Park) else (None, found.reason)
        if row is None:
            return Known(name, read, unread=unread)
        return Known(name, read or row.terms, row.tenant_id, unread, row.wishes, row.alone)


def accounts(conn: Connection, customer_ids: Sequence[str], *, lock: bool = False) -> dict[str, Account]:
    """`lock`: their tenants, in the order of their ids, so that two who do this at once wait for each other
    and never for ever, and so that no purge begins over what is decided here."""
    held = tenant.of_customers(conn, customer_ids, lock=lock)
    rows = contract.of_customers(conn, customer_ids)
    gone = purge.begun_of(conn, [row.id for row in held])
    wishes = contract.wishes_of(conn, customer_ids)
    holds = hold.of_tenants(conn, [row.id for row in held])
    found = {}
    for name in customer_ids:
        bound = {row.tenant_id for row in rows if row.customer_id == name}
        own = {row.id: row for row in held if row.customer_id == name or row.id in bound}
        contracts = {row.id: row for row in rows if row.customer_id == name or row.tenant_id in own}
        found[name] = Account(name, contracts, own, gone, wishes.get(name, Wishes()), holds)
    return found


def apply(
    conn: Connection,
    customer_id: str,
    fetched: Mapping[str, Contract | Park],
    catalogue: Catalogue,
    *,
    zone: str,
    revision: int | None,
    reason: str,
    actor: str = ACTOR,
    heard: Sequence[Heard] = (),
    wishes: Wishes | None = None,
) -> Mapping[str, Verdict] | None:
    """Write what is decided by the contracts that were fetched after `revision` was read: all of it or, where
    somebody wrote since, nothing, and None is returned. Nothing `fetched`, without a `revision`: decide again
    by what is known, since time has passed or a person, who is the `actor` then, has had a word in it.
    `heard`: what was said of contracts beside; `wishes`: the customer's, where they could be read."""
    with conn.transaction():
        if not contract.lock(conn, customer_id, revision=revision):
            return None
        contract.heard(conn, customer_id, sorted(heard, key=lambda each: each.id))
        if wishes is not None:
            contract.set_wishes(conn, customer_id, wishes)
        account = accounts(conn, [customer_id], lock=True)[customer_id]
        binding = account.decide(fetched, catalogue, zone=zone, now=datetime.now(UTC))
        for asked in sorted(binding.tenants.values(), key=lambda asked: asked.tenant_id):
            _bring(conn, asked, catalogue, actor=actor, reason=reason)
            if asked.doubled:
                _tell_of_two(conn, asked)
        for name, verdict in binding.verdicts.items():
            _record(conn, account.contracts.get(name), name, fetched.get(name), verdict)
        contract.fetched(conn, list(fetched))
        contract.written(conn, customer_id)
        _say_what_is_parked(conn, account, binding)
        for row in tenant.of_customers(conn, [customer_id], lock=True):
            purges.heed_return(conn, row.id, actor=ACTOR)
        parked = {n for n, v in binding.verdicts.items() if v.outcome is ContractOutcome.PARKED}
        event.mend(conn, sorted(set(binding.verdicts) - parked), None if parked else customer_id)
    return binding.verdicts


def park(conn: Connection, heard: Sequence[Heard], why: Park) -> Verdict:
    """A contract is nobody's as far as can be read. `heard`: of that one."""
    verdict = Verdict(ContractOutcome.PARKED, why.reason, None)
    with conn.transaction():
        contract.heard(conn, None, heard)
        _record(conn, contract.get(conn, heard[0].id), heard[0].id, why, verdict)
    return verdict


def _record(
    conn: Connection,
    row: ContractRow | None,
    name: str,
    found: Contract | Park | None,
    verdict: Verdict,
) -> None:
    """What became of it, where that is news."""
    terms = found if isinstance(found, Contract) else None
    reason = "; ".join(filter(None, (verdict.reason, *_taken(conn, verdict.tenant_id)))) or None
    now = (verdict.outcome, reason, verdict.tenant_id)
    if verdict.outcome is ContractOutcome.PARKED and verdict.tenant_id is None:
        _tell(conn, row, name, str(reason))
    if row is None or (terms not in (None, row.terms)) or now != (row.outcome, row.reason, row.tenant_id):
        contract.record(
            conn, name, terms=terms, outcome=verdict.outcome, reason=reason, tenant_id=verdict.tenant_id
        )


def _tell(conn: Connection, row: ContractRow | None, name: str, reason: str) -> None:
    """A contract waits for a person, and there is no tenant that could say so: each time that it begins to,
    and for each reason."""
    if row is not None and (row.outcome, row.reason) == (ContractOutcome.PARKED, reason):
        return
    notification.add_for_billing(
        conn,
        NotificationKind.NEEDS_ATTENTION,
        once=secrets.token_hex(8),
        contract=name,
        customer=None if row is None else row.customer_id,
        reason=reason[:1000],
        runbook=RUNBOOK_PARKED,
    )


DISPUTE_HOLD_DAYS = 366
RUNBOOK_DISPUTE = "payment-disputed"


def dispute(
    conn: Connection,
    customer_id: str | None,
    catalogue: Catalogue,
    *,
    zone: str,
    what: str,
    unknown: str | None = None,
) -> Outcome:
    """Tell of a payment that is disputed, once for each tenant of its customer, and hold those whose plan
    says so. `unknown`: why it can't be said whose it is."""
    rows = [] if customer_id is None else tenant.of_customers(conn, [customer_id])
    rows = [row for row in rows if row.purged_at is None]
    nobody = unknown or f"{customer_id or 'whoever paid'} has no tenant"
    with conn.transaction():
        for row in rows:
            _dispute_of(conn, row, catalogue, what)
        if not rows:
            reason = f"{what}: {nobody}"
            notification.add_for_billing(
                conn, NotificationKind.NEEDS_ATTENTION, once=what, reason=reason, runbook=RUNBOOK_DISPUTE
            )
    if customer_id is not None and rows:
        apply(conn, customer_id, {}, catalogue, zone=zone, revision=None, reason=what)
    if unknown is not None:
        return Outcome(EventState.PARKED, unknown)
    return Outcome(reason=None if rows else nobody)


def _dispute_of(conn: Connection, row: TenantRow, catalogue: Catalogue, what: str) -> None:
    notification.add(
        conn, row.id, NotificationKind.NEEDS_ATTENTION, once=what, reason=what, runbook=RUNBOOK_DISPUTE
    )
    plan = catalogue.plans.get(row.spec.plan)
    held = any(found.kind is HoldKind.SUSPEND for found in hold.of_tenant(conn, row.id))
    if plan is not None and plan.suspend_on_dispute and not held:
        seconds = DISPUTE_HOLD_DAYS * 86_400.0
        hold.begin(conn, HoldKind.SUSPEND, row.id, seconds=seconds, actor=ACTOR, reason=what)
        detail: dict[str, object] = {"kind": HoldKind.SUSPEND.value, "reason": what}
        audit.append(conn, actor=ACTOR, action="tenant.hold", resource=row.id, detail=detail)


def tell_of_missing_events(conn: Connection, customers: Sequence[str], *, day: date) -> None:
    """A comparison found what no event has told of, of these customers: once a day, as long as it lasts."""
    if customers:
        notification.add_for_billing(
            conn,
            NotificationKind.NEEDS_ATTENTION,
            once=f"missing events {day.isoformat()}",
            reason=f"no event came of what had changed for {', '.join(customers)}",
            runbook="missing-events",
        )


def _tell_of_two(conn: Connection, asked: Asked) -> None:
    notification.add(
        conn,
        asked.tenant_id,
        NotificationKind.NEEDS_ATTENTION,
        once=f"paid twice: {' '.join(asked.doubled)}",
        reason=f"it is paid for by more than one contract: {', '.join(asked.doubled)}",
        runbook="paid-twice",
    )


def _bring(conn: Connection, asked: Asked, catalogue: Catalogue, *, actor: str, reason: str) -> None:
    founder = None if asked.founder is None else contract.get(conn, asked.founder)
    tenants.bring_to(
        conn,
        tenants.Request(
            tenant_id=asked.tenant_id,
            customer_id=asked.customer,
            display_name=asked.wishes.name,
            requested_slug=asked.wishes.slug or asked.wishes.name,
            spec=asked.spec,
            paid_at=None if founder is None else founder.paid_at or founder.first_event_at,
            warnings=asked.warnings,
            refused=asked.refused,
        ),
        catalogue,
        actor=actor,
        reason=reason,
    )


def _say_what_is_parked(conn: Connection, account: Account, binding: Binding) -> None:
    """At the tenants that it is bound to: a person is needed as long as one is."""
    parked = {
        verdict.tenant_id: verdict.reason
        for verdict in binding.verdicts.values()
        if verdict.outcome is ContractOutcome.PARKED
    }
    for row in account.tenants.values():
        if row.id in parked:
            tenant.set_attention(conn, row.id, reason=parked[row.id], runbook=RUNBOOK_PARKED)
        elif row.runbook == RUNBOOK_PARKED:
            tenant.set_attention(conn, row.id, reason=None, runbook=None)


def _taken(conn: Connection, tenant_id: str | None) -> list[str]:
    if tenant_id is None:
        return []
    return [str(d) for d in tenant.refused_domains(conn, tenant_id) if d.reason == TAKEN]


def out_of_step(
    account: Account,
    fetched: Mapping[str, Contract | Park],
    catalogue: Catalogue,
    *,
    zone: str,
    now: datetime,
    free: Mapping[str, Collection[str]],
) -> set[str]:
    """Of what was fetched, the contracts of which the registry does not hold what `apply` would write.
    `free`: by tenant, those of the domains that it did not get that are nobody else's by now."""
    binding = account.decide(fetched, catalogue, zone=zone, now=now)
    differing = set()
    for name, found in fetched.items():
        row, verdict = account.contracts.get(name), binding.verdicts[name]
        read = not isinstance(found, Contract) or (row is not None and row.terms == found)
        if row is None or not read or (row.outcome, row.tenant_id) != (verdict.outcome, verdict.tenant_id):
            differing.add(name)
    for asked in binding.tenants.values():
        held = account.tenants.get(asked.tenant_id)
        if held is None or not _as_asked(asked, held, free.get(asked.tenant_id, ())):
            differing |= {n for n, v in binding.verdicts.items() if v.tenant_id == asked.tenant_id}
    return differing & set(fetched)


def _as_asked(asked: Asked, row: TenantRow, free: Collection[str]) -> bool:
    spec, requested = row.spec, set(asked.spec.custom_domains)
    granted = set(spec.custom_domains)
    if replace(asked.spec, custom_domains=spec.custom_domains) != spec:
        return False
    if spec.lifecycle is Lifecycle.CLOSED:
        return granted <= requested
    taken = {domain.host for domain in row.refused_domains if domain.reason == TAKEN}
    others = {domain for domain in row.refused_domains if domain.reason != TAKEN}
    return granted | taken == requested and not taken & set(free) and others == set(asked.refused)


def _instant(seconds: Any) -> datetime:
    """Stripe's `created`, of a thin event a text; the moment of arrival where it is not a sensible time."""
    if isinstance(seconds, str):
        try:
            return datetime.fromisoformat(seconds).astimezone(UTC)
        except (ValueError, OverflowError):
            return datetime.now(UTC)
    if isinstance(seconds, int) and not isinstance(seconds, bool) and 0 < seconds < 2**33:
        return datetime.fromtimestamp(seconds, UTC)
    return datetime.now(UTC)
