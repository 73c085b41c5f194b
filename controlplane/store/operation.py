"""Operations: what people see of the jobs that converge a tenant or a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.domain.job import OperationState
from controlplane.store.registry import Connection, one, select


@dataclass(frozen=True, slots=True)
class OperationRow:
    """`causes`: who or what asked for it, {"reason", "actor", "event", "request", "at"} each, oldest first;
    at most MOST_CAUSES of `cause_count`. None of a periodic observation."""

    id: int
    kind: str
    resource_id: str
    reason: str
    actor: str
    causes: list[dict[str, Any]]
    cause_count: int
    state: OperationState
    attempts: int
    next_attempt_at: datetime
    error: str | None
    runbook: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def get(conn: Connection, operation_id: int) -> OperationRow:
    """Or the one that has absorbed it. Raises NotFound."""
    row = select(
        conn,
        OperationRow,
        "FROM operation WHERE id = %(id)s OR (absorbed <> '{}' AND absorbed @> ARRAY[%(id)s::bigint])",
        {"id": operation_id},
    ).fetchone()
    return one(row, f"operation {operation_id}")


def page(
    conn: Connection,
    *,
    before: int | None,
    limit: int,
    resource_id: str | None = None,
    state: str | None = None,
) -> list[OperationRow]:
    """Newest first, those with an id below `before`."""
    return select(
        conn,
        OperationRow,
        "FROM operation WHERE (%(before)s::bigint IS NULL OR id < %(before)s)"
        " AND (%(resource)s::text IS NULL OR resource_id = %(resource)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s)"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "resource": resource_id, "state": state, "limit": limit},
    ).fetchall()
