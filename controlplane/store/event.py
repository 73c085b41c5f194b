"""The inbox of billing events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.sql import SQL

from controlplane.domain.billing import EventState
from controlplane.domain.job import JobKind
from controlplane.store import job
from controlplane.store.registry import Connection, exists, one, select, transition

ACTOR = "billing"


@dataclass(frozen=True, slots=True)
class EventRow:
    id: str
    type: str
    api_version: str | None
    livemode: bool
    created_at: datetime
    received_at: datetime
    state: EventState
    reason: str | None
    subscription_id: str | None
    subject: str
    handled_at: datetime | None


_INSERT = SQL(
    "WITH new AS (INSERT INTO stripe_event"
    "  (id, type, api_version, livemode, created_at, body, subject, state, reason, handled_at)"
    " VALUES (%(event)s, %(type)s, %(api_version)s, %(livemode)s, %(created_at)s, %(body)s, %(subject)s,"
    "  %(state)s, %(why)s, CASE WHEN %(state)s::text <> 'received' THEN clock_timestamp() END)"
    " ON CONFLICT DO NOTHING RETURNING subject, state),"
    " asked AS ({ensure})"
    " SELECT FROM new"
).format(ensure=job.ensuring("new WHERE state = 'received'"))


def insert(
    conn: Connection,
    *,
    event_id: str,
    type_: str,
    api_version: str | None,
    livemode: bool,
    created_at: datetime,
    body: bytes,
    subject: str,
    customer_id: str | None = None,
    state: EventState,
    reason: str | None,
) -> bool:
    """And ask for its intake, unless it is done with; one statement, since a webhook waits for it. False
    where this event is in the inbox already. `subject`: what it is about; the job of that name has
    `customer_id` to itself, where that is known."""
    with job.caused_by(event=event_id):
        asked = job.values(JobKind.INTAKE, reason=type_, actor=ACTOR, lock=customer_id)
    event = {
        "type": type_,
        "api_version": api_version,
        "livemode": livemode,
        "created_at": created_at,
        "body": body,
        "subject": subject,
        "state": state,
        "why": reason,
    }
    return exists(conn, _INSERT, {**asked, **event})


def get(conn: Connection, event_id: str) -> EventRow:
    """Raises NotFound."""
    row = select(conn, EventRow, "FROM stripe_event WHERE id = %s", [event_id]).fetchone()
    return one(row, f"event {event_id}")


def body(conn: Connection, event_id: str) -> bytes:
    """As it was signed. Raises NotFound."""
    row = conn.execute("SELECT body FROM stripe_event WHERE id = %s", [event_id]).fetchone()
    return bytes(one(row, f"event {event_id}")["body"])


@dataclass(frozen=True, slots=True)
class ReceivedRow(EventRow):
    """`body`: as it was signed."""

    body: bytes


def received(conn: Connection, subject: str) -> list[ReceivedRow]:
    """Those about this subject that are to be handled, oldest first."""
    return select(
        conn,
        ReceivedRow,
        "FROM stripe_event WHERE subject = %s AND state = 'received' ORDER BY received_at, id",
        [subject],
    ).fetchall()


def finish(
    conn: Connection,
    event_ids: Sequence[str],
    state: EventState,
    *,
    reason: str | None,
    subscription_id: str | None,
) -> None:
    """received → `state`, within the transaction of the job's holder. Passes over those that somebody has
    dismissed meanwhile."""
    conn.execute(
        "UPDATE stripe_event SET state = %s, reason = %s, handled_at = clock_timestamp(),"
        " subscription_id = coalesce(%s, subscription_id) WHERE id = ANY(%s) AND state = 'received'",
        [state, reason, subscription_id, list(event_ids)],
    )


def note(conn: Connection, subject: str, reason: str) -> None:
    """Why those about this subject are not handled yet."""
    conn.execute(
        "UPDATE stripe_event SET reason = %s WHERE subject = %s AND state = 'received'",
        [reason[:500], subject],
    )


def replay(conn: Connection, event_id: str, *, customer_id: str | None) -> None:
    """Handle it again from the start, whatever became of it; `customer_id`: as for `insert`. Raises
    NotFound."""
    row = get(conn, event_id)
    transition(
        conn,
        "stripe_event",
        {"id": event_id},
        EventState.RECEIVED,
        "reason = 'replay asked for', handled_at = NULL",
    )
    with job.caused_by(event=event_id):
        job.ensure(conn, JobKind.INTAKE, row.subject, reason="replay", actor=ACTOR, lock=customer_id)


def dismiss(conn: Connection, event_id: str, *, reason: str) -> None:
    """Ignore one that is parked. Raises NotFound, and Conflict where it is not."""
    transition(
        conn,
        "stripe_event",
        {"id": get(conn, event_id).id},
        EventState.IGNORED,
        "reason = %(reason)s",
        sources=[EventState.PARKED],
        reason=reason,
    )


def page(
    conn: Connection, *, before: tuple[datetime, str] | None, limit: int, state: str | None = None
) -> list[EventRow]:
    """Newest first, those received before the given (received_at, id)."""
    at, event_id = before if before else (None, None)
    return select(
        conn,
        EventRow,
        "FROM stripe_event"
        " WHERE (%(at)s::timestamptz IS NULL OR (received_at, id) < (%(at)s, %(id)s))"
        " AND (%(state)s::text IS NULL OR state = %(state)s)"
        " ORDER BY received_at DESC, id DESC LIMIT %(limit)s",
        {"at": at, "id": event_id, "state": state, "limit": limit},
    ).fetchall()
