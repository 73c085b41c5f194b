"""/v1/contracts: what became of the last observation of each, above all of those that are parked."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from controlplane.domain.contract import ContractOutcome
from controlplane.store import contract
from controlplane.store.contract import ContractRow
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("contracts", __name__, url_prefix="/v1/contracts")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor", "outcome")
        size, after = query.limit(), query.cursor("contracts", query.time_position)
        outcome = query.choice("outcome", tuple(ContractOutcome))
        with edge.registry.connection() as conn:
            rows = contract.page(conn, after=after, limit=size + 1, outcome=outcome)
        rows, next_cursor = query.page(
            "contracts", rows, size, lambda row: [row.first_event_at.isoformat(), row.id]
        )
        return render.listing([brief(row) for row in rows], next_cursor)

    return views


def brief(row: ContractRow) -> dict[str, Any]:
    terms = row.terms
    return {
        "id": row.id,
        "customer": row.customer_id,
        "standing": None if row.standing is None else row.standing.value,
        "status": None if terms is None else terms.status,
        "outcome": row.outcome,
        "reason": row.reason,
        "tenant": row.tenant_id,
        "proposed": row.proposed,
        "period_end": None if terms is None else render.moment(terms.period_end),
        "first_event_at": render.moment(row.first_event_at),
        "paid_at": render.moment(row.paid_at),
        "fetched_at": render.moment(row.fetched_at),
    }
