"""/v1/tenants/<id or slug>/clone and /close: tenants of the operator's own, with a customer's rows."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from controlplane.domain.errors import Invalid
from controlplane.domain.hostname import subdomain
from controlplane.domain.safe_repr import safe_repr
from controlplane.services import clones, tenants
from controlplane.store import operation
from controlplane.store.tenant import TenantRow
from controlplane.web import body, query
from controlplane.web.api import asking
from controlplane.web.auth import OPERATORS, caller
from controlplane.web.edge import Edge

_FIELDS = frozenset({"slug", "reason", "dry_run"})


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("clones", __name__, url_prefix="/v1/tenants/<name>")

    @views.post("/clone")
    @edge.guard.allow(OPERATORS)
    def clone(name: str) -> Response:
        query.only()
        slug, reason, dry_run = _request()
        with edge.registry.connection() as conn:
            source = tenants.resolve(conn, query.name(name, "tenant"))
            if dry_run:
                clones.check(conn, source.id, slug=slug)
                return jsonify({"clone": _planned(source, slug, edge.zone)})
            clone_id, operation_id = clones.request(
                conn, source.id, slug=slug, actor=caller().actor, reason=reason
            )
            row = operation.get(conn, operation_id)
        return asking.begun(edge, clone_id, row, tenant=clone_id)

    @views.post("/close")
    @edge.guard.allow(OPERATORS)
    def close(name: str) -> Response:
        query.only()
        reason, actor = body.read_reason(), caller().actor
        return asking.for_operation(
            edge, name, lambda conn, tenant_id: clones.close(conn, tenant_id, actor=actor, reason=reason)
        )

    return views


def _request() -> tuple[str, str, bool]:
    fields = body.read_json(_FIELDS)
    slug, dry_run = fields.get("slug"), body.flag(fields, "dry_run")
    if not isinstance(slug, str):
        raise Invalid("slug", "the clone's own", got=safe_repr(slug))
    return slug, body.why(fields.get("reason"), needed=not dry_run), dry_run


def _planned(source: TenantRow, slug: str, zone: str) -> dict[str, str | None]:
    return {
        "of": source.id,
        "slug": slug,
        "host": subdomain(slug, zone),
        "plan": source.spec.plan,
        "release": source.release,
    }
