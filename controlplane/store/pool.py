"""The warm pool's view of all clusters, in one query, and what the last look at it found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.store.cluster import COLUMNS as CLUSTER
from controlplane.store.cluster import ClusterRow, row_of
from controlplane.store.registry import Connection

_ADVISORY_LOCK = 0x7C9_0004


@dataclass(frozen=True, slots=True)
class PooledCluster:
    """`used`: slots with a tenant; `ever_used`: it has or had one, even if only as the source of a move.
    Ages in seconds, None where it is not so. `stack_digest`: what Terraform last confirmed."""

    row: ClusterRow
    used: int
    ever_used: bool
    age: float
    surplus_for: float | None
    parked_for: float | None
    stack_digest: str | None


@dataclass(frozen=True, slots=True)
class Report:
    content: dict[str, Any]
    observed_at: datetime


def hold(conn: Connection) -> bool:
    """One look that acts at a time over the whole fleet, to the end of the transaction. False where
    another one is under way."""
    row = conn.execute("SELECT pg_try_advisory_xact_lock(%s) AS mine", [_ADVISORY_LOCK]).fetchone()
    return row is not None and bool(row["mine"])


def clusters(conn: Connection) -> list[PooledCluster]:
    """All that tenants may be on and that are not gone, oldest first."""
    rows = conn.execute(
        f"""
        SELECT {CLUSTER},
               coalesce(p.used, 0) AS used, coalesce(p.ever, 0) > 0 AS ever_used,
               extract(epoch FROM clock_timestamp() - c.created_at)::float AS age,
               extract(epoch FROM clock_timestamp() - c.surplus_since)::float AS surplus_for,
               extract(epoch FROM clock_timestamp() - o.finished_at)::float AS parked_for,
               s.digest AS stack_digest
          FROM cluster c
          LEFT JOIN (SELECT cluster_id, count(*) AS ever,
                            count(*) FILTER (WHERE state NOT IN ('released', 'purged')) AS used
                       FROM placement GROUP BY cluster_id) p ON p.cluster_id = c.id
          LEFT JOIN stack s ON s.workspace = c.id
          LEFT JOIN LATERAL (SELECT state, finished_at FROM operation
                              WHERE kind = 'cluster' AND resource_id = c.id ORDER BY id DESC LIMIT 1) o
                 ON o.state = 'parked'
         WHERE c.destroyed_at IS NULL AND NOT c.spec ? 'origin'
         ORDER BY c.created_at, c.id
        """  # noqa: S608 — constants
    ).fetchall()
    return [
        PooledCluster(
            used=row.pop("used"),
            ever_used=row.pop("ever_used"),
            age=row.pop("age"),
            surplus_for=row.pop("surplus_for"),
            parked_for=row.pop("parked_for"),
            stack_digest=row.pop("stack_digest"),
            row=row_of(row),
        )
        for row in rows
    ]


def mark_surplus(conn: Connection, cluster_ids: list[str]) -> None:
    """These are a surplus, from now on where they were none; no other cluster is one any more."""
    conn.execute(
        "UPDATE cluster SET surplus_since = CASE WHEN id = ANY(%(ids)s) THEN clock_timestamp() END"
        " WHERE destroyed_at IS NULL AND (surplus_since IS NOT NULL) <> (id = ANY(%(ids)s))",
        {"ids": cluster_ids},
    )


def report(conn: Connection) -> Report | None:
    """None before the first look."""
    row = conn.execute("SELECT report, observed_at FROM pool").fetchone()
    return None if row is None else Report(row["report"], row["observed_at"])


def set_report(conn: Connection, content: dict[str, Any], *, at_most_every: float) -> None:
    """Written where it says something new, and else only every so many seconds, as a sign of life."""
    conn.execute(
        "INSERT INTO pool (report) VALUES (%(content)s)"
        " ON CONFLICT (id) DO UPDATE SET report = excluded.report, observed_at = clock_timestamp()"
        " WHERE pool.report <> excluded.report"
        "    OR pool.observed_at < clock_timestamp() - make_interval(secs => %(every)s)",
        {"content": Jsonb(content), "every": at_most_every},
    )
