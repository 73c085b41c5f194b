"""The inbox of billing events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.billing import EventState
from controlplane.domain.errors import Conflict, LeaseLost
from controlplane.store.registry import Connection, column, one, returning, select, transition


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
    attempts: int
    next_attempt_at: datetime
    handled_at: datetime | None


def insert(
    conn: Connection,
    *,
    event_id: str,
    type_: str,
    api_version: str | None,
    livemode: bool,
    created_at: datetime,
    body: bytes,
    state: EventState,
    reason: str | None,
) -> bool:
    """False where this event is in the inbox already."""
    handled = state is not EventState.RECEIVED
    return (
        conn.execute(
            "INSERT INTO stripe_event"
            " (id, type, api_version, livemode, created_at, body, state, reason, handled_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, CASE WHEN %s THEN clock_timestamp() END)"
            " ON CONFLICT DO NOTHING",
            [event_id, type_, api_version, livemode, created_at, body, state, reason, handled],
        ).rowcount
        > 0
    )


def get(conn: Connection, event_id: str) -> EventRow:
    """Raises NotFound."""
    row = select(conn, EventRow, "FROM stripe_event WHERE id = %s", [event_id]).fetchone()
    return one(row, f"event {event_id}")


def body(conn: Connection, event_id: str) -> bytes:
    """As it was signed. Raises NotFound."""
    row = conn.execute("SELECT body FROM stripe_event WHERE id = %s", [event_id]).fetchone()
    return bytes(one(row, f"event {event_id}")["body"])


def take(conn: Connection, event_id: str, *, hold: float) -> EventRow | None:
    """An event that is due, held for `hold` seconds so that no sweep notifies of it meanwhile; None
    where it is handled, or in somebody else's hands. The attempt is counted before the work, so an
    event that kills its worker is parked in the end too."""
    return returning(
        conn,
        EventRow,
        "UPDATE stripe_event SET attempts = attempts + 1,"
        " next_attempt_at = clock_timestamp() + make_interval(secs => %s)"
        " WHERE id = %s AND state = 'received' AND next_attempt_at <= clock_timestamp()",
        [hold, event_id],
    ).fetchone()


def finish(
    conn: Connection, event_id: str, state: EventState, *, reason: str | None, subscription_id: str | None
) -> None:
    """received → `state`. Raises LeaseLost where the hold ran out and somebody else has handled it."""
    transition(
        conn,
        "stripe_event",
        {"id": event_id},
        state,
        "reason = %(reason)s, subscription_id = coalesce(%(subscription)s, subscription_id),"
        " handled_at = clock_timestamp()",
        error=LeaseLost,
        sources=[EventState.RECEIVED],
        reason=reason,
        subscription=subscription_id,
    )


def defer(conn: Connection, event_id: str, *, after: float, reason: str) -> None:
    """It is due again after that many seconds. Raises as `finish`."""
    transition(
        conn,
        "stripe_event",
        {"id": event_id},
        EventState.RECEIVED,
        "reason = %(reason)s, next_attempt_at = clock_timestamp() + make_interval(secs => %(after)s)",
        error=LeaseLost,
        sources=[EventState.RECEIVED],
        reason=reason[:500],
        after=after,
    )


def replay(conn: Connection, event_id: str) -> None:
    """Handle it again from the start, whatever became of it. Raises NotFound, and Conflict where its body was
    removed, as it is some time after it was handled."""
    if not body(conn, event_id):
        raise Conflict(f"event {event_id}: its body was removed, it was handled long ago")
    transition(
        conn,
        "stripe_event",
        {"id": event_id},
        EventState.RECEIVED,
        "reason = 'replay asked for', attempts = 0, next_attempt_at = clock_timestamp(), handled_at = NULL",
    )


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


def due(conn: Connection, *, limit: int) -> list[str]:
    return column(
        conn,
        "SELECT id FROM stripe_event WHERE state = 'received' AND next_attempt_at <= statement_timestamp()"
        " ORDER BY next_attempt_at LIMIT %s",
        [limit],
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
