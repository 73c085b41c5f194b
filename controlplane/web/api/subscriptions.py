"""/v1/subscriptions: what became of the last observation of each, above all of those that are parked."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from controlplane.domain.billing import SubscriptionOutcome
from controlplane.store import subscription
from controlplane.store.subscription import SubscriptionRow
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("subscriptions", __name__, url_prefix="/v1/subscriptions")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor", "outcome")
        size, after = query.limit(), query.cursor("subscriptions", query.time_position)
        outcome = query.choice("outcome", tuple(SubscriptionOutcome))
        with edge.registry.connection() as conn:
            rows = subscription.page(conn, after=after, limit=size + 1, outcome=outcome)
        rows, next_cursor = query.page(
            "subscriptions", rows, size, lambda row: [row.first_event_at.isoformat(), row.id]
        )
        return render.listing([_brief(row) for row in rows], next_cursor)

    return views


def _brief(row: SubscriptionRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "customer": row.customer_id,
        "status": row.status,
        "outcome": row.outcome,
        "reason": row.reason,
        "tenant": row.tenant_id,
        "first_event_at": render.moment(row.first_event_at),
        "fetched_at": render.moment(row.fetched_at),
    }
