"""Subscriptions: what became of the last observation of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.billing import ENDED, SubscriptionOutcome
from controlplane.domain.hostname import RefusedDomain
from controlplane.domain.tenant import TenantSpec
from controlplane.store.registry import Connection, exists, one, returning, select


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    id: str
    customer_id: str | None
    status: str | None
    outcome: SubscriptionOutcome
    reason: str | None
    tenant_id: str | None
    revision: int
    first_event_at: datetime
    fetched_at: datetime | None


def touch(conn: Connection, subscription_id: str, *, event_at: datetime) -> SubscriptionRow:
    """The row, made where there is none; `first_event_at` only moves back. Call it before the fetch: `lock`
    takes the revision that it has here."""
    return one(
        returning(
            conn,
            SubscriptionRow,
            "INSERT INTO subscription AS s (id, outcome, first_event_at) VALUES (%s, 'new', %s)"
            " ON CONFLICT (id) DO UPDATE"
            " SET first_event_at = least(s.first_event_at, excluded.first_event_at)",
            [subscription_id, event_at],
        ).fetchone()
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What became of a subscription, and what its tenant should be (None where there is none). `refused`: the
    custom domains that the tenant did not get; `free`: those of them that are nobody else's."""

    outcome: SubscriptionOutcome
    spec: TenantSpec | None
    refused: tuple[RefusedDomain, ...] = ()
    free: frozenset[str] = frozenset()


def known(conn: Connection, subscription_ids: list[str]) -> dict[str, Known]:
    rows = conn.execute(
        "SELECT s.id, s.outcome, t.spec, coalesce(t.refused_domains, '[]') AS refused,"
        " ARRAY(SELECT d->>'host' FROM jsonb_array_elements(t.refused_domains) d WHERE NOT EXISTS"
        "  (SELECT FROM hostname h WHERE h.host = d->>'host' AND h.tenant_id <> t.id)) AS free"
        " FROM subscription s LEFT JOIN tenant t ON t.id = s.tenant_id WHERE s.id = ANY(%s)",
        [subscription_ids],
    ).fetchall()
    return {
        row["id"]: Known(
            SubscriptionOutcome(row["outcome"]),
            None if row["spec"] is None else TenantSpec.from_json(row["spec"]),
            tuple(RefusedDomain(**found) for found in row["refused"]),
            frozenset(row["free"]),
        )
        for row in rows
    }


def live_of_customer(conn: Connection, customer_id: str) -> list[tuple[str, str | None]]:
    """Those that have not ended, oldest first: (id, Stripe's word for the status, None where it is not known
    yet). Whatever may bring money or is owed some counts, unpaid and incomplete ones too."""
    rows = conn.execute(
        "SELECT id, status FROM subscription WHERE customer_id = %s"
        " AND coalesce(status, '') <> ALL(%s) ORDER BY first_event_at, id",
        [customer_id, list(ENDED)],
    )
    return [(row["id"], row["status"]) for row in rows]


def lock(conn: Connection, subscription_id: str, *, revision: int) -> bool:
    """Within a transaction: the right to write what was decided from an object fetched while
    `revision` was current. False where somebody wrote since: the object may be old, fetch again."""
    return exists(
        conn,
        "SELECT 1 FROM subscription WHERE id = %s AND revision = %s FOR UPDATE",
        [subscription_id, revision],
    )


def record(
    conn: Connection,
    subscription_id: str,
    *,
    customer_id: str | None,
    status: str | None,
    outcome: SubscriptionOutcome,
    reason: str | None,
    tenant_id: str | None,
) -> None:
    conn.execute(
        "UPDATE subscription SET customer_id = coalesce(%s, customer_id), status = coalesce(%s, status),"
        " outcome = %s, reason = %s, tenant_id = coalesce(%s, tenant_id), revision = revision + 1,"
        " fetched_at = clock_timestamp() WHERE id = %s",
        [customer_id, status, outcome, reason, tenant_id, subscription_id],
    )


def parked(conn: Connection, *, limit: int) -> list[SubscriptionRow]:
    return select(
        conn,
        SubscriptionRow,
        "FROM subscription WHERE outcome = 'parked' ORDER BY first_event_at LIMIT %s",
        [limit],
    ).fetchall()


def page(
    conn: Connection, *, after: tuple[datetime, str] | None, limit: int, outcome: str | None = None
) -> list[SubscriptionRow]:
    """Oldest first, those behind the given (first_event_at, id)."""
    at, subscription_id = after or (None, None)
    return select(
        conn,
        SubscriptionRow,
        "FROM subscription"
        " WHERE (%(at)s::timestamptz IS NULL OR (first_event_at, id) > (%(at)s, %(id)s))"
        " AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)"
        " ORDER BY first_event_at, id LIMIT %(limit)s",
        {"at": at, "id": subscription_id, "outcome": outcome, "limit": limit},
    ).fetchall()


def counts(conn: Connection) -> dict[str, int]:
    rows = conn.execute("SELECT outcome, count(*) AS n FROM subscription GROUP BY outcome")
    return {row["outcome"]: row["n"] for row in rows}
