"""Counts over the whole registry. Each is answered from an index or a table of one row a customer."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.store.registry import Connection, one


@dataclass(frozen=True, slots=True)
class TenantGroup:
    """How many tenants are alike in everything that their phase hangs on."""

    lifecycle: str
    reconciled: bool
    ever_ready: bool
    started: bool
    count: int


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    total: int
    ready: int
    slots: int
    used_slots: int


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """`oldest_seconds`: how long the oldest unhandled event has waited, 0 where there is none."""

    received: int
    parked: int
    oldest_seconds: float


def tenant_groups(conn: Connection) -> list[TenantGroup]:
    rows = conn.execute(
        "SELECT spec->>'lifecycle' AS lifecycle, observed_generation = generation AS reconciled,"
        " ready_at IS NOT NULL AS ever_ready, started_at IS NOT NULL AS started, count(*) AS count"
        " FROM tenant GROUP BY 1, 2, 3, 4"
    ).fetchall()
    return [TenantGroup(**row) for row in rows]


def needing_attention(conn: Connection) -> tuple[int, int]:
    """(tenants, clusters)."""
    row = one(
        conn.execute(
            "SELECT (SELECT count(*) FROM tenant WHERE needs_attention IS NOT NULL) AS tenants,"
            " (SELECT count(*) FROM cluster WHERE needs_attention IS NOT NULL) AS clusters"
        ).fetchone()
    )
    return row["tenants"], row["clusters"]


def clusters(conn: Connection) -> ClusterCounts:
    row = one(
        conn.execute(
            "SELECT count(*) AS total,"
            " count(*) FILTER (WHERE ready_at IS NOT NULL AND endpoint IS NOT NULL) AS ready,"
            " coalesce(sum(slots), 0)::bigint AS slots,"
            " (SELECT count(*) FROM placement WHERE state NOT IN ('released', 'purged')) AS used_slots"
            " FROM cluster WHERE destroyed_at IS NULL"
        ).fetchone()
    )
    return ClusterCounts(**row)


def open_operations(conn: Connection) -> dict[str, int]:
    """state → how many, of the two states that an operation can leave."""
    rows = conn.execute(
        "SELECT 'waiting' AS state, count(*) AS n FROM operation WHERE state = 'waiting'"
        " UNION ALL SELECT 'running', count(*) FROM operation WHERE state = 'running'"
    ).fetchall()
    return {row["state"]: row["n"] for row in rows}


def inbox(conn: Connection) -> InboxCounts:
    row = one(
        conn.execute(
            "SELECT (SELECT count(*) FROM stripe_event WHERE state = 'parked') AS parked,"
            " count(*) AS received,"
            " coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0)::float AS oldest_seconds"
            " FROM stripe_event WHERE state = 'received'"
        ).fetchone()
    )
    return InboxCounts(**row)
