"""Billing: keep what the billing system says, and turn it into what a tenant should be.

`record_event` is all that stands between a webhook and its 200, so it is one insert. The rest is the
worker's: `subscription.touch` reads the revision, the worker fetches the object from Stripe as it is
*now*, `apply` writes the decision only if nobody wrote since. An object fetched earlier can therefore
never overwrite one fetched later, whatever the order of the events (I12).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.billing import (
    EVENT_TYPES,
    Apply,
    Decision,
    EventState,
    Park,
    SubscriptionOutcome,
    SubscriptionRef,
    Turn,
    Wait,
    foreign_account,
    subscription_of_event,
)
from controlplane.domain.catalogue import Catalogue
from controlplane.domain.hostname import TAKEN
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Lifecycle
from controlplane.services import purges, tenants
from controlplane.store import event, purge, subscription, tenant
from controlplane.store.registry import Connection
from controlplane.store.subscription import SubscriptionRow

ACTOR = "billing"
NO_SUBSCRIPTION = "it is about no subscription"


@dataclass(frozen=True, slots=True)
class Recorded:
    """`new`: False for a duplicate. `due`: whether a worker should be notified."""

    event_id: str
    new: bool
    due: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a subscription. `stale`: somebody wrote since the fetch, fetch again."""

    stale: bool = False
    state: EventState = EventState.APPLIED
    reason: str | None = None


def record_event(
    conn: Connection, payload: Mapping[str, Any], body: bytes, *, livemode: bool, account: str | None = None
) -> Recorded:
    """Store a verified event, once. An event of another account or mode, or of a type that is not acted on,
    is stored and done with. `account`: our own's id, where it is known."""
    event_id, type_ = str(payload["id"]), str(payload["type"])
    state, reason = EventState.RECEIVED, foreign_account(payload, account)
    if reason is not None:
        state = EventState.IGNORED
    elif payload.get("livemode") is not livemode:
        state, reason = (
            EventState.PARKED,
            f"the event's livemode is {payload.get('livemode')}, this endpoint's {livemode}",
        )
    elif type_ not in EVENT_TYPES:
        state, reason = EventState.IGNORED, f"events of type {type_} are not acted on"
    about = subscription_of_event(payload) if state is EventState.RECEIVED else None
    if state is EventState.RECEIVED and about is None:
        state, reason = EventState.IGNORED, NO_SUBSCRIPTION
    elif isinstance(about, Park):
        state, reason = EventState.PARKED, about.reason
    ref = about if isinstance(about, SubscriptionRef) else SubscriptionRef(None, None, None)
    new = event.insert(
        conn,
        event_id=event_id,
        type_=type_,
        api_version=payload.get("api_version"),
        livemode=payload.get("livemode") is True,
        created_at=_instant(payload.get("created")),
        body=body,
        subject=ref.subscription_id or ref.customer_id or event_id,
        customer_id=ref.customer_id,
        state=state,
        reason=reason,
    )
    return Recorded(event_id, new, due=new and state is EventState.RECEIVED)


def keep_body(conn: Connection, event_id: str, body: bytes, *, state: EventState, reason: str) -> None:
    """Keep a body that was signed by Stripe and yet can't be understood: parked for a person, or ignored."""
    event.insert(
        conn,
        event_id=event_id,
        type_="unreadable",
        api_version=None,
        livemode=False,
        created_at=datetime.now(UTC),
        body=body,
        subject=event_id,
        state=state,
        reason=reason,
    )


