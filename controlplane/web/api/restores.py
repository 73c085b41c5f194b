"""/v1/tenants/<id or slug>/restore: its rows of an earlier moment, or of a snapshot."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from controlplane.services import restores
from controlplane.store.restore import RestoreRow
from controlplane.web import body, query
from controlplane.web.api import asking, render
from controlplane.web.auth import OPERATORS, caller
from controlplane.web.edge import Edge

_FIELDS = frozenset({"at", "snapshot", "reason", "dry_run"})


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("restores", __name__, url_prefix="/v1/tenants/<name>/restore")

    @views.post("")
    @edge.guard.allow(OPERATORS)
    def request(name: str) -> Response:
        query.only()
        fields = body.read_json(_FIELDS)
        dry_run, actor = body.flag(fields, "dry_run"), caller().actor
        reason = body.why(fields.get("reason"), needed=not dry_run)
        at, snapshot = fields.get("at"), fields.get("snapshot")
        if dry_run:
            return asking.for_preview(
                edge,
                name,
                lambda conn, tenant_id: restores.request_preview(
                    conn, tenant_id, at=at, snapshot=snapshot, actor=actor
                ),
            )
        return asking.for_operation(
            edge,
            name,
            lambda conn, tenant_id: restores.request(
                conn, tenant_id, at=at, snapshot=snapshot, actor=actor, reason=reason
            ),
        )

    return views


def rendered(row: RestoreRow | None) -> dict[str, Any] | None:
    """Of the tenant's last move, where that is a restore. `cluster`: the one that was made for it."""
    if row is None:
        return None
    return {
        "at": render.moment(row.at),
        "snapshot": row.snapshot,
        "placement": row.number,
        "cluster": row.cluster_id,
        "release": row.release,
        "opened_at": render.moment(row.opened_at),
        "copied_at": render.moment(row.copied_at),
    }
