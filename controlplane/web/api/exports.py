"""/v1/exports, and how a tenant's is asked for."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane import task_names
from controlplane.domain.errors import Invalid
from controlplane.domain.safe_repr import safe_repr
from controlplane.services import exports, tenants
from controlplane.store import data_copy
from controlplane.store.data_copy import CopyRow
from controlplane.web import body, query
from controlplane.web.api import render
from controlplane.web.auth import OPERATORS, READERS, caller
from controlplane.web.edge import Edge

EXPORT = task_names.EXPORT
KEEP_DAYS, MOST_DAYS = 7, 365


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("exports", __name__, url_prefix="/v1")

    @views.post("/tenants/<name>/export")
    @edge.guard.allow(OPERATORS)
    def request(name: str) -> Response:
        query.only()
        fields = body.read_json(frozenset({"reason", "keep_days"}))
        reason, days = body.why(fields.get("reason")), fields.get("keep_days", KEEP_DAYS)
        if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
            raise Invalid("keep_days", f"a whole number, 1 to {MOST_DAYS}", got=safe_repr(days))
        with edge.registry.connection() as conn:
            tenant_id = tenants.resolve(conn, query.name(name, "tenant")).id
            made = exports.request(conn, tenant_id, actor=caller().actor, reason=reason, keep_days=days)
        edge.notify(EXPORT, [str(made.id)])
        return render.accepted({"export": _export(made)}, f"/v1/exports/{made.id}")

    @views.get("/exports/<export_id>")
    @edge.guard.allow(READERS)
    def show(export_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            found = data_copy.get_export(conn, query.row_id(export_id, "export"))
        return jsonify(_export(found))

    return views


def _export(row: CopyRow) -> dict[str, Any]:
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
