"""/v1/previews: what an action would do, worked out by a worker and changing nothing."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from controlplane.domain.job import PreviewState
from controlplane.store import preview
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("previews", __name__, url_prefix="/v1/previews")

    @views.get("/<preview_id>")
    @edge.guard.allow(READERS)
    def show(preview_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            row = preview.get(conn, query.row_id(preview_id, "preview"))
            waits = row.state is PreviewState.WAITING
            busy = preview.waits_for(conn, row.tenant_id, row.cluster_id) if waits else None
        return jsonify(
            {
                "id": row.id,
                "tenant": row.tenant_id,
                "cluster": row.cluster_id,
                "actor": row.actor,
                "state": row.state,
                "waits_for": busy or ("a worker to take it" if row.state is PreviewState.WAITING else None),
                "steps": row.steps,
                "changes": row.changes,
                "error": row.error,
                "requested_at": render.moment(row.requested_at),
                "finished_at": render.moment(row.finished_at),
            }
        )

    return views
