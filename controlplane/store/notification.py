"""Notifications to the operator's systems: an outbox.

A notification is written in the transaction that makes it true, so nothing is notified that did not happen
and nothing happens without its notification. It is delivered later, at least once, always with the same id;
`once` keeps the same fact from being notified twice however often a pass is repeated.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from controlplane.domain.errors import LeaseLost
from controlplane.domain.notification import NotificationKind, NotificationState
from controlplane.store.registry import Connection, one, returning, select, transition

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotificationRow:
    """`answer`: what came of the last try."""

    seq: int
    id: str
    tenant_id: str | None
    kind: str
    payload: dict[str, Any]
    state: NotificationState
    tries: int
    next_try_at: datetime
    answer: str | None
    created_at: datetime
    finished_at: datetime | None


def add(conn: Connection, tenant_id: str, kind: NotificationKind, *, once: str, **data: Any) -> None:
    """Within the transaction of what it tells of. `data`: JSON, no secret."""
    _insert(
        conn,
        "SELECT id, jsonb_build_object('tenant', id, 'slug', slug, 'customer', customer_id) AS about"
        " FROM tenant WHERE id = %(tenant)s",
        kind,
        {"tenant": tenant_id, "source": "tenant", "once": once, "data": Jsonb(data)},
    )


def add_for_billing(conn: Connection, kind: NotificationKind, *, once: str, **data: Any) -> None:
    """As `add`, of what is no tenant's: a contract that waits for a person, billing as a whole."""
    _insert(
        conn,
        "SELECT NULL AS id, '{}'::jsonb AS about",
        kind,
        {"source": "billing", "once": once, "data": Jsonb(data)},
    )


def _insert(conn: Connection, about: LiteralString, kind: NotificationKind, values: dict[str, Any]) -> None:
    row = conn.execute(
        SQL(
            "INSERT INTO notification (id, tenant_id, kind, once, payload)"
            " SELECT %(id)s, t.id, %(kind)s, %(once)s, jsonb_build_object("
            "   'type', %(source)s || '.' || %(kind)s::text, 'timestamp',"
            "   to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),"
            "   'data', t.about || %(data)s::jsonb)"
            " FROM ({}) t"
            " ON CONFLICT ON CONSTRAINT notification_once DO NOTHING RETURNING id, tenant_id"
        ).format(SQL(about)),
        {**values, "id": f"msg_{secrets.token_hex(16)}", "kind": kind.value},
    ).fetchone()
    if row is not None:
        log.info("notification %s: %s %s", row["id"], row["tenant_id"] or "billing", kind.value)


def next_due(conn: Connection) -> NotificationRow | None:
    """The one that has been due the longest, its try counted before it is made; None where none is due."""
    return returning(
        conn,
        NotificationRow,
        "UPDATE notification SET tries = tries + 1"
        " WHERE id = (SELECT id FROM notification WHERE state = 'waiting'"
        "  AND next_try_at <= now() ORDER BY next_try_at, seq LIMIT 1)",
    ).fetchone()


def finish(conn: Connection, notification_id: str, state: NotificationState, *, answer: str) -> None:
    """Raises LeaseLost where another worker has ended it."""
    transition(
        conn,
        "notification",
        {"id": notification_id},
        state,
        "answer = %(answer)s, finished_at = clock_timestamp()",
        error=LeaseLost,
        answer=answer[:500],
    )


def put_off(conn: Connection, notification_id: str, *, after: float, answer: str) -> None:
    """Due again after that many seconds."""
    conn.execute(
        "UPDATE notification SET answer = %s, next_try_at = clock_timestamp() + make_interval(secs => %s)"
        " WHERE id = %s AND state = 'waiting'",
        [answer[:500], after, notification_id],
    )


def redeliver(conn: Connection, notification_id: str) -> NotificationRow:
    """Due again, from its first attempt. Raises NotFound, and Conflict for one that waits already."""
    transition(
        conn,
        "notification",
        {"id": get(conn, notification_id).id},
        NotificationState.WAITING,
        "tries = 0, next_try_at = clock_timestamp(), finished_at = NULL",
    )
    return get(conn, notification_id)


def get(conn: Connection, notification_id: str) -> NotificationRow:
    """Raises NotFound."""
    row = select(conn, NotificationRow, "FROM notification WHERE id = %s", [notification_id]).fetchone()
    return one(row, f"notification {notification_id}")


def page(
    conn: Connection, *, before: int | None, limit: int, state: str | None = None
) -> list[NotificationRow]:
    """Newest first, those with a number below `before`."""
    return select(
        conn,
        NotificationRow,
        "FROM notification WHERE (%(before)s::bigint IS NULL OR seq < %(before)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY seq DESC LIMIT %(limit)s",
        {"before": before, "state": state, "limit": limit},
    ).fetchall()
