"""From an event in the inbox to what a tenant should be.

The event only says which subscription to look at. The object is fetched from Stripe as it is now, so
duplicates, order and delay make no difference; where somebody else wrote between the fetch and the
write, it is fetched again. What can't be understood is parked with a reason, what Stripe can't answer
now is deferred with a growing delay, and an event that fails again and again is parked in the end, so
that it never holds up the others.
"""

from __future__ import annotations

import json
import logging
import random
from datetime import UTC, datetime
from typing import Any

from controlplane import task_names
from controlplane.domain.billing import (
    Decision,
    EventState,
    Park,
    SubscriptionRef,
    foreign_account,
    spec_from_subscription,
    subscription_of_event,
)
from controlplane.domain.errors import ControlPlaneError, LeaseLost, NotFound, Retryable
from controlplane.domain.operation import backoff
from controlplane.domain.stripe_json import id_or_none
from controlplane.services import billing
from controlplane.services.billing import EVENT_ATTEMPTS, Outcome
from controlplane.store import event, operation, subscription
from controlplane.store.event import EventRow
from controlplane.store.registry import RegistryUnavailable
from controlplane.workers.engine.context import Context

log = logging.getLogger(__name__)

TASK = task_names.HANDLE_EVENT
HOLD = 20.0  # seconds after which an event whose worker died is due again
FETCHES = 5


def handle_event(ctx: Context, event_id: str) -> EventState | None:
    """Handle one event of the inbox: the state it ended in ("received" where it was deferred), None
    where it is handled or in other hands. Raises RegistryUnavailable, and LeaseLost where its hold ran out
    and another worker has handled it."""
    with ctx.registry.connection() as conn, conn.transaction():
        row = event.take(conn, event_id, hold=HOLD)
        if row is None:
            return None
        body = event.body(conn, event_id)
    try:
        with operation.caused_by(event=row.id):
            return _handle(ctx, row, body)
    except (RegistryUnavailable, LeaseLost):
        raise
    except Exception as error:  # noqa: BLE001 — an event that can't be handled must not hold up the others
        return _defer_or_park(ctx, row, error)


def _handle(ctx: Context, row: EventRow, body: bytes) -> EventState:
    payload = json.loads(body)
    foreign = foreign_account(payload, ctx.platform.stripe_account)
    if foreign is not None:
        return _finish(ctx, row, EventState.IGNORED, foreign, None)
    ref = subscription_of_event(payload)
    if ref is None:
        return _finish(ctx, row, EventState.IGNORED, "it is about no subscription", None)
    if isinstance(ref, Park):
        return _finish(ctx, row, EventState.PARKED, ref.reason, None)
    if ref.subscription_id is not None:
        outcome = apply_subscription(
            ctx, ref.subscription_id, event_at=row.created_at, reason=_reason(row), session_id=ref.session_id
        )
        return _finish(ctx, row, outcome.state, outcome.reason, ref.subscription_id)
    return _handle_customer(ctx, row, ref)


def _handle_customer(ctx: Context, row: EventRow, ref: SubscriptionRef) -> EventState:
    if ref.customer_id is None:
        return _finish(ctx, row, EventState.PARKED, "it names neither a subscription nor a customer", None)
    outcomes = [
        apply_subscription(ctx, str(found["id"]), event_at=row.created_at, reason=_reason(row))
        for found in ctx.providers.billing.subscriptions_of(ref.customer_id)
    ]
    if not outcomes:
        return _finish(ctx, row, EventState.IGNORED, "the customer has no subscription", None)
    parked = next((outcome for outcome in outcomes if outcome.state is EventState.PARKED), None)
    if parked is not None:
        return _finish(ctx, row, EventState.PARKED, parked.reason, None)
    return _finish(ctx, row, EventState.APPLIED, None, None)


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
            for kind, resource_id in outcome.notify:
                ctx.notify(task_names.CONVERGE, [kind, resource_id])
            return outcome
    raise Retryable(f"{subscription_id} changed under every one of {FETCHES} fetches")


def _reason(row: EventRow) -> str:
    return f"{row.type} {row.id}"


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


def _finish(
    ctx: Context, row: EventRow, state: EventState, reason: str | None, subscription_id: str | None
) -> EventState:
    with ctx.registry.connection() as conn:
        event.finish(conn, row.id, state, reason=reason, subscription_id=subscription_id)
    return state


def _defer_or_park(ctx: Context, row: EventRow, error: Exception) -> EventState:
    known = isinstance(error, ControlPlaneError)
    reason = str(error) if known else f"unexpected {type(error).__name__}"
    log.warning("event %s, attempt %d: %s", row.id, row.attempts, reason)
    if row.attempts >= EVENT_ATTEMPTS or (known and not isinstance(error, Retryable)):
        return _finish(ctx, row, EventState.PARKED, reason, None)
    wait = backoff(row.attempts, jitter=random.random())  # noqa: S311 — spreads load, guards nothing
    after = error.after if isinstance(error, Retryable) and error.after is not None else 0.0
    with ctx.registry.connection() as conn:
        event.defer(conn, row.id, after=max(wait, after), reason=reason)
    return EventState.RECEIVED
