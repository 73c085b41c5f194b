"""/v1/clusters"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from controlplane.services import clusters
from controlplane.services.clusters import ClusterDetail
from controlplane.store import cluster
from controlplane.store.cluster import ClusterRow
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("clusters", __name__, url_prefix="/v1/clusters")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor")
        size, after = query.limit(), query.cursor("clusters", query.text_position)
        with edge.registry.connection() as conn:
            rows = cluster.page(conn, after=after, limit=size + 1)
        rows, next_cursor = query.page("clusters", rows, size, lambda row: [row.id])
        return render.listing([_brief(row) for row in rows], next_cursor)

    @views.get("/<cluster_id>")
    @edge.guard.allow(READERS)
    def show(cluster_id: str) -> Response:
        query.only()
        with edge.registry.connection() as conn:
            detail = clusters.show(conn, query.name(cluster_id, "cluster"))
        return jsonify(_full(detail))

    return views


def _brief(row: ClusterRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "ready": row.ready,
        "needs_attention": render.attention(row.needs_attention, row.runbook),
        "slots": row.slots,
        "used": row.used,
        "free": max(0, row.slots - row.used),
        "spec": row.spec.to_json(),
        "awake": (row.status or {}).get("awake"),
        "generation": row.generation,
        "reconciled": row.observed_generation == row.generation,
        "release": row.release,
        "upgraded_from": row.upgraded_from,
        "created_at": render.moment(row.created_at),
        "ready_at": render.moment(row.ready_at),
        "created_to_ready_seconds": render.seconds(row.created_at, row.ready_at),
    }


def _full(detail: ClusterDetail) -> dict[str, Any]:
    row = detail.cluster
    status = {key: value for key, value in (row.status or {}).items() if key not in ("awake", "clients")}
    return {
        **_brief(row),
        "endpoint": row.endpoint,
        "hardened_at": render.moment(row.hardened_at),
        "status": None if row.status is None else status,
        "observed_at": render.moment(row.observed_at),
        "installed_release": None if detail.installed is None else detail.installed.digest,
        "drift": None if detail.stack is None else detail.stack.drift,
        "tenants": detail.tenants,
        "clients": _clients(detail),
        "freezes": [render.freeze(found) for found in detail.freezes],
        "operations": [render.operation(operation) for operation in detail.operations],
    }


def _clients(detail: ClusterDetail) -> list[dict[str, Any]] | None:
    """Who kept it awake when it was observed."""
    found = (detail.cluster.status or {}).get("clients")
    if found is None:
        return None
    return [{**client, "tenant": detail.of_database.get(client["database"])} for client in found]
