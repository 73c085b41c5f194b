"""/v1/notices: what the company's own systems were told."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane import task_names
from controlplane.services import notices
from controlplane.store import notice
from controlplane.store.notice import NoticeRow
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import OPERATORS, READERS, caller
from controlplane.web.edge import Edge

DELIVER = task_names.DELIVER_NOTICES


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("notices", __name__, url_prefix="/v1/notices")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor", "state")
        size, before = query.limit(), query.cursor("notices", query.id_position)
        state = query.choice("state", notice.STATES)
        with edge.registry.connection() as conn:
            rows = notice.page(conn, before=before, limit=size + 1, state=state)
        rows, next_cursor = query.page("notices", rows, size, lambda row: [row.seq])
        return render.listing([_notice(row) for row in rows], next_cursor)

    @views.get("/<notice_id>")
    @edge.guard.allow(READERS)
    def show(notice_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            row = notice.get(conn, query.event_id(notice_id))
        return jsonify({**_notice(row), "payload": row.payload})

    @views.post("/<notice_id>/redeliver")
    @edge.guard.allow(OPERATORS)
    def redeliver(notice_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            row = notices.redeliver(conn, query.event_id(notice_id), actor=caller().actor)
        edge.notify(DELIVER, [])
        return render.accepted({"notice": _notice(row)}, f"/v1/notices/{row.id}")

    return views


def _notice(row: NoticeRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "tenant": row.tenant_id,
        "state": row.state,
        "attempts": row.attempts,
        "next_attempt_at": render.moment(row.next_attempt_at) if row.state == "waiting" else None,
        "answer": row.answer,
        "created_at": render.moment(row.created_at),
        "finished_at": render.moment(row.finished_at),
    }
