"""How the API shows things: plain JSON, moments in UTC to the millisecond, durations in seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify

from controlplane.store.hold import HoldRow
from controlplane.store.operation import OperationRow


def moment(at: datetime | None) -> str | None:
    return (
        None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds(), 3)


def attention(reason: str | None, runbook: str | None) -> dict[str, Any] | None:
    return None if reason is None else {"reason": reason, "runbook": runbook}


def operation(row: OperationRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "resource": row.resource_id,
        "state": row.state,
        "reason": row.reason,
        "actor": row.actor,
        "causes": row.causes,
        "cause_count": row.cause_count,
        "attempts": row.attempts,
        "next_attempt_at": moment(row.next_attempt_at) if row.state == "waiting" else None,
        "error": row.error,
        "runbook": row.runbook,
        "created_at": moment(row.created_at),
        "started_at": moment(row.started_at),
        "finished_at": moment(row.finished_at),
        "seconds": seconds(row.started_at, row.finished_at),
    }


def freeze(row: HoldRow) -> dict[str, Any]:
    return {
        "scope": row.scope,
        "reason": row.reason,
        "actor": row.actor,
        "interrupts": row.interrupts,
        "created_at": moment(row.created_at),
        "ends_at": moment(row.ends_at),
    }


def hold(row: HoldRow) -> dict[str, Any]:
    return {
        "kind": row.kind.value,
        "plan": row.plan,
        "reason": row.reason,
        "actor": row.actor,
        "created_at": moment(row.created_at),
        "ends_at": moment(row.ends_at),
    }


def listing(items: list[dict[str, Any]], next_cursor: str | None) -> Response:
    return jsonify({"items": items, "next_cursor": next_cursor})


def accepted(body: dict[str, Any], location: str) -> Response:
    """202: it will happen; `location` says where to watch."""
    response = jsonify(body)
    response.status_code = 202
    response.headers["Location"] = location
    return response
