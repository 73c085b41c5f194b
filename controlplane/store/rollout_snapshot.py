"""Snapshots of clusters from before a rollout: wanted by its members, made and removed by workers.

Who needs one: a tenant whose plan asks for it, unless the rollout has an available snapshot of the
cluster that it lives on, requested after it came there (after its placement was made, or with a move
after it took over). So the tenants of a shared cluster share one,
and a tenant that was moved there in the middle of the rollout gets another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import LiteralString

from psycopg.sql import SQL

from controlplane.domain.errors import LeaseLost
from controlplane.domain.job import JobKind
from controlplane.domain.rollout import SnapshotState, snapshot_name
from controlplane.store import job
from controlplane.store.registry import Connection, column, one, select, transition


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """By the registry's clock, `overdue`: it has been in the making for longer than the rollout allows;
    `seconds_left`: until it is removed, None as long as the rollout goes on."""

    rollout_id: int
    cluster_id: str
    number: int
    name: str
    state: SnapshotState
    error: str | None
    requested_at: datetime
    available_at: datetime | None
    deleted_at: datetime | None
    overdue: bool = field(
        metadata={
            "sql": "clock_timestamp() > s.requested_at"
            "   + make_interval(secs => coalesce((r.spec->>'snapshot_timeout')::float8, 3600))"
        }
    )
    seconds_left: float | None = field(
        metadata={
            "sql": "extract(epoch FROM r.finished_at - clock_timestamp()"
            "   + make_interval(days => coalesce((r.spec->>'snapshot_days')::int, 14)))::float8"
        }
    )


_UNPROTECTED = """
      FROM rollout_member t
      JOIN tenant ON tenant.id = t.tenant_id AND tenant.spec->>'plan' = ANY(%(plans)s)
      JOIN placement p ON p.tenant_id = t.tenant_id AND p.state = 'current'
     WHERE t.rollout_id = %(rollout)s AND tenant.spec->>'lifecycle' <> 'closed'
       AND NOT EXISTS (SELECT FROM rollout_snapshot s
                        WHERE s.rollout_id = t.rollout_id AND s.cluster_id = p.cluster_id
                          AND s.state = 'available' AND s.requested_at >= greatest(p.created_at,
                            (SELECT max(m.cut_at) FROM transfer m
                              WHERE m.tenant_id = p.tenant_id AND m.target = p.id)))
"""


def unprotected(
    conn: Connection, rollout_id: int, tenant_ids: Sequence[str], *, plans: Sequence[str]
) -> dict[str, str]:
    """tenant id → the cluster it lives on, of those that need a snapshot first. `plans`: that ask for one."""
    rows = conn.execute(
        SQL("SELECT t.tenant_id, p.cluster_id {} AND t.tenant_id = ANY(%(tenants)s)").format(
            SQL(_UNPROTECTED)
        ),
        {"rollout": rollout_id, "plans": list(plans), "tenants": list(tenant_ids)},
    )
    return {row["tenant_id"]: row["cluster_id"] for row in rows}


def hold(conn: Connection, rollout_id: int, waiting: dict[str, str]) -> None:
    """Want a snapshot of each of these clusters, unless one is in the making; its tenants (tenant id →
    cluster) are not started before it is available. The rollout's row must be locked."""
    conn.execute(
        "UPDATE rollout_member t SET cluster_id = w.cluster_id"
        "  FROM unnest(%s::text[], %s::text[]) AS w (tenant_id, cluster_id)"
        " WHERE t.rollout_id = %s AND t.tenant_id = w.tenant_id AND t.cluster_id <> w.cluster_id",
        [list(waiting), list(waiting.values()), rollout_id],
    )
    for cluster_id in sorted(set(waiting.values())):
        row = conn.execute(
            "SELECT count(*) AS n, bool_or(state = 'making') AS making FROM rollout_snapshot"
            " WHERE rollout_id = %s AND cluster_id = %s",
            [rollout_id, cluster_id],
        ).fetchone()
        if one(row)["making"]:
            continue
        number = int(one(row)["n"]) + 1
        name = snapshot_name(cluster_id, rollout_id, number)
        conn.execute(
            "INSERT INTO rollout_snapshot (rollout_id, cluster_id, number, name) VALUES (%s, %s, %s, %s)",
            [rollout_id, cluster_id, number, name],
        )
        job.ensure(conn, JobKind.SNAPSHOT, name, reason=f"rollout {rollout_id}", actor="rollout")


