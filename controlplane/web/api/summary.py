"""/v1/summary"""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, jsonify

from controlplane.services import summary
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("summary", __name__, url_prefix="/v1")

    @views.get("/summary")
    @edge.guard.allow(READERS)
    def show() -> Response:
        query.only()
        with edge.registry.connection() as conn:
            found = summary.show(conn)
        tenants, clusters = found.attention
        return jsonify(
            {
                "tenants": {"phases": found.phases, "needs_attention": tenants},
                "clusters": {
                    **asdict(found.clusters),
                    "free_slots": max(0, found.clusters.slots - found.clusters.used_slots),
                    "needs_attention": clusters,
                },
                "operations": found.operations,
                "events": {
                    "received": found.inbox.received,
                    "parked": found.inbox.parked,
                    "oldest_received_seconds": round(found.inbox.oldest_seconds, 3),
                },
                "contracts": found.contracts,
                "comparison": None
                if found.comparison is None
                else {"at": render.moment(found.comparison.observed_at), **found.comparison.content},
                "freezes": [render.freeze(row) for row in found.freezes],
            }
        )

    return views
