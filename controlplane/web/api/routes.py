"""/v1/resolve: where a host leads, for a data plane whose cache doesn't know or can't be reached.

The entry is the one that the cache would hold, signed for its host, so the data plane trusts it for
the same reason. An unknown host is answered with a code of its own: "there is no such tenant" must
never be mistaken for a wrong address, which is a 404 as well.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from controlplane.domain.errors import Invalid
from controlplane.domain.hostname import normalise_host
from controlplane.services import routes
from controlplane.web import query
from controlplane.web.auth import RESOLVERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("routes", __name__, url_prefix="/v1")

    @views.get("/resolve")
    @edge.guard.allow(RESOLVERS)
    def resolve() -> Response:
        query.only("host")
        raw = request.args.get("host")
        if raw is None:
            raise Invalid("host", "a host name in the query (?host=…)")
        host = normalise_host(raw)
        with edge.registry.connection() as conn:
            payload = routes.resolve(conn, host)
        response = jsonify({"entry": edge.sign(payload)})
        response.headers["Cache-Control"] = "no-store"
        return response

    return views
