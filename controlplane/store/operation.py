"""Operations: request one, end one, read them.

Whoever asks while one waits is served by that one, so it has a cause for each of them, and the first gives
it its reason. The event or the request in whose course it was asked for is known to whoever handles that,
not to the dozen services between: they name it once, with `caused_by`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg.sql import SQL, Composed

from controlplane.domain.errors import LeaseLost
from controlplane.domain.operation import PERIODIC_OBSERVATION, ClaimedOperation, OperationState, ResourceKind
from controlplane.store.registry import Connection, column, one, select, transition

MOST_CAUSES = 50
"""That are kept of one operation: the first, which gives it its reason, and the newest others."""

_course: ContextVar[tuple[str | None, str | None]] = ContextVar("course", default=(None, None))


@contextmanager
def caused_by(*, event: str | None = None, request: str | None = None) -> Iterator[None]:
    """What is asked for within has this billing event or API request (an id each) for its cause."""
    before = _course.set((event, request))
    try:
        yield
    finally:
        _course.reset(before)


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


def _bounded(causes: LiteralString) -> Composed:
    """The first of these causes and the newest others."""
    return SQL(
        "CASE WHEN jsonb_array_length({causes}) <= {most} THEN {causes} ELSE"
        " jsonb_build_array({causes}->0) || jsonb_path_query_array({causes}, {newest}) END"
    ).format(causes=SQL(causes), most=MOST_CAUSES, newest=f"$[last-{MOST_CAUSES - 2} to last]")


_REQUEST = SQL(
    "INSERT INTO operation (kind, resource_id, reason, actor, causes, cause_count, state, next_attempt_at)"
    " SELECT %(kind)s, id, %(reason)s, %(actor)s,"
    "  CASE WHEN %(counts)s THEN jsonb_build_array(jsonb_build_object('reason', %(reason)s::text,"
    "   'actor', %(actor)s::text, 'event', %(event)s::text, 'request', %(request)s::text,"
    "   'at', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')))"
    "   ELSE '[]' END,"
    "  CASE WHEN %(counts)s THEN 1 ELSE 0 END, 'waiting',"
    "  clock_timestamp() + make_interval(secs => %(after)s) FROM unnest(%(ids)s::text[]) AS id"
    " ON CONFLICT (kind, resource_id) WHERE state = 'waiting'"
    " DO UPDATE SET next_attempt_at = clock_timestamp(), attempts = 0, causes = {},"
    "  cause_count = operation.cause_count + excluded.cause_count,"
    "  reason = CASE WHEN operation.reason = %(look)s THEN excluded.reason ELSE operation.reason END,"
    "  actor = CASE WHEN operation.reason = %(look)s THEN excluded.actor ELSE operation.actor END"
    " RETURNING id"
).format(_bounded("(operation.causes || excluded.causes)"))


def request(
    conn: Connection, kind: ResourceKind, resource_id: str, *, reason: str, actor: str, after: float = 0.0
) -> int:
    """Ensure one waiting operation, due now or `after` seconds from now; its id. One that waits already
    is brought forward to now and keeps this cause beside its own; a periodic observation is none."""
    [operation_id] = request_all(conn, kind, [resource_id], reason=reason, actor=actor, after=after)
    return operation_id


def request_all(
    conn: Connection,
    kind: ResourceKind,
    resource_ids: Sequence[str],
    *,
    reason: str,
    actor: str,
    after: float = 0.0,
) -> list[int]:
    """As `request`, for each of these."""
    event, request_id = _course.get()
    rows = conn.execute(
        _REQUEST,
        {
            "kind": kind,
            "ids": sorted(resource_ids),
            "reason": reason[:200],
            "actor": actor,
            "event": event,
            "request": request_id,
            "counts": reason != PERIODIC_OBSERVATION,
            "after": after,
            "look": PERIODIC_OBSERVATION,
        },
    )
    return [int(row["id"]) for row in rows]


def bring_forward(conn: Connection, kind: ResourceKind, resource_ids: list[str]) -> list[str]:
    """Make the waiting operations of these resources due now; which had one."""
    return column(
        conn,
        "UPDATE operation SET next_attempt_at = clock_timestamp()"
        " WHERE kind = %s AND resource_id = ANY(%s) AND state = 'waiting' RETURNING resource_id",
        [kind, resource_ids],
    )


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
    conn: Connection, held: ClaimedOperation, state: OperationState, *, error: str | None, runbook: str | None
) -> None:
    """Raises LeaseLost where it is another holder's by now."""
    transition(
        conn,
        "operation",
        {"id": held.operation_id, "fencing_token": held.fencing_token},
        state,
        "error = %(message)s, runbook = %(runbook)s, finished_at = clock_timestamp()",
        error=LeaseLost,
        message=error,
        runbook=runbook,
    )


def put_back(
    conn: Connection, held: ClaimedOperation, *, after: float, error: str | None, counts: bool
) -> OperationState:
    """Running → waiting, due after that many seconds; or superseded where another one waits already, which
    then has its causes too. Raises as `finish`.

    `counts`: whether this was an attempt (False for Pending: nothing was wrong).
    """
    folded = conn.execute(
        SQL(
            "UPDATE operation w SET causes = {}, cause_count = r.cause_count + w.cause_count,"
            "  reason = CASE WHEN r.cause_count > 0 THEN r.reason ELSE w.reason END,"
            "  actor = CASE WHEN r.cause_count > 0 THEN r.actor ELSE w.actor END"
            " FROM operation r WHERE r.id = %s AND r.fencing_token = %s AND r.state = 'running'"
            " AND w.kind = r.kind AND w.resource_id = r.resource_id AND w.state = 'waiting'"
        ).format(_bounded("(r.causes || w.causes)")),
        [held.operation_id, held.fencing_token],
    ).rowcount
    if folded:
        finish(conn, held, OperationState.SUPERSEDED, error=error, runbook=None)
        return OperationState.SUPERSEDED
    transition(
        conn,
        "operation",
        {"id": held.operation_id, "fencing_token": held.fencing_token},
        OperationState.WAITING,
        "error = %(message)s, attempts = attempts - %(undone)s,"
        " next_attempt_at = clock_timestamp() + make_interval(secs => %(after)s)",
        error=LeaseLost,
        message=error,
        undone=0 if counts else 1,
        after=after,
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
    rows = conn.execute(_DUE, {"limit": limit})
    return [(ResourceKind(row["kind"]), row["resource_id"]) for row in rows]


def get(conn: Connection, operation_id: int) -> OperationRow:
    """Raises NotFound."""
    row = select(conn, OperationRow, "FROM operation WHERE id = %s", [operation_id]).fetchone()
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
