"""/v1/tenants"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.domain.hostname import RefusedDomain, subdomain
from controlplane.services import tenants
from controlplane.services.tenants import TenantDetail
from controlplane.store import route, tenant
from controlplane.store.hostname import HostnameRow
from controlplane.store.placement import Login
from controlplane.store.tenant import TenantRow
from controlplane.web import query
from controlplane.web.api import contracts, render, transfers
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("tenants", __name__, url_prefix="/v1/tenants")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor")
        size, after = query.limit(), query.cursor("tenants", query.text_position)
        with edge.registry.connection() as conn:
            rows = tenant.page(conn, after=after, limit=size + 1)
        rows, next_cursor = query.page("tenants", rows, size, lambda row: [row.slug])
        return render.listing([_brief(row, edge.zone) for row in rows], next_cursor)

    @views.get("/<name>")
    @edge.guard.allow(READERS)
    def show(name: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            detail = tenants.show(conn, query.name(name, "tenant").removesuffix(f".{edge.zone}"))
            routes = route.of_tenant(conn, detail.tenant.id)
        serves = {host: str(payload.get("status")) for host, (payload, _) in routes.items()}
        return jsonify(_full(detail, serves, edge.zone))

    return views


def _brief(row: TenantRow, zone: str) -> dict[str, Any]:
    spec = row.spec
    return {
        "id": row.id,
        "slug": row.slug,
        "display_name": row.display_name,
        "customer": row.customer_id,
        "clone_of": row.clone_of,
        "phase": row.phase.value,
        "needs_attention": render.attention(row.needs_attention, row.runbook),
        "host": subdomain(row.slug, zone),
        "spec": {
            "lifecycle": spec.lifecycle.value,
            "plan": spec.plan,
            "subscription_status": spec.subscription_status,
            "quantity": spec.quantity,
            "custom_domains": list(spec.custom_domains),
            "addons": dict(spec.addons),
            "trial_ends_at": render.moment(spec.trial_ends_at),
            "grace_ends_at": render.moment(spec.grace_ends_at),
            "closes_at": render.moment(spec.closes_at),
        },
        "closed_at": render.moment(row.closed_at),
        "purge_after": render.moment(row.purge_after),
        "purged_at": render.moment(row.purged_at),
        "generation": row.generation,
        "reconciled": row.observed_generation == row.generation,
        "created_at": render.moment(row.created_at),
        "timings": {
            "paid_at": render.moment(row.paid_at),
            "started_at": render.moment(row.started_at),
            "ready_at": render.moment(row.ready_at),
            "paid_to_started_seconds": render.seconds(row.paid_at, row.started_at),
            "paid_to_ready_seconds": render.seconds(row.paid_at, row.ready_at),
        },
    }


def _full(detail: TenantDetail, serves: dict[str, str], zone: str) -> dict[str, Any]:
    row, placed = detail.tenant, detail.placement
    own = subdomain(row.slug, zone)
    return {
        **_brief(row, zone),
        "found_by": None if detail.found_by in ("id", "slug") else detail.found_by,
        "deciding": detail.deciding,
        "placement": None
        if placed is None
        else {"id": placed.id, "cluster": placed.cluster_id, "database": placed.database},
        "credential": None if detail.login is None else _credential(detail.login),
        "transfer": transfers.rendered(detail.transfer),
        "hostnames": [
            {"host": own, "kind": "subdomain", "serves": serves.get(own)},
            *(_former(slug, until, serves, zone) for slug, until in sorted(row.former_slugs.items())),
            *(_custom(host, own, serves.get(host.host)) for host in detail.hostnames),
            *map(_refused, row.refused_domains),
        ],
        "holds": [render.hold(found) for found in detail.holds],
        "contracts": [contracts.brief(found) for found in detail.contracts],
        "status": row.status,
        "observed_at": render.moment(row.observed_at),
        "freezes": [render.freeze(found) for found in detail.freezes],
        "operations": [render.operation(operation) for operation in detail.operations],
    }


def _credential(login: Login) -> dict[str, Any]:
    """The application's login: how many passwords it has had, since when the present one, whether the
    one before still gets in."""
    return {
        "username": login.username,
        "generation": login.generation,
        "rotated_at": render.moment(login.rotated_at),
        "rotation_requested": login.requested > login.generation,
        "retiring": login.retire_in is not None,
    }


def _refused(domain: RefusedDomain) -> dict[str, Any]:
    """A contract wishes for it, and the tenant did not get it."""
    return {
        "host": domain.host,
        "kind": "custom",
        "serves": None,
        "status": "refused",
        "ssl_status": None,
        "dns": [],
        "errors": [],
        "refused": domain.reason,
    }


def _former(slug: str, until: datetime, serves: dict[str, str], zone: str) -> dict[str, Any]:
    """`until`: its host leads to the tenant's own, and its slug is nobody else's."""
    host = subdomain(slug, zone)
    return {"host": host, "kind": "former", "serves": serves.get(host), "until": render.moment(until)}


def _custom(row: HostnameRow, own: str, serves: str | None) -> dict[str, Any]:
    """`dns`: what the customer has to set; the first record brings the traffic, the others prove
    that the domain is the customer's and let the certificate be issued."""
    traffic = {"kind": "cname", "name": row.host, "value": own}
    return {
        "host": row.host,
        "kind": "custom",
        "serves": serves,
        "status": row.status,
        "ssl_status": row.ssl_status,
        "dns": [traffic, *row.records],
        "errors": list(row.errors),
        "refused": row.refused,
    }
