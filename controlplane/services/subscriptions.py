"""Subscriptions, for those who look after the ones that stopped for a person."""

from __future__ import annotations

from datetime import datetime

from controlplane.store import subscription
from controlplane.store.registry import Connection
from controlplane.store.subscription import SubscriptionRow

OUTCOMES = ("new", "applied", "waiting", "ignored", "parked")


def list_page(
    conn: Connection, *, after: tuple[datetime, str] | None, limit: int, outcome: str | None = None
) -> list[SubscriptionRow]:
    """Oldest first, those behind the given (first_event_at, id)."""
    return subscription.page(conn, after=after, limit=limit, outcome=outcome)
