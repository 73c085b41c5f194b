"""The step log: what an operation did, when, why, and how far a long step has come.

It is history for people. The engine never reads it back to decide what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.job import Job
from controlplane.domain.steps import Step, StepState
from controlplane.store.registry import Connection, one, select, transition


@dataclass(frozen=True, slots=True)
class StepRow:
    operation_id: int
    seq: int
    name: str
    target: str
    reason: str
    state: StepState
    error: str | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StepEventRow:
    id: int
    seq: int
    at: datetime
    kind: str
    address: str
    action: str
    seconds: float | None
    message: str


def begin(conn: Connection, held: Job, step: Step) -> int:
    """The new step's number within its operation."""
    return int(
        one(
            conn.execute(
                "INSERT INTO step (operation_id, seq, name, target, reason, state)"
                " SELECT %(op)s, coalesce(max(seq), 0) + 1, %(name)s, %(target)s, %(reason)s, 'running'"
                " FROM step WHERE operation_id = %(op)s RETURNING seq",
                {
                    "op": held.id,
                    "name": step.name,
                    "target": step.label,
                    "reason": step.reason,
                },
            ).fetchone()
        )["seq"]
    )


def end(conn: Connection, held: Job, seq: int, state: StepState, *, error: str | None) -> None:
    """Raises LookupError where it was abandoned, which the lease's guard has refused before."""
    transition(
        conn,
        "step",
        {"operation_id": held.id, "seq": seq},
        state,
        "error = %(message)s, finished_at = clock_timestamp()",
        error=LookupError,
        message=error,
    )


def note(
    conn: Connection,
    held: Job,
    seq: int,
    *,
    kind: str,
    address: str,
    action: str,
    seconds: float | None,
    message: str,
) -> None:
    conn.execute(
        "INSERT INTO step_event (operation_id, seq, kind, address, action, seconds, message)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [held.id, seq, kind, address, action, seconds, message[:500]],
    )


def of_operation(conn: Connection, operation_id: int) -> list[StepRow]:
    return select(conn, StepRow, "FROM step WHERE operation_id = %s ORDER BY seq", [operation_id]).fetchall()


def events_of(conn: Connection, operation_id: int, *, after: int = 0, limit: int = 500) -> list[StepEventRow]:
    """Progress events of all steps of an operation, oldest first, those with an id above `after`."""
    return select(
        conn,
        StepEventRow,
        "FROM step_event WHERE operation_id = %s AND id > %s ORDER BY id LIMIT %s",
        [operation_id, after, limit],
    ).fetchall()
