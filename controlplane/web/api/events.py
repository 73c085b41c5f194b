"""/v1/events: the inbox of billing events."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.domain.billing import EventState
from controlplane.domain.errors import Invalid
from controlplane.services import events
from controlplane.store import event
from controlplane.store.event import EventRow
from controlplane.web import body, query
from controlplane.web.api import render
from controlplane.web.auth import OPERATORS, READERS, Role, caller
from controlplane.web.edge import Edge

MAX_TEXT = 200  # characters
MAX_REPLAYS = 1000  # in one request


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

    @views.post("/replay")
    @edge.guard.allow(OPERATORS)
    def replay_parked() -> Response:
        query.only()
        fields = body.read_json(frozenset({"because", "dry_run", "limit"}))
        text, limit, dry_run = _contained(fields), _limit(fields), body.flag(fields, "dry_run")
        with edge.registry.connection() as conn:
            found = events.replay_parked_because(
                conn, text, limit=limit, dry_run=dry_run, actor=caller().actor
            )
        items = [_brief(row) for row in found.events]
        answer = jsonify({"count": len(items), "left": found.left, "items": items})
        answer.status_code = 200 if dry_run else 202
        return answer

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


def _contained(fields: dict[str, Any]) -> str:
    text = fields.get("because")
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT or not text.isprintable():
        expected = f"what the reason has in it, in 1 to {MAX_TEXT} printable characters"
        raise Invalid("because", expected, got=text)
    return text


def _limit(fields: dict[str, Any]) -> int:
    limit = fields.get("limit", MAX_REPLAYS)
    if type(limit) is not int or not 1 <= limit <= MAX_REPLAYS:
        raise Invalid("limit", f"a whole number, 1 to {MAX_REPLAYS}", got=limit)
    return limit


def _brief(row: EventRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": row.type,
        "api_version": row.api_version,
        "livemode": row.livemode,
        "state": row.state,
        "reason": row.reason,
        "contract": row.contract_id,
        "created_at": render.moment(row.created_at),
        "received_at": render.moment(row.received_at),
        "handled_at": render.moment(row.handled_at),
        "seconds": render.seconds(row.received_at, row.handled_at),
    }
