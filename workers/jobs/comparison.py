"""The comparison with Stripe: a webhook that never came is found here.

Stripe retries for three days and then forgets; an endpoint that was misconfigured for longer, or a
secret that was rolled badly, loses events for good. So every subscription is listed from time to time
and held against the registry. The same pure decision as for an event says what its tenant should be;
only where the two differ is anything fetched or written, by the same path as for an event.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from controlplane.domain.billing import (
    Apply,
    Decision,
    Park,
    SubscriptionOutcome,
    Turn,
    Wait,
    spec_from_subscription,
)
from controlplane.domain.hostname import TAKEN
from controlplane.domain.tenant import Lifecycle, TenantSpec
from controlplane.store import subscription
from controlplane.store.subscription import Known
from controlplane.workers.engine.context import Context
from controlplane.workers.jobs.intake import apply_subscription

log = logging.getLogger(__name__)

BATCH = 100
REASON = "comparison with Stripe"


@dataclass(frozen=True, slots=True)
class Compared:
    subscriptions: int
    out_of_step: int


def compare(ctx: Context) -> Compared:
    """Hold every subscription against the registry and repair what differs. Raises Retryable and
    NeedsHuman where Stripe does not answer."""
    listed = iter(ctx.providers.billing.subscriptions())
    total = differing = 0
    while batch := list(islice(listed, BATCH)):
        with ctx.registry.connection() as conn:
            known = subscription.known(conn, [str(found["id"]) for found in batch])
        for found in batch:
            total += 1
            decision = spec_from_subscription(
                found, ctx.catalogue, platform_zone=ctx.platform.zone, now=datetime.now(UTC)
            )
            if in_step(decision, known.get(str(found["id"]))):
                continue
            differing += 1
            log.warning("%s is not as Stripe has it", found["id"])
            apply_listed(ctx, found, reason=REASON)
    return Compared(total, differing)


def apply_listed(ctx: Context, found: Mapping[str, Any], *, reason: str) -> None:
    """Handle a subscription of a listing as an event about it would have been."""
    apply_subscription(ctx, str(found["id"]), event_at=_created(found), reason=reason)


def in_step(decision: Decision, known: Known | None) -> bool:
    """Does the registry hold what this decision would write?"""
    if known is None:
        return False
    spec = known.spec
    match decision:
        case Wait():
            return known.outcome is SubscriptionOutcome.WAITING
        case Park():
            return known.outcome is SubscriptionOutcome.PARKED
        case Turn():
            nothing = known.outcome in (SubscriptionOutcome.IGNORED, SubscriptionOutcome.PARKED)
            return nothing if spec is None else spec.lifecycle is decision.lifecycle
        case Apply():
            if spec is None:
                return decision.spec.lifecycle is Lifecycle.CLOSED
            granted = spec.custom_domains
            alike = replace(decision.spec, custom_domains=granted) == spec
            applied = known.outcome is SubscriptionOutcome.APPLIED
            return applied and alike and _domains_in_step(decision, spec, known)


def _domains_in_step(decision: Apply, spec: TenantSpec, known: Known) -> bool:
    """Each request is granted or refused as it would be now: a domain that another tenant had may be free."""
    requested, granted = set(decision.spec.custom_domains), set(spec.custom_domains)
    if spec.lifecycle is Lifecycle.CLOSED:
        return granted <= requested
    taken = {domain.host for domain in known.refused if domain.reason == TAKEN}
    others = {domain for domain in known.refused if domain.reason != TAKEN}
    return granted | taken == requested and not taken & known.free and others == set(decision.refused)


def _created(found: Mapping[str, Any]) -> datetime:
    created = found.get("created")
    return datetime.fromtimestamp(created, UTC) if isinstance(created, int) else datetime.now(UTC)
