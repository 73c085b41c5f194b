"""GET /v1/tenants/<id or slug>/purge: what would be deleted, who asked, and the certificate afterwards."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.services import purges, tenants
from controlplane.services.purges import PurgeDetail
from controlplane.store.data_copy import CopyRow
from controlplane.store.purge import PurgeRow
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("purges", __name__, url_prefix="/v1/tenants")

    @views.get("/<name>/purge")
    @edge.guard.allow(READERS)
    def show(name: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            found = purges.show(conn, tenants.look_up(conn, query.name(name, "tenant"))[0].id)
        return jsonify(rendered(found))

    @views.get("/<name>/certificate")
    @edge.guard.allow(READERS)
    def certificate(name: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            tenant_id = tenants.look_up(conn, query.name(name, "tenant"))[0].id
            return jsonify(purges.certificate(conn, tenant_id))

    return views


def rendered(found: PurgeDetail) -> dict[str, Any]:
    row = found.tenant
    return {
        "tenant": row.id,
        "phase": row.phase.value,
        "closed_at": render.moment(row.closed_at),
        "purge_after": render.moment(row.purge_after),
        "due": found.due_in == 0.0,
        "kept_for": found.kept_for,
        "would_delete": None if found.content is None else found.content.to_json(),
        "digest": None if found.content is None else found.content.digest,
        "purge": None if found.purge is None else _purge(found.purge),
        "copy": None if found.copy is None else _copy(found.copy),
    }


def _purge(row: PurgeRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state,
        "reason": row.reason,
        "digest": row.digest,
        "requested_by": row.requested_by,
        "requested_at": render.moment(row.requested_at),
        "approved_by": row.approved_by,
        "approved_at": render.moment(row.approved_at),
        "begun_at": render.moment(row.begun_at),
        "done_at": render.moment(row.done_at),
    }


def _copy(row: CopyRow) -> dict[str, Any]:
    manifest = row.manifest or {}
    return {
        "kind": row.kind,
        "name": row.name,
        "state": row.state,
        "sha256": manifest.get("sha256"),
        "size": manifest.get("size"),
        "verified_at": render.moment(row.verified_at),
        "kept_until": render.moment(row.kept_until),
        "deleted_at": render.moment(row.deleted_at),
    }
