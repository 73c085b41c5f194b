"""/v1/operations"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify, request

from controlplane.domain.errors import Invalid
from controlplane.domain.job import OperationState
from controlplane.domain.placement import CLUSTER_ID, TENANT_ID
from controlplane.services import operations
from controlplane.services.operations import OperationDetail
from controlplane.store import operation
from controlplane.store.step import StepEventRow, StepRow
from controlplane.web import query
from controlplane.web.api import render
from controlplane.web.auth import READERS
from controlplane.web.edge import Edge

_STATES = tuple(state.value for state in OperationState)


def blueprint(edge: Edge) -> Blueprint:
    views = Blueprint("operations", __name__, url_prefix="/v1/operations")

    @views.get("")
    @edge.guard.allow(READERS)
    def index() -> Response:
        query.only("limit", "cursor", "resource", "state")
        size, before = query.limit(), query.cursor("operations", query.id_position)
        resource, state = _resource(), query.choice("state", _STATES)
        with edge.registry.connection() as conn:
            rows = operation.page(conn, before=before, limit=size + 1, resource_id=resource, state=state)
        rows, next_cursor = query.page("operations", rows, size, lambda row: [row.id])
        return render.listing([render.operation(row) for row in rows], next_cursor)

    @views.get("/<operation_id>")
    @edge.guard.allow(READERS)
    def show(operation_id: str) -> Response:
        query.only("events_after")
        after = query.integer("events_after", 0, query.MAX_ID, default=0)
        with edge.registry.connection() as conn:
            detail = operations.show(conn, query.row_id(operation_id, "operation"), events_after=after)
        return jsonify(_full(detail, after, datetime.fromtimestamp(edge.clock(), UTC)))

    return views


def _resource() -> str | None:
    text = request.args.get("resource")
    if text is not None and not TENANT_ID.match(text) and not CLUSTER_ID.match(text):
        raise Invalid("resource", "the id of a tenant (t-…) or a cluster (c-…)", got=text[:40])
    return text


def _full(detail: OperationDetail, after: int, now: datetime) -> dict[str, Any]:
    events = detail.events
    return {
        **render.operation(detail.operation),
        "steps": [_step(step, now) for step in detail.steps],
        "events": [_event(event) for event in events],
        "events_after": events[-1].id if events else after,
    }


def _step(row: StepRow, now: datetime) -> dict[str, Any]:
    """`seconds` of a running step: those that have passed."""
    running = row.finished_at is None
    return {
        "seq": row.seq,
        "name": row.name,
        "target": row.target,
        "reason": row.reason,
        "state": row.state,
        "error": row.error,
        "started_at": render.moment(row.started_at),
        "finished_at": render.moment(row.finished_at),
        "seconds": render.seconds(row.started_at, max(now, row.started_at) if running else row.finished_at),
    }


def _event(row: StepEventRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "step": row.seq,
        "at": render.moment(row.at),
        "kind": row.kind,
        "address": row.address,
        "action": row.action,
        "seconds": row.seconds,
        "message": row.message,
    }
