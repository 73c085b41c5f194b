"""The inbox of billing events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.sql import SQL

from controlplane.domain.billing import EventState
from controlplane.domain.job import JobKind
from controlplane.store import job
from controlplane.store.registry import Connection, column, columns, exists, one, query, select, transition

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
    contract_id: str | None
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
    contract_id: str | None,
) -> None:
    """received → `state`, within the transaction of the job's holder. Passes over those that somebody has
    dismissed meanwhile."""
    conn.execute(
        "UPDATE stripe_event SET state = %s, reason = %s, handled_at = clock_timestamp(),"
        " contract_id = coalesce(%s, contract_id) WHERE id = ANY(%s) AND state = 'received'",
        [state, reason, contract_id, list(event_ids)],
    )


def mend(conn: Connection, contract_ids: Sequence[str], customer_id: str | None) -> None:
    """Those that were parked about these contracts, or about this customer as a whole, have their cause
    behind them."""
    conn.execute(
        "UPDATE stripe_event SET state = 'applied', reason = 'what it was parked for is over'"
        " WHERE state = 'parked' AND (contract_id = ANY(%s) OR subject = %s)",
        [list(contract_ids), customer_id],
    )


def unheard(conn: Connection, customer_ids: Sequence[str], *, since: datetime) -> list[str]:
    """Those of them about whom no event has come since; nor in the quarter of an hour before, in which one
    may have been on its way."""
    return column(
        conn,
        "SELECT name FROM unnest(%s::text[]) name WHERE NOT EXISTS (SELECT FROM stripe_event"
        "  WHERE received_at >= %s::timestamptz - interval '15 minutes' AND (subject = name"
        "   OR contract_id IN (SELECT id FROM contract WHERE customer_id = name))) ORDER BY name",
        [list(customer_ids), since],
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
    ask_again(conn, row, customer_id=customer_id)


def ask_again(conn: Connection, row: EventRow, *, customer_id: str | None) -> None:
    """For the intake of an event that is received anew."""
    with job.caused_by(event=row.id):
        job.ensure(conn, JobKind.INTAKE, row.subject, reason="replay", actor=ACTOR, lock=customer_id)


_PARKED_BECAUSE = "FROM stripe_event WHERE state = 'parked' AND strpos(reason, %(text)s) > 0"
_LONGEST = _PARKED_BECAUSE + " ORDER BY handled_at, id LIMIT %(limit)s"


def parked_because(conn: Connection, text: str, *, limit: int) -> list[EventRow]:
    """Whose reason has this in it; those that have been parked for the longest."""
    return select(conn, EventRow, _LONGEST, {"text": text, "limit": limit}).fetchall()


def count_parked_because(conn: Connection, text: str) -> int:
    [number] = column(conn, "SELECT count(*) " + _PARKED_BECAUSE, {"text": text})
    return int(number)


def replay_parked_because(conn: Connection, text: str, *, limit: int) -> list[EventRow]:
    """Have the same received anew; `ask_again` is the caller's."""
    statement = (
        "WITH found AS MATERIALIZED (SELECT id AS found_id " + _LONGEST + " FOR UPDATE)"  # noqa: S608 — ours
        " UPDATE stripe_event SET state = 'received', reason = 'replay asked for', handled_at = NULL"
        " FROM found WHERE id = found_id RETURNING " + columns(EventRow)
    )
    found = query(conn, EventRow, statement, {"text": text, "limit": limit})
    return sorted(found, key=lambda row: (row.received_at, row.id))


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
