"""/v1/notifications: to the operator's systems."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.domain.notification import NotificationState
from controlplane.services import notifications
from controlplane.store import notification
from controlplane.store.notification import NotificationRow
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import OPERATORS, READERS, caller
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("notifications", __name__, url_prefix="/v1/notifications")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor", "state")
        size, before = query.limit(), query.cursor("notifications", query.id_position)
        state = query.choice("state", tuple(NotificationState))
        with edge.registry.connection() as conn:
            rows = notification.page(conn, before=before, limit=size + 1, state=state)
        rows, next_cursor = query.page("notifications", rows, size, lambda row: [row.seq])
        return render.listing([_notification(row) for row in rows], next_cursor)

    @views.get("/<notification_id>")
    @edge.guard.allow(READERS)
    def show(notification_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            row = notification.get(conn, query.event_id(notification_id))
        return jsonify({**_notification(row), "payload": row.payload})

    @views.post("/<notification_id>/redeliver")
    @edge.guard.allow(OPERATORS)
    def redeliver(notification_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            row = notifications.redeliver(conn, query.event_id(notification_id), actor=caller().actor)
        return render.accepted({"notification": _notification(row)}, f"/v1/notifications/{row.id}")

    return views


def _notification(row: NotificationRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "tenant": row.tenant_id,
        "state": row.state,
        "attempts": row.tries,
        "next_attempt_at": render.moment(row.next_try_at) if row.state is NotificationState.WAITING else None,
        "answer": row.answer,
        "created_at": render.moment(row.created_at),
        "finished_at": render.moment(row.finished_at),
    }
