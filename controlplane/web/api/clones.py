"""/v1/tenants/<id or slug>/clone and /close: tenants of the company's own, with a customer's rows."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from controlplane.domain.errors import Invalid
from controlplane.domain.hostname import subdomain
from controlplane.domain.quoting import shown
from controlplane.services import clones, operations, tenants
from controlplane.store.tenant import TenantRow
from controlplane.web import body, query
from controlplane.web.api import render
from controlplane.web.auth import OPERATORS, caller
from controlplane.web.edge import Edge

CONVERGE = "workers.tasks.converge"
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
            row = operations.show(conn, operation_id).operation
        edge.ring(CONVERGE, ["tenant", clone_id])
        return render.accepted(
            {"tenant": clone_id, "operation": render.operation(row)}, f"/v1/operations/{operation_id}"
        )

    @views.post("/close")
    @edge.guard.allow(OPERATORS)
    def close(name: str) -> Response:
        query.only()
        reason = body.why(body.read_json(frozenset({"reason"})).get("reason"))
        with edge.registry.connection() as conn:
            tenant_id = tenants.resolve(conn, query.name(name, "tenant")).id
            operation_id = clones.close(conn, tenant_id, actor=caller().actor, reason=reason)
            row = operations.show(conn, operation_id).operation
        edge.ring(CONVERGE, ["tenant", tenant_id])
        return render.accepted({"operation": render.operation(row)}, f"/v1/operations/{operation_id}")

    return views


def _request() -> tuple[str, str, bool]:
    fields = body.read_json(_FIELDS)
    slug, reason, dry_run = fields.get("slug"), fields.get("reason"), fields.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise Invalid("dry_run", "true or false", got=shown(dry_run))
    if not isinstance(slug, str):
        raise Invalid("slug", "the clone's own", got=shown(slug))
    return slug, "" if dry_run and reason is None else body.why(reason), dry_run


def _planned(source: TenantRow, slug: str, zone: str) -> dict[str, str | None]:
    return {
        "of": source.id,
        "slug": slug,
        "host": subdomain(slug, zone),
        "plan": source.desired.plan,
        "release": source.release,
    }
