"""/v1/tenants/<id or slug>/move: to another cluster, and what is decided about it afterwards."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from controlplane.domain.errors import Invalid
from controlplane.domain.move import validate_destination
from controlplane.domain.safe_repr import safe_repr
from controlplane.services import moves
from controlplane.store.move import MoveRow
from controlplane.store.restore import RestoreRow
from controlplane.web import body, query
from controlplane.web.api import asking, render, restores
from controlplane.web.auth import OPERATORS, caller
from controlplane.web.edge import Edge

_FIELDS = frozenset({"to", "reason", "dry_run"})


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("moves", __name__, url_prefix="/v1/tenants/<name>/move")

    @views.post("")
    @edge.guard.allow(OPERATORS)
    def request(name: str) -> Response:
        query.only()
        to, reason, dry_run = _request()
        actor = caller().actor
        if dry_run:
            return asking.for_preview(
                edge, name, lambda conn, tenant_id: moves.request_preview(conn, tenant_id, to=to, actor=actor)
            )
        return asking.for_operation(
            edge,
            name,
            lambda conn, tenant_id: moves.request(conn, tenant_id, to=to, actor=actor, reason=reason),
        )

    @views.post("/confirm")
    @edge.guard.allow(OPERATORS)
    def confirm(name: str) -> Response:
        query.only()
        reason, actor = body.read_reason(), caller().actor
        return asking.for_operation(
            edge, name, lambda conn, tenant_id: moves.confirm(conn, tenant_id, actor=actor, reason=reason)
        )

    @views.post("/give-up")
    @edge.guard.allow(OPERATORS)
    def give_up(name: str) -> Response:
        query.only()
        reason, actor = body.read_reason(), caller().actor
        return asking.for_operation(
            edge, name, lambda conn, tenant_id: moves.give_up(conn, tenant_id, actor=actor, reason=reason)
        )

    return views


def _request() -> tuple[str, str, bool]:
    fields = body.read_json(_FIELDS)
    dry_run = body.flag(fields, "dry_run")
    to = fields.get("to")
    if not isinstance(to, str):
        raise Invalid("to", "dedicated, shared or a cluster's id", got=safe_repr(to))
    return validate_destination(to), body.why(fields.get("reason"), needed=not dry_run), dry_run


def rendered(row: MoveRow | None, restore: RestoreRow | None) -> dict[str, Any] | None:
    """The tenant's last move. `pause_seconds`: for how long no write was taken. `restore`: what it restores,
    where it is one."""
    if row is None:
        return None
    return {
        "id": row.id,
        "kind": row.kind.value,
        "restore": restores.rendered(restore),
        "to": row.destination,
        "phase": row.phase.value,
        "reason": row.reason,
        "actor": row.actor,
        "from_placement": row.source,
        "to_placement": row.target,
        "rows": row.copied_rows,
        "bytes": row.copied_bytes,
        "pause_seconds": None if row.pause_seconds is None else round(row.pause_seconds, 3),
        "compared": None
        if row.compared is None
        else {
            "when": row.checked,
            "tables": len(row.compared),
            "rows": sum(table["rows"] for table in row.compared),
            "differing": row.differing,
        },
        "created_at": render.moment(row.created_at),
        "moved_at": render.moment(row.moved_at),
        "source_kept_until": render.moment(row.keep_until) if row.finished_at is None else None,
        "finished_at": render.moment(row.finished_at),
    }