# --------------------------------------------------------------------------------------- making


def get(conn: Connection, name: str) -> SnapshotRow:
    """Raises NotFound."""
    row = select(
        conn,
        SnapshotRow,
        "FROM rollout_snapshot s JOIN rollout r ON r.id = s.rollout_id WHERE s.name = %s",
        [name],
        table="s",
    ).fetchone()
    return one(row, f"snapshot {name}")


def look_at_all(conn: Connection, rollout_id: int) -> None:
    """Its rollout has ended: the days for which they are kept count from now on."""
    names = column(conn, "SELECT name FROM rollout_snapshot WHERE rollout_id = %s", [rollout_id])
    job.ensure_all(conn, JobKind.SNAPSHOT, names, actor="rollout")


def mark_available(conn: Connection, row: SnapshotRow) -> None:
    """making → available. Raises LeaseLost where somebody has recorded what became of it."""
    _mark(conn, row, SnapshotState.AVAILABLE, "available_at = clock_timestamp(), error = NULL")


def mark_deleted(conn: Connection, row: SnapshotRow) -> None:
    """Raises as `mark_available`."""
    _mark(conn, row, SnapshotState.DELETED, "deleted_at = clock_timestamp()")


def note(conn: Connection, row: SnapshotRow, error: str) -> None:
    """What went wrong at this poll, of one that is in the making still; nothing where it is not."""
    conn.execute(
        "UPDATE rollout_snapshot SET error = %s WHERE name = %s AND state = 'making'", [error[:500], row.name]
    )


def mark_failed(conn: Connection, row: SnapshotRow, error: str) -> None:
    """making → failed. Raises as `mark_available`."""
    _mark(conn, row, SnapshotState.FAILED, "error = %(message)s", message=error[:500])


def _mark(
    conn: Connection, row: SnapshotRow, to: SnapshotState, changes: LiteralString, **values: str
) -> None:
    transition(conn, "rollout_snapshot", {"name": row.name}, to, changes, error=LeaseLost, **values)


def fail_members(conn: Connection, row: SnapshotRow, *, plans: Sequence[str], error: str) -> int:
    """pending → failed, of the members that can't be started without it; how many."""
    failed = column(
        conn,
        SQL(
            "UPDATE rollout_member SET state = 'failed', finished_at = clock_timestamp(),"
            " file = NULL, statement = NULL, error = %(error)s"
            " WHERE rollout_id = %(rollout)s AND state = 'pending' AND tenant_id IN"
            " (SELECT t.tenant_id {} AND p.cluster_id = %(cluster)s) RETURNING rollout_id || '/' || tenant_id"
        ).format(SQL(_UNPROTECTED)),
        {"rollout": row.rollout_id, "cluster": row.cluster_id, "plans": list(plans), "error": error[:500]},
    )
    job.withdraw(conn, JobKind.MEMBER, failed)
    return len(failed)


# -------------------------------------------------------------------------------------- reading


def of_rollout(conn: Connection, rollout_id: int) -> list[SnapshotRow]:
    """At most 1,000; those that are not (yet) there first, then by cluster, the oldest first."""
    return select(
        conn,
        SnapshotRow,
        "FROM rollout_snapshot s JOIN rollout r ON r.id = s.rollout_id WHERE s.rollout_id = %s"
        " ORDER BY s.state IN ('available', 'deleted'), s.cluster_id, s.number LIMIT 1000",
        [rollout_id],
        table="s",
    ).fetchall()
