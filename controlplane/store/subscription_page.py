"""Subscriptions, page by page, for those who look after them."""

from __future__ import annotations

from datetime import datetime

from psycopg.rows import class_row

from controlplane.store.registry import Connection
from controlplane.store.subscription import SubscriptionRow


def page(
    conn: Connection, *, after: tuple[datetime, str] | None, limit: int, outcome: str | None = None
) -> list[SubscriptionRow]:
    """Oldest first, those behind the given (first_event_at, id)."""
    at, subscription_id = after or (None, None)
    with conn.cursor(row_factory=class_row(SubscriptionRow)) as cur:
        return cur.execute(
            "SELECT id, customer_id, status, outcome, reason, tenant_id, revision, first_event_at, fetched_at"
            " FROM subscription"
            " WHERE (%(at)s::timestamptz IS NULL OR (first_event_at, id) > (%(at)s, %(id)s))"
            " AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)"
            " ORDER BY first_event_at, id LIMIT %(limit)s",
            {"at": at, "id": subscription_id, "outcome": outcome, "limit": limit},
        ).fetchall()
