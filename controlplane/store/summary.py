"""Counts over the whole registry. Each is answered from an index or a table of one row a customer."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.store.registry import Connection, one, select


@dataclass(frozen=True, slots=True)
class TenantGroup:
    """How many tenants are alike in everything that their phase hangs on."""

    lifecycle: str = field(metadata={"sql": "spec->>'lifecycle'"})
    reconciled: bool = field(metadata={"sql": "observed_generation = generation"})
    ever_ready: bool = field(metadata={"sql": "ready_at IS NOT NULL"})
    started: bool = field(metadata={"sql": "started_at IS NOT NULL"})
    count: int = field(metadata={"sql": "count(*)"})


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    """`outdated`: those that name another release of the stacks than the installed one. `drifted`: those of
    which the last look found something changed."""

    total: int = field(metadata={"sql": "count(*)"})
    ready: int = field(
        metadata={"sql": "count(*) FILTER (WHERE ready_at IS NOT NULL AND endpoint IS NOT NULL)"}
    )
    slots: int = field(metadata={"sql": "coalesce(sum(slots), 0)::bigint"})
    used_slots: int = field(metadata={"sql": "coalesce(sum(used), 0)::bigint"})
    outdated: int = field(
        metadata={
            "sql": "count(*) FILTER (WHERE release <> (SELECT digest FROM stack_release"
            " ORDER BY installed_at DESC NULLS LAST, published_at DESC, digest LIMIT 1))"
        }
    )
    drifted: int = field(
        metadata={
            "sql": "count(*) FILTER (WHERE EXISTS (SELECT FROM stack WHERE workspace = cluster.id"
            " AND jsonb_array_length(drift) > 0))"
        }
    )


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """`oldest_seconds`: how long the oldest unhandled event has waited, 0 where there is none."""

    received: int = field(metadata={"sql": "count(*)"})
    parked: int = field(metadata={"sql": "(SELECT count(*) FROM stripe_event WHERE state = 'parked')"})
    oldest_seconds: float = field(
        metadata={"sql": "coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0)::float"}
    )


def tenant_groups(conn: Connection) -> list[TenantGroup]:
    return select(conn, TenantGroup, "FROM tenant GROUP BY 1, 2, 3, 4").fetchall()


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
    return one(select(conn, ClusterCounts, "FROM cluster WHERE destroyed_at IS NULL").fetchone())


def open_operations(conn: Connection) -> dict[str, int]:
    """state → how many, of the two states that an operation can leave."""
    rows = conn.execute(
        "SELECT 'waiting' AS state, count(*) AS n FROM operation WHERE state = 'waiting'"
        " UNION ALL SELECT 'running', count(*) FROM operation WHERE state = 'running'"
    )
    return {row["state"]: row["n"] for row in rows}


def inbox(conn: Connection) -> InboxCounts:
    return one(select(conn, InboxCounts, "FROM stripe_event WHERE state = 'received'").fetchone())
