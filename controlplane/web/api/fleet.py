"""/v1/fleet: the processes that work, and what is frozen."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from controlplane.store import hold, process
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("fleet", __name__, url_prefix="/v1/fleet")

    @views.get("")
    @edge.guard.allow(READERS)
    def show() -> Response:
        query.only()
        with edge.registry.connection() as conn:
            found, frozen = process.known(conn), hold.freezes(conn)
        return jsonify(
            {
                "processes": [
                    {
                        "id": row.id,
                        "lanes": row.lanes,
                        "version": row.version,
                        "alive": row.alive,
                        "jobs": row.jobs,
                        "started_at": render.moment(row.started_at),
                        "heartbeat_at": render.moment(row.heartbeat_at),
                    }
                    for row in found
                ],
                "freezes": [render.freeze(row) for row in frozen],
            }
        )

    return views
