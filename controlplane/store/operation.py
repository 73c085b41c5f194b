"""Operations: request one, end one, read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from controlplane.domain.errors import NotFound
from controlplane.domain.operation import PERIODIC_LOOK, Held, OperationState, ResourceKind
from controlplane.store.registry import Connection, one


@dataclass(frozen=True, slots=True)
class OperationRow:
    id: int
    kind: str
    resource_id: str
    reason: str
    actor: str
    state: str
    attempts: int
    next_attempt_at: datetime
    error: str | None
    runbook: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


_COLUMNS = (
    "id, kind, resource_id, reason, actor, state, attempts, next_attempt_at, error, runbook,"
    " created_at, started_at, finished_at"
)


def request(
    conn: Connection, kind: ResourceKind, resource_id: str, *, reason: str, actor: str, after: float = 0.0
) -> int:
    """Ensure one waiting operation, due now or `after` seconds from now; its id. One that waits already
    is brought forward to now; a periodic look does not take its reason from it."""
    return int(
        one(
            conn.execute(
                "INSERT INTO operation (kind, resource_id, reason, actor, state, next_attempt_at)"
                " VALUES (%s, %s, %s, %s, 'waiting', clock_timestamp() + make_interval(secs => %s))"
                " ON CONFLICT (kind, resource_id) WHERE state = 'waiting'"
                " DO UPDATE SET next_attempt_at = clock_timestamp(), attempts = 0,"
                "  reason = CASE WHEN excluded.reason = %s THEN operation.reason ELSE excluded.reason END,"
                "  actor = CASE WHEN excluded.reason = %s THEN operation.actor ELSE excluded.actor END"
                " RETURNING id",
                [kind, resource_id, reason[:200], actor, after, PERIODIC_LOOK, PERIODIC_LOOK],
            ).fetchone()
        )["id"]
    )


def bring_forward(conn: Connection, kind: ResourceKind, resource_ids: list[str]) -> list[str]:
    """Make the waiting operations of these resources due now; which had one."""
    rows = conn.execute(
        "UPDATE operation SET next_attempt_at = clock_timestamp()"
        " WHERE kind = %s AND resource_id = ANY(%s) AND state = 'waiting' RETURNING resource_id",
        [kind, resource_ids],
    ).fetchall()
    return [row["resource_id"] for row in rows]


def start_now(conn: Connection, kind: ResourceKind, resource_id: str) -> bool:
    """Make an operation that was put off and has not begun due now; was there one?"""
    return (
        conn.execute(
            "UPDATE operation SET next_attempt_at = clock_timestamp()"
            " WHERE kind = %s AND resource_id = %s AND state = 'waiting' AND started_at IS NULL"
            " AND next_attempt_at > clock_timestamp()",
            [kind, resource_id],
        ).rowcount
        > 0
    )


def finish(
    conn: Connection, held: Held, state: OperationState, *, error: str | None, runbook: str | None
) -> None:
    conn.execute(
        "UPDATE operation SET state = %s, error = %s, runbook = %s, finished_at = clock_timestamp()"
        " WHERE id = %s AND state = 'running' AND fence = %s",
        [state, error, runbook, held.operation_id, held.fence],
    )


def put_back(
    conn: Connection, held: Held, *, after: float, error: str | None, counts: bool
) -> OperationState:
    """Running → waiting, due after that many seconds; or superseded where another one waits already.

    `counts`: whether this was an attempt (False for Pending: nothing was wrong).
    """
    waiting = conn.execute(
        "SELECT 1 FROM operation WHERE kind = %s AND resource_id = %s AND state = 'waiting'",
        [held.kind, held.resource_id],
    ).fetchone()
    if waiting is not None:
        finish(conn, held, OperationState.SUPERSEDED, error=error, runbook=None)
        return OperationState.SUPERSEDED
    conn.execute(
        "UPDATE operation SET state = 'waiting', error = %s, attempts = attempts - %s,"
        " next_attempt_at = clock_timestamp() + make_interval(secs => %s)"
        " WHERE id = %s AND state = 'running' AND fence = %s",
        [error, 0 if counts else 1, after, held.operation_id, held.fence],
    )
    return OperationState.WAITING


_DUE = """
    WITH died AS (
        SELECT kind, resource_id, next_attempt_at FROM operation o
         WHERE state = 'running'
           AND (SELECT until FROM lease l WHERE l.kind = o.kind AND l.resource_id = o.resource_id)
               < statement_timestamp()
         ORDER BY next_attempt_at LIMIT %(limit)s
    ), waiting AS (
        SELECT kind, resource_id, next_attempt_at FROM operation o
         WHERE state = 'waiting' AND next_attempt_at <= statement_timestamp()
           AND (SELECT until FROM lease l WHERE l.kind = o.kind AND l.resource_id = o.resource_id)
               < statement_timestamp()
           AND NOT EXISTS (SELECT FROM operation r WHERE r.kind = o.kind
                            AND r.resource_id = o.resource_id AND r.state = 'running')
         ORDER BY next_attempt_at LIMIT %(limit)s
    )
    SELECT kind, resource_id
      FROM (SELECT 1 AS turn, * FROM died UNION ALL SELECT 2, * FROM waiting) AS found
     ORDER BY turn, next_attempt_at LIMIT %(limit)s
"""
"""A lease is looked up for each operation that may be due: a join would read the leases of the whole fleet,
since the planner takes most operations that wait to be due. `statement_timestamp`, as `clock_timestamp`
can't be looked for in an index."""


def due(conn: Connection, *, limit: int) -> list[tuple[ResourceKind, str]]:
    """Resources with an operation that may be claimed now: first those whose holder died, then the
    ones that have waited longest."""
    rows = conn.execute(_DUE, {"limit": limit}).fetchall()
    return [(ResourceKind(row["kind"]), row["resource_id"]) for row in rows]


def get(conn: Connection, operation_id: int) -> OperationRow:
    with conn.cursor(row_factory=class_row(OperationRow)) as cur:
        row = cur.execute(
            f"SELECT {_COLUMNS} FROM operation WHERE id = %s",  # noqa: S608 — a constant
            [operation_id],
        ).fetchone()
    if row is None:
        raise NotFound(f"operation {operation_id} does not exist")
    return row


def page(
    conn: Connection,
    *,
    before: int | None,
    limit: int,
    resource_id: str | None = None,
    state: str | None = None,
) -> list[OperationRow]:
    """Newest first, those with an id below `before`."""
    with conn.cursor(row_factory=class_row(OperationRow)) as cur:
        return cur.execute(
            f"SELECT {_COLUMNS} FROM operation"  # noqa: S608 — a constant
            " WHERE (%(before)s::bigint IS NULL OR id < %(before)s)"
            " AND (%(resource)s::text IS NULL OR resource_id = %(resource)s)"
            " AND (%(state)s::text IS NULL OR state = %(state)s)"
            " ORDER BY id DESC LIMIT %(limit)s",
            {"before": before, "resource": resource_id, "state": state, "limit": limit},
        ).fetchall()
