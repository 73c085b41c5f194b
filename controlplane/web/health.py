"""Two questions of the load balancer: is the process alive, and may it get traffic?

`/healthz` looks at nothing outside, so that a registry that is down never has healthy processes
restarted. `/readyz` says 503 while the registry can't be reached or its schema is older than the code.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from controlplane.store import schema_version
from controlplane.web.edge import Edge
from controlplane.web.problem import problem


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("health", __name__)

    @views.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    @views.get("/readyz")
    def readyz() -> Response:
        with edge.registry.connection() as conn:
            current = schema_version.is_current(conn)
        if not current:
            return problem(503, "schema_outdated", "run `controlplane db upgrade`")
        return jsonify({"status": "ready"})

    return views
