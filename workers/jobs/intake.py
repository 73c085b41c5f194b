"""From events in the inbox to what a customer's tenants should be.

The events only say whose contracts to look at. All of the customer's are fetched from Stripe as they are now,
so duplicates, order and delay make no difference; where somebody else wrote between the fetch and the write,
they are fetched again. What can't be understood is parked with a reason, what Stripe can't answer now is
deferred with a growing delay, and an event that fails again and again is parked in the end, so that it never
holds up the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.billing import (
    EventState,
    SubscriptionRef,
    contract_of,
    wishes_of_checkout,
    wishes_of_customer,
)
from controlplane.domain.binding import Verdict
from controlplane.domain.contract import NO_WISHES, Contract, ContractOutcome, Park, Standing, Wishes
from controlplane.domain.errors import NeedsHuman, NotFound, Retryable
from controlplane.domain.job import Job, Trouble
from controlplane.domain.stripe_json import ANY, id_or_none, parsed
from controlplane.services import billing
from controlplane.services.billing import Outcome
from controlplane.store import contract, event, job
from controlplane.store.contract import Heard
from controlplane.store.event import ReceivedRow
from controlplane.store.registry import Connection
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold

FETCHES = 5
log = logging.getLogger(__name__)


def handle(ctx: Context, hold: Hold) -> None:
    """Handle all events that were received about the job's subject: what they are about is fetched once, as
    it is now, however many there are."""
    with ctx.registry.connection() as conn:
        rows = event.received(conn, hold.job.subject)
        of_customer = contract.is_customer(conn, hold.job.subject)
    ours: list[tuple[ReceivedRow, SubscriptionRef]] = []
    done: list[tuple[ReceivedRow, Outcome, str | None]] = []
    for row in rows:
        payload, platform = parsed(row.body), ctx.platform
        ref = billing.read_event(payload, livemode=platform.livemode, account=platform.stripe_account)
        if payload is None:
            done.append((row, Outcome(EventState.PARKED, "its body can't be read"), None))
        elif isinstance(ref, Outcome):
            done.append((row, ref, None))
        elif ref.charge_id is not None:
            done.append((row, _disputed(ctx, row, ref.charge_id), None))
        else:
            ours.append((row, ref))
    person = hold.job.asked or {}
    with job.caused_by(event=ours[0][0].id if ours else None, request=person.get("request")):
        if ours:
            outcomes = _apply(ctx, ours, person)
            done += [(row, outcomes(ref), ref.subscription_id) for row, ref in ours]
        elif of_customer:
            _decide_again(ctx, hold.job, person)
    with hold.recording() as conn:
        for row, outcome, contract_id in done:
            event.finish(conn, [row.id], outcome.state, reason=outcome.reason, contract_id=contract_id)


def _disputed(ctx: Context, row: ReceivedRow, charge_id: str) -> Outcome:
    """A bank takes a payment back, or warns of fraud: whose it was is told of, and not served where its plan
    says so."""
    customer_id, why = None, None
    try:
        customer_id = id_or_none(ctx.providers.billing.charge(charge_id), "customer", ANY)
    except (NotFound, NeedsHuman) as error:
        why = str(error)
    with ctx.registry.connection() as conn:
        return billing.dispute(
            conn,
            customer_id,
            ctx.catalogue,
            zone=ctx.platform.zone,
            what=f"{row.type} {row.id} of {charge_id}",
            unknown=why,
        )


def _decide_again(ctx: Context, asked: Job, person: Mapping[str, Any]) -> None:
    """By what is known, since a person has had a word in it: that holds while Stripe is silent, too."""
    with ctx.registry.connection() as conn:
        billing.apply(
            conn,
            asked.subject,
            {},
            ctx.catalogue,
            zone=ctx.platform.zone,
            revision=None,
            reason=person.get("reason", asked.reason),
            actor=person.get("actor", billing.ACTOR),
        )


def trouble(conn: Connection, failed: Job, what: Trouble) -> None:
    """What can't be handled is parked, and holds up no other."""
    if what.after is not None:
        event.note(conn, failed.subject, what.message)
        return
    ids = [row.id for row in event.received(conn, failed.subject)]
    event.finish(conn, ids, EventState.PARKED, reason=what.message, contract_id=None)


class _Outcomes:
    """What became of an event, by what became of the contracts."""

    def __init__(self, verdicts: Mapping[str, Verdict]) -> None:
        self._verdicts = verdicts

    def __call__(self, ref: SubscriptionRef) -> Outcome:
        if ref.subscription_id is not None:
            return _outcome(self._verdicts[ref.subscription_id])
        if not self._verdicts:
            return Outcome(EventState.IGNORED, "the customer has no subscription")
        outcomes = [_outcome(verdict) for verdict in self._verdicts.values()]
        return next((found for found in outcomes if found.state is EventState.PARKED), Outcome())


