"""/v1/schema: which tenants of a release differ from most of it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from controlplane.services import schemas
from controlplane.services.schemas import Drift
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("schema", __name__, url_prefix="/v1/schema")

    @views.get("")
    @edge.guard.allow(READERS)
    def drift() -> Response:
        query.only()
        with edge.registry.connection() as conn:
            found = schemas.drift(conn)
        return render.listing([_drift(group) for group in found], None)

    return views


def _drift(group: Drift) -> dict[str, Any]:
    return {
        "release": group.release,
        "digest": group.digest,
        "tenants": group.tenants,
        "examples": group.examples,
        "seen_at": render.moment(group.seen_at),
        "missing": group.missing,
        "extra": group.extra,
    }
