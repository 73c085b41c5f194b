"""/v1/tenants/<id>/purge and its certificate: deleting a tenant for good takes two tokens.

What changes something takes the tenant's id in full: a slug is easily another one's.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.domain.errors import Invalid
from controlplane.domain.placement import TENANT_ID
from controlplane.domain.safe_repr import safe_repr
from controlplane.services import purges, tenants
from controlplane.services.purges import PurgeDetail
from controlplane.store import operation
from controlplane.store.data_copy import CopyRow
from controlplane.store.purge import PurgeRow
from controlplane.web import body, query
from controlplane.web.api import asking, render
from controlplane.web.auth import OPERATORS, READERS, caller
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("purges", __name__, url_prefix="/v1/tenants")

    @views.get("/<name>/purge")
    @edge.guard.allow(READERS)
    def show(name: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            found = purges.show(conn, tenants.resolve(conn, query.name(name, "tenant")).id)
        return jsonify(_detail(found))

    @views.post("/<name>/purge")
    @edge.guard.allow(OPERATORS)
    def request(name: str) -> Response:
        query.only()
        fields = body.read_json(frozenset({"reason", "early"}))
        reason, early = body.why(fields.get("reason")), body.flag(fields, "early")
        with edge.registry.connection() as conn:
            tenant_id = _full_id(name)
            purges.request(conn, tenant_id, actor=caller().actor, reason=reason, early=early)
            found = purges.show(conn, tenant_id)
        return jsonify(_detail(found))

    @views.post("/<name>/purge/approve")
    @edge.guard.allow(OPERATORS)
    def approve(name: str) -> Response:
        query.only()
        digest = body.read_json(frozenset({"digest"})).get("digest")
        if not isinstance(digest, str):
            raise Invalid("digest", "the digest of what was looked at", got=safe_repr(digest))
        with edge.registry.connection() as conn:
            tenant_id = _full_id(name)
            approved, operation_id = purges.approve(conn, tenant_id, actor=caller().actor, digest=digest)
            row = operation.get(conn, operation_id)
        return asking.begun(edge, tenant_id, row, purge=_purge(approved))

    @views.post("/<name>/purge/withdraw")
    @edge.guard.allow(OPERATORS)
    def withdraw(name: str) -> Response:
        query.only()
        reason = body.read_reason()
        with edge.registry.connection() as conn:
            tenant_id = _full_id(name)
            purges.withdraw(conn, tenant_id, actor=caller().actor, reason=reason)
            found = purges.show(conn, tenant_id)
        return jsonify(_detail(found))

    @views.get("/<name>/certificate")
    @edge.guard.allow(READERS)
    def certificate(name: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            tenant_id = tenants.resolve(conn, query.name(name, "tenant")).id
            return jsonify(purges.certificate(conn, tenant_id))

    return views


def _full_id(name: str) -> str:
    known = query.name(name, "tenant")
    if not TENANT_ID.match(known):
        raise Invalid(
            "tenant", "its id in full (t-…): a slug is not enough to delete by", got=safe_repr(known)
        )
    return known


def _detail(found: PurgeDetail) -> dict[str, Any]:
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
