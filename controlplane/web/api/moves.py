"""/v1/tenants/<id or slug>/move: to another cluster, and what is decided about it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response

from controlplane.domain.errors import Invalid
from controlplane.domain.move import validate_wish
from controlplane.domain.quoting import shown
from controlplane.services import moves, operations, tenants
from controlplane.store.move import MoveRow
from controlplane.web import body, query
from controlplane.web.api import render
from controlplane.web.auth import OPERATORS, caller
from controlplane.web.edge import Edge

CONVERGE = "workers.tasks.converge"
PREVIEW = "workers.tasks.preview"
_FIELDS = frozenset({"to", "reason", "dry_run"})


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("moves", __name__, url_prefix="/v1/tenants/<name>/move")

    @views.post("")
    @edge.guard.allow(OPERATORS)
    def request(name: str) -> Response:
        query.only()
        to, reason, dry_run = _request()
        if not dry_run:
            return _asked(
                edge,
                name,
                lambda conn, tenant_id: moves.request(
                    conn, tenant_id, to=to, actor=caller().actor, reason=reason
                ),
            )
        with edge.registry.connection() as conn:
            tenant_id = tenants.resolve(conn, query.name(name, "tenant")).id
            preview_id = moves.request_preview(conn, tenant_id, to=to, actor=caller().actor)
        edge.ring(PREVIEW, [str(preview_id)])
        return render.accepted(
            {"preview": {"id": preview_id, "tenant": tenant_id, "state": "waiting"}},
            f"/v1/previews/{preview_id}",
        )

    @views.post("/confirm")
    @edge.guard.allow(OPERATORS)
    def confirm(name: str) -> Response:
        query.only()
        reason = body.why(body.read_json(frozenset({"reason"})).get("reason"))
        return _asked(
            edge,
            name,
            lambda conn, tenant_id: moves.confirm(conn, tenant_id, actor=caller().actor, reason=reason),
        )

    @views.post("/give-up")
    @edge.guard.allow(OPERATORS)
    def give_up(name: str) -> Response:
        query.only()
        reason = body.why(body.read_json(frozenset({"reason"})).get("reason"))
        return _asked(
            edge,
            name,
            lambda conn, tenant_id: moves.give_up(conn, tenant_id, actor=caller().actor, reason=reason),
        )

    return views


def _asked(edge: Edge, name: str, ask: Callable[[Any, str], int]) -> Response:
    with edge.registry.connection() as conn:
        tenant_id = tenants.resolve(conn, query.name(name, "tenant")).id
        operation_id = ask(conn, tenant_id)
        row = operations.show(conn, operation_id).operation
    edge.ring(CONVERGE, ["tenant", tenant_id])
    return render.accepted({"operation": render.operation(row)}, f"/v1/operations/{operation_id}")


def _request() -> tuple[str, str, bool]:
    fields = body.read_json(_FIELDS)
    reason, dry_run = fields.get("reason"), fields.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise Invalid("dry_run", "true or false", got=shown(dry_run))
    to = fields.get("to")
    if not isinstance(to, str):
        raise Invalid("to", "dedicated, shared or a cluster's id", got=shown(to))
    return validate_wish(to), "" if dry_run and reason is None else body.why(reason), dry_run


def rendered(row: MoveRow | None) -> dict[str, Any] | None:
    """The tenant's last move. `pause_seconds`: for how long no write was taken."""
    if row is None:
        return None
    return {
        "id": row.id,
        "to": row.wish,
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
