"""From an event in the inbox to what a tenant should be.

The event only says which subscription to look at. The object is fetched from Stripe as it is now, so
duplicates, order and delay make no difference; where somebody else wrote between the fetch and the
write, it is fetched again. What can't be understood is parked with a reason, what Stripe can't answer
now is deferred with a growing delay, and an event that fails again and again is parked in the end, so
that it never holds up the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.billing import (
    Decision,
    EventState,
    Park,
    SubscriptionRef,
    foreign_account,
    spec_from_subscription,
    subscription_of_event,
)
from controlplane.domain.errors import NotFound, Retryable
from controlplane.domain.job import Job, Trouble
from controlplane.domain.stripe_json import id_or_none, parsed
from controlplane.services import billing
from controlplane.services.billing import NO_SUBSCRIPTION, Outcome
from controlplane.store import event, job, subscription
from controlplane.store.event import EventRow
from controlplane.store.registry import Connection
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold

FETCHES = 5


def handle(ctx: Context, hold: Hold) -> None:
    """Handle all events that were received about the job's subject: what they are about is fetched once, as
    it is now, however many there are."""
    with ctx.registry.connection() as conn:
        rows = event.received(conn, hold.job.subject)
    ours, refs = list[EventRow](), list[SubscriptionRef]()
    for row in rows:
        payload = parsed(row.body)
        if payload is None:
            _finish(hold, [row], Outcome(state=EventState.PARKED, reason="its body can't be read"))
            continue
        foreign, ref = foreign_account(payload, ctx.platform.stripe_account), subscription_of_event(payload)
        if foreign is not None or ref is None:
            _finish(hold, [row], Outcome(state=EventState.IGNORED, reason=foreign or NO_SUBSCRIPTION))
        elif isinstance(ref, Park):
            _finish(hold, [row], Outcome(state=EventState.PARKED, reason=ref.reason))
        else:
            ours.append(row)
            refs.append(ref)
    if ours:
        with job.caused_by(event=ours[0].id):
            outcome = _apply(ctx, ours, refs)
        _finish(hold, ours, outcome, refs[0].subscription_id)


def trouble(conn: Connection, failed: Job, what: Trouble) -> None:
    """What can't be handled is parked, and holds up no other."""
    if what.after is not None:
        event.note(conn, failed.subject, what.message)
        return
    ids = [row.id for row in event.received(conn, failed.subject)]
    event.finish(conn, ids, EventState.PARKED, reason=what.message, subscription_id=None)


def _apply(ctx: Context, rows: Sequence[EventRow], refs: Sequence[SubscriptionRef]) -> Outcome:
    """`refs`: all to the same subscription, or to none and the same customer."""
    event_at, reason = min(row.created_at for row in rows), f"{rows[0].type} {rows[0].id}"
    ref = refs[0]
    if ref.subscription_id is not None:
        sessions = [found.session_id for found in refs if found.session_id is not None]
        return apply_subscription(
            ctx,
            ref.subscription_id,
            event_at=event_at,
            reason=reason,
            session_id=sessions[-1] if sessions else None,
        )
    if ref.customer_id is None:
        return Outcome(state=EventState.PARKED, reason="it names neither a subscription nor a customer")
    outcomes = [
        apply_subscription(ctx, str(found["id"]), event_at=event_at, reason=reason)
        for found in ctx.providers.billing.subscriptions_of(ref.customer_id)
    ]
    if not outcomes:
        return Outcome(state=EventState.IGNORED, reason="the customer has no subscription")
    parked = next((outcome for outcome in outcomes if outcome.state is EventState.PARKED), None)
    return parked or Outcome()


def _finish(
    hold: Hold, rows: Sequence[EventRow], outcome: Outcome, subscription_id: str | None = None
) -> None:
    with hold.recording() as conn:
        ids = [row.id for row in rows]
        event.finish(conn, ids, outcome.state, reason=outcome.reason, subscription_id=subscription_id)


def apply_subscription(
    ctx: Context, subscription_id: str, *, event_at: datetime, reason: str, session_id: str | None = None
) -> Outcome:
    """Fetch the subscription as it is now and bring its tenant to it. `event_at`: when Stripe first
    spoke of it, from which the time to the first page counts."""
    for _ in range(FETCHES):
        with ctx.registry.connection() as conn:
            known = subscription.touch(conn, subscription_id, event_at=event_at)
        decision, status, customer_id = _decide(ctx, subscription_id, session_id)
        with ctx.registry.connection() as conn:
            outcome = billing.apply(
                conn,
                known,
                decision,
                ctx.catalogue,
                status=status,
                customer_id=customer_id,
                reason=reason,
            )
        if not outcome.stale:
            return outcome
    raise Retryable(f"{subscription_id} changed under every one of {FETCHES} fetches")


def _decide(
    ctx: Context, subscription_id: str, session_id: str | None
) -> tuple[Decision, str | None, str | None]:
    """The decision, Stripe's word for the status, and whose subscription it is."""
    source = ctx.providers.billing
    try:
        fetched = source.subscription(subscription_id)
        session = source.checkout_session(session_id) if session_id is not None else None
    except NotFound as error:
        return Park(str(error)), None, None
    customer_id = id_or_none(fetched, "customer", "cus")
    if fetched.get("livemode") is not ctx.platform.livemode:
        return Park(f"subscription.livemode: expected {ctx.platform.livemode} here"), None, customer_id
    customer = _customer(ctx, fetched.get("customer"))
    decision = spec_from_subscription(
        fetched,
        ctx.catalogue,
        platform_zone=ctx.platform.zone,
        now=datetime.now(UTC),
        session=session,
        customer=customer,
    )
    status = fetched.get("status")
    return decision, status if isinstance(status, str) else None, customer_id


def _customer(ctx: Context, customer_id: Any) -> dict[str, Any] | None:
    """It only lends a name, so a tenant does not depend on its being there."""
    if not isinstance(customer_id, str):
        return None
    try:
        return ctx.providers.billing.customer(customer_id)
    except NotFound:
        return None