def apply(
    conn: Connection,
    row: SubscriptionRow,
    decision: Decision,
    catalogue: Catalogue,
    *,
    status: str | None,
    customer_id: str | None,
    reason: str,
) -> Outcome:
    """Write what was decided from an object fetched after `row` was read; all of it or, where somebody wrote
    since, nothing. `customer_id`: whose it is, known of a subscription that waits or is parked too."""
    tenant_id = row.tenant_id or tenant_id_for(row.id)
    customer_id = customer_id or row.customer_id
    with conn.transaction():
        if not subscription.lock(conn, row.id, revision=row.revision):
            return Outcome(stale=True)
        if customer_id is not None:
            tenant.lock_of_customer(conn, customer_id)  # so that no purge begins over what is written here
        tenant_id = _life(conn, row.id, tenant_id, decision)
        outcome, why, request = _request(conn, tenant_id, row, decision)
        if (
            request is not None
            and request.spec.lifecycle is Lifecycle.CLOSED
            and tenant.find(conn, tenant_id) is None
        ):
            outcome, why, request = (
                SubscriptionOutcome.IGNORED,
                "it ended before it was ever provisioned",
                None,
            )
        if request is not None:
            tenants.bring_to(conn, request, catalogue, actor=ACTOR, reason=reason)
            taken = [d for d in tenant.refused_domains(conn, tenant_id) if d.reason == TAKEN]
            why = "; ".join(filter(None, (why, *map(str, taken)))) or None
        subscription.record(
            conn,
            row.id,
            customer_id=customer_id,
            status=status,
            outcome=outcome,
            reason=why,
            tenant_id=tenant_id if request is not None else None,
        )
        if isinstance(decision, Park) and row.tenant_id is not None:
            tenant.set_attention(conn, row.tenant_id, reason=decision.reason, runbook="parked-subscription")
        if customer_id is not None:
            for other in tenant.lock_of_customer(conn, customer_id):
                purges.heed_return(conn, other.id, actor=ACTOR)
    handled = outcome is SubscriptionOutcome.WAITING
    state = EventState.APPLIED if handled else EventState(outcome)
    return Outcome(state=state, reason=why)


def _life(conn: Connection, subscription_id: str, tenant_id: str, decision: Decision) -> str:
    """The tenant that this decision is about: a subscription that is revived after its data is gone, or
    going (not by Stripe, where what has ended stays so), begins anew as another tenant, whose id is derived
    likewise."""
    if not isinstance(decision, Apply) or decision.spec.lifecycle is Lifecycle.CLOSED:
        return tenant_id
    tenant.find(conn, tenant_id, lock=True)  # so that a purge does not begin at this moment
    life = 1
    while purge.begun(conn, tenant_id):
        life += 1
        tenant_id = tenant_id_for(f"{subscription_id}#{life}")
    return tenant_id


def _request(
    conn: Connection, tenant_id: str, row: SubscriptionRow, decision: Decision
) -> tuple[SubscriptionOutcome, str | None, tenants.Request | None]:
    match decision:
        case Apply():
            return (
                SubscriptionOutcome.APPLIED,
                "; ".join(decision.warnings) or None,
                tenants.Request(
                    tenant_id=tenant_id,
                    customer_id=decision.customer_id,
                    display_name=decision.display_name,
                    requested_slug=decision.requested_slug,
                    spec=decision.spec,
                    paid_at=row.first_event_at,
                    warnings=decision.warnings,
                    refused=decision.refused,
                ),
            )
        case Turn():
            known = tenant.find(conn, tenant_id)
            if known is None:
                over = decision.lifecycle is Lifecycle.CLOSED
                outcome = SubscriptionOutcome.IGNORED if over else SubscriptionOutcome.PARKED
                return outcome, decision.reason, None
            return (
                SubscriptionOutcome.APPLIED,
                decision.reason,
                tenants.Request(
                    tenant_id=tenant_id,
                    customer_id=known.customer_id,
                    display_name=known.display_name,
                    requested_slug=None,
                    spec=replace(
                        known.spec,
                        lifecycle=decision.lifecycle,
                        subscription_status=decision.subscription_status,
                    ),
                    paid_at=known.paid_at,
                ),
            )
        case Wait():
            return SubscriptionOutcome.WAITING, decision.reason, None
        case Park():
            return SubscriptionOutcome.PARKED, decision.reason, None


def _instant(seconds: Any) -> datetime:
    """Stripe's `created`; the moment of arrival where it is not a sensible time."""
    if isinstance(seconds, int) and not isinstance(seconds, bool) and 0 < seconds < 2**33:
        return datetime.fromtimestamp(seconds, UTC)
    return datetime.now(UTC)
