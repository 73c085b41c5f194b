"""The warm pool's view of all clusters."""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg.sql import SQL

from controlplane.domain.pool import Settled
from controlplane.store.cluster import ClusterRow
from controlplane.store.registry import Connection, query, select

_ADVISORY_LOCK = 0x7C9_0004


def _age(moment: str) -> str:
    return f"extract(epoch FROM clock_timestamp() - {moment})::float"


@dataclass(frozen=True, slots=True)
class PooledCluster(ClusterRow):
    """Ages in seconds, None where it is not so. `stack_digest`: what Terraform last confirmed."""

    age: float = field(metadata={"sql": _age("c.created_at")})
    surplus_for: float | None = field(metadata={"sql": _age("c.surplus_since")})
    parked_for: float | None = field(metadata={"sql": _age("o.finished_at")})
    stack_digest: str | None = field(metadata={"sql": "s.digest"})


def hold(conn: Connection) -> bool:
    """One look that acts at a time over the whole fleet, to the end of the transaction. False where
    another one is under way."""
    row = conn.execute("SELECT pg_try_advisory_xact_lock(%s) AS mine", [_ADVISORY_LOCK]).fetchone()
    return row is not None and bool(row["mine"])


_JOINED = (
    "FROM cluster c LEFT JOIN stack s ON s.workspace = c.id"
    " LEFT JOIN LATERAL (SELECT state, finished_at FROM operation"
    "   WHERE kind = 'cluster' AND resource_id = c.id ORDER BY id DESC LIMIT 1) o"
    "  ON c.runbook IS NOT NULL AND o.state = 'parked'"
)
_SETTLED = (
    "c.used > 0 AND c.ready_at IS NOT NULL AND c.runbook IS NULL AND c.surplus_since IS NULL"
    " AND c.spec->>'lifecycle' = 'active'"
)


_COUNTED = SQL(
    "SELECT cluster_class, count(*) AS clusters, sum(used)::integer AS used,"
    " sum(slots - used)::integer AS free"
    " FROM cluster c WHERE c.destroyed_at IS NULL AND NOT c.spec ? 'origin' AND {} GROUP BY cluster_class"
).format(SQL(_SETTLED))


def settled(conn: Connection) -> list[Settled]:
    """Most of a fleet: nothing is decided about these, so they are only counted."""
    return query(conn, Settled, _COUNTED).fetchall()


def clusters(conn: Connection) -> list[PooledCluster]:
    """All others that tenants may be on and that are not gone, oldest first."""
    return select(
        conn,
        PooledCluster,
        f"{_JOINED} WHERE c.destroyed_at IS NULL AND NOT c.spec ? 'origin' AND NOT ({_SETTLED})"
        " ORDER BY c.created_at, c.id",
        table="c",
    ).fetchall()


def mark_surplus(conn: Connection, cluster_ids: list[str]) -> None:
    """These are a surplus, from now on where they were none; no other cluster is one any more."""
    conn.execute(
        "UPDATE cluster SET surplus_since = CASE WHEN id = ANY(%(ids)s) THEN clock_timestamp() END"
        " WHERE destroyed_at IS NULL AND (surplus_since IS NOT NULL) <> (id = ANY(%(ids)s))",
        {"ids": cluster_ids},
    )
