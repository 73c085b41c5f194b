"""/v1/exports"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.store import data_copy
from controlplane.store.data_copy import CopyRow
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("exports", __name__, url_prefix="/v1")

    @views.get("/exports/<export_id>")
    @edge.guard.allow(READERS)
    def show(export_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            found = data_copy.get_export(conn, query.row_id(export_id, "export"))
        return jsonify(rendered(found))

    return views


def rendered(row: CopyRow) -> dict[str, Any]:
    """`name`: the object in the bucket for copies; its manifest is beside it."""
    manifest = row.manifest or {}
    return {
        "id": row.id,
        "tenant": row.tenant_id,
        "actor": row.actor,
        "state": row.state,
        "name": row.name,
        "sha256": manifest.get("sha256"),
        "size": manifest.get("size"),
        "tables": manifest.get("tables"),
        "error": row.error,
        "requested_at": render.moment(row.created_at),
        "verified_at": render.moment(row.verified_at),
        "kept_until": render.moment(row.kept_until),
        "deleted_at": render.moment(row.deleted_at),
    }
