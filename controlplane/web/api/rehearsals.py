"""/v1/rehearsals: copies of tenants, migrated by a worker and dropped."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.domain.errors import Invalid
from controlplane.services import rehearsals
from controlplane.services.rehearsals import RehearsalDetail
from controlplane.web import body, query
from controlplane.web.api import render
from controlplane.web.api.releases import number_of
from controlplane.web.auth import OPERATORS, READERS, caller
from controlplane.web.edge import Edge

DEFAULT_COPIES = 3


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("rehearsals", __name__, url_prefix="/v1/rehearsals")

    @views.post("")
    @edge.guard.allow(OPERATORS)
    def request() -> Response:
        query.only()
        fields = body.read_json(frozenset({"release", "copies"}))
        copies = fields.get("copies", DEFAULT_COPIES)
        if isinstance(copies, bool) or not isinstance(copies, int):
            raise Invalid("copies", "a whole number", got=copies)
        with edge.registry.connection() as conn:
            rehearsal_id = rehearsals.request(conn, number_of(fields), copies=copies, actor=caller().actor)
            detail = rehearsals.show(conn, rehearsal_id)
        return render.accepted(_full(detail), f"/v1/rehearsals/{rehearsal_id}")

    @views.get("/<rehearsal_id>")
    @edge.guard.allow(READERS)
    def show(rehearsal_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            detail = rehearsals.show(conn, query.row_id(rehearsal_id, "rehearsal"))
        return jsonify(_full(detail))

    return views


def _full(detail: RehearsalDetail) -> dict[str, Any]:
    row, foretold = detail.rehearsal, detail.estimate
    return {
        "id": row.id,
        "release": row.release,
        "state": row.state,
        "copies": row.copies,
        "results": row.results,
        "error": row.error,
        "tenants": detail.tenants,
        "estimate": None
        if foretold is None
        else {"seconds": round(foretold.seconds, 1), "longest_lock": foretold.longest_lock},
        "actor": row.actor,
        "created_at": render.moment(row.created_at),
        "finished_at": render.moment(row.finished_at),
    }
