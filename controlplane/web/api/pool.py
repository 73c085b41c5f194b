"""/v1/pool"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from controlplane.store import report
from controlplane.store.report import About
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("pool", __name__, url_prefix="/v1")

    @views.get("/pool")
    @edge.guard.allow(READERS)
    def show() -> Response:
        """What a worker's last look found: the web process knows neither the catalogue nor the quota."""
        query.only()
        with edge.registry.connection() as conn:
            found = report.read(conn, About.POOL)
        if found is None:
            return jsonify({"observed_at": None, "classes": [], "without_plan": []})
        return jsonify({"observed_at": render.moment(found.observed_at), **found.content})

    return views
