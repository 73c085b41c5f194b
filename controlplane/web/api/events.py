"""/v1/events: the inbox of billing events."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.domain.billing import EventState
from controlplane.services import events
from controlplane.store import event
from controlplane.store.event import EventRow
from controlplane.web import body, query
from controlplane.web.api import render
from controlplane.web.auth import OPERATORS, READERS, Role, caller
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("events", __name__, url_prefix="/v1/events")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor", "state")
        size, before = query.limit(), query.cursor("events", query.time_position)
        state = query.choice("state", tuple(EventState))
        with edge.registry.connection() as conn:
            rows = event.page(conn, before=before, limit=size + 1, state=state)
        rows, next_cursor = query.page(
            "events", rows, size, lambda row: [row.received_at.isoformat(), row.id]
        )
        return render.listing([_brief(row) for row in rows], next_cursor)

    @views.get("/<event_id>")
    @edge.guard.allow(READERS)
    def show(event_id: str) -> Response:
        """The body holds a customer's data, so it is for operators alone; it is shown as text because
        what is parked may be no JSON at all."""
        query.only()
        with edge.registry.connection() as conn:
            known = query.event_id(event_id)
            row, raw = event.get(conn, known), event.body(conn, known)
        shown = _brief(row)
        if caller().role is Role.OPERATOR:
            shown["body"] = raw.decode("utf-8", "replace")
        return jsonify(shown)

    @views.post("/<event_id>/replay")
    @edge.guard.allow(OPERATORS)
    def replay(event_id: str) -> Response:
        query.only()
        known = query.event_id(event_id)
        with edge.registry.connection() as conn:
            events.replay(conn, known, actor=caller().actor)
            row = event.get(conn, known)
        return render.accepted({"event": _brief(row)}, f"/v1/events/{known}")

    @views.post("/<event_id>/dismiss")
    @edge.guard.allow(OPERATORS)
    def dismiss(event_id: str) -> Response:
        query.only()
        known = query.event_id(event_id)
        reason = body.read_reason()
        with edge.registry.connection() as conn:
            events.dismiss(conn, known, actor=caller().actor, reason=reason)
            row = event.get(conn, known)
        return jsonify({"event": _brief(row)})

    return views


def _brief(row: EventRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": row.type,
        "api_version": row.api_version,
        "livemode": row.livemode,
        "state": row.state,
        "reason": row.reason,
        "subscription": row.subscription_id,
        "created_at": render.moment(row.created_at),
        "received_at": render.moment(row.received_at),
        "handled_at": render.moment(row.handled_at),
        "seconds": render.seconds(row.received_at, row.handled_at),
    }