def _outcome(verdict: Verdict) -> Outcome:
    if verdict.outcome is ContractOutcome.WAITING:
        return Outcome(EventState.APPLIED, verdict.reason)
    return Outcome(EventState(verdict.outcome), verdict.reason)


def _apply(
    ctx: Context, ours: Sequence[tuple[ReceivedRow, SubscriptionRef]], person: Mapping[str, Any]
) -> _Outcomes:
    """`ours`: all of one customer, or about one subscription of which the event does not say whose it is.
    `person`: the cause of one who has asked meanwhile."""
    first, ref = ours[0]
    customer_id = ref.customer_id or _customer_of(ctx, str(ref.subscription_id))
    heard = [
        Heard(r.subscription_id, row.created_at, r.paid) for row, r in ours if r.subscription_id is not None
    ]
    if isinstance(customer_id, Park):
        return _Outcomes({heard[0].id: park(ctx, heard, customer_id)})
    actor, reason = person.get("actor", billing.ACTOR), person.get("reason", f"{first.type} {first.id}")
    return _Outcomes(apply_customer(ctx, customer_id, reason=reason, actor=actor, heard=heard))


def _customer_of(ctx: Context, subscription_id: str) -> str | Park:
    try:
        found = contract_of(ctx.providers.billing.subscription(subscription_id))
    except NotFound as error:
        return Park(str(error))
    return found if isinstance(found, Park) else found.customer


def park(ctx: Context, heard: Sequence[Heard], why: Park) -> Verdict:
    """A contract is nobody's as far as can be read: noted, for a person. `heard`: of that one."""
    with ctx.registry.connection() as conn:
        return billing.park(conn, heard, why)


def apply_customer(
    ctx: Context, customer_id: str, *, reason: str, actor: str = billing.ACTOR, heard: Sequence[Heard] = ()
) -> Mapping[str, Verdict]:
    """Fetch all contracts of the customer as they are now and bring its tenants to them. By contract, what
    became of each."""
    for _ in range(FETCHES):
        with ctx.registry.connection() as conn:
            revision = contract.revision(conn, customer_id)
            bound = contract.bound_of(conn, customer_id)
        items = {str(item["id"]): item for item in ctx.providers.billing.subscriptions_of(customer_id)}
        fetched: dict[str, Contract | Park] = {
            each.id: Park(f"Stripe knows no subscription {each.id} of {customer_id}") for each in heard
        }
        fetched |= {name: read(ctx, item) for name, item in items.items()}
        wishes = _lends_a_name(ctx.providers.billing.customer, customer_id) if items else None
        typed = {name: _typed(ctx, found) for name, found in fetched.items() if name not in bound}
        with ctx.registry.connection() as conn:
            verdicts = billing.apply(
                conn,
                customer_id,
                fetched,
                ctx.catalogue,
                zone=ctx.platform.zone,
                revision=revision,
                reason=reason,
                actor=actor,
                heard=[
                    *heard,
                    *(
                        Heard(name, created(item), wishes=typed.get(name, NO_WISHES))
                        for name, item in items.items()
                    ),
                ],
                wishes=None if wishes is None else wishes_of_customer(wishes),
            )
        if verdicts is not None:
            return verdicts
    raise Retryable(f"the contracts of {customer_id} changed under every one of {FETCHES} fetches")


def _typed(ctx: Context, found: Contract | Park) -> Wishes:
    """What was wished for at the checkout of one that may found a tenant, where it says no slug itself: asked
    for, not waited for, since the checkout's own event may come behind the subscription's (I12)."""
    if isinstance(found, Park) or found.standing is Standing.ENDED or found.wishes.slug:
        return NO_WISHES
    return wishes_of_checkout(_lends_a_name(ctx.providers.billing.checkout_of, found.id))


def read(ctx: Context, item: Mapping[str, Any]) -> Contract | Park:
    """A subscription that was fetched, as a contract."""
    if item.get("livemode") is not ctx.platform.livemode:
        return Park(f"subscription.livemode: expected {ctx.platform.livemode} here")
    return contract_of(item)


def _lends_a_name(fetch: Callable[[str], dict[str, Any] | None], key: str) -> dict[str, Any] | None:
    """A customer or a checkout session: it only lends a name, so nobody who pays waits for one that is not
    there or that our key may not read."""
    try:
        return fetch(key)
    except NotFound:
        return None
    except NeedsHuman as error:
        log.warning("%s lends no name: %s", key, error)
        return None


def created(item: Mapping[str, Any]) -> datetime:
    """When a subscription was, for one of which no event was heard."""
    at = item.get("created")
    return datetime.fromtimestamp(at, UTC) if isinstance(at, int) else datetime.now(UTC)
