"""Copies of a tenant's data that are kept outside its database: dumps and snapshots.

Those of a purge are the engine's, made and deleted by its steps. The others are exports, which somebody
asked for: the job of that number makes one, and deletes it when its days are over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from controlplane.domain.data_copy import CopyKind, CopyState
from controlplane.domain.errors import LeaseLost
from controlplane.store.registry import Connection, exists, one, query, select, transition


@dataclass(frozen=True, slots=True)
class CopyRow:
    """`manifest`: what was verified of it (see `controlplane.workers.providers.ports.Dump`), empty for a
    snapshot. `overdue`: the time for which it is kept is over."""

    id: int
    tenant_id: str
    cluster_id: str
    purge_id: int | None
    kind: CopyKind
    name: str
    state: CopyState
    manifest: dict[str, Any] | None
    keep_days: int
    actor: str
    error: str | None
    created_at: datetime
    verified_at: datetime | None
    kept_until: datetime | None
    deleted_at: datetime | None
    overdue: bool = field(
        metadata={"sql": "coalesce(state = 'kept' AND kept_until <= clock_timestamp(), false)"}
    )


def of_purge(conn: Connection, purge_id: int) -> CopyRow | None:
    return select(conn, CopyRow, "FROM data_copy WHERE purge_id = %s", [purge_id]).fetchone()


def record(
    conn: Connection,
    *,
    tenant_id: str,
    cluster_id: str,
    purge_id: int | None,
    kind: CopyKind,
    name: str,
    keep_days: int,
    actor: str,
) -> CopyRow:
    """Before it is made; the one that a purge has already stays."""
    conn.execute(
        "INSERT INTO data_copy (tenant_id, cluster_id, purge_id, kind, name, keep_days, actor)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING",
        [tenant_id, cluster_id, purge_id, kind, name, keep_days, actor],
    )
    return one(select(conn, CopyRow, "FROM data_copy WHERE name = %s", [name]).fetchone())


def keep(conn: Connection, row: CopyRow, *, manifest: dict[str, Any]) -> None:
    """It is there, whole and readable; from now on its days count. Raises LeaseLost where somebody else has
    recorded what became of it."""
    _turn(
        conn,
        row,
        CopyState.KEPT,
        "manifest = %(manifest)s, verified_at = clock_timestamp(), error = NULL,"
        " kept_until = clock_timestamp() + make_interval(days => keep_days)",
        manifest=Jsonb(manifest),
    )


def _turn(conn: Connection, row: CopyRow, to: CopyState, changes: LiteralString, **values: Any) -> None:
    transition(conn, "data_copy", {"id": row.id}, to, changes, error=LeaseLost, **values)


def get_export(conn: Connection, copy_id: int) -> CopyRow:
    """Raises NotFound."""
    row = select(conn, CopyRow, "FROM data_copy WHERE id = %s AND purge_id IS NULL", [copy_id]).fetchone()
    return one(row, f"export {copy_id}")


def export_in_making(conn: Connection, tenant_id: str, *, keep_days: int) -> CopyRow | None:
    """The tenant's row is locked by the caller, so nobody else records one at this moment."""
    return select(
        conn,
        CopyRow,
        "FROM data_copy WHERE tenant_id = %s AND purge_id IS NULL AND state = 'making' AND keep_days = %s"
        " ORDER BY id LIMIT 1",
        [tenant_id, keep_days],
    ).fetchone()


def note(conn: Connection, copy_id: int, error: str) -> None:
    """Why it is not made, or not deleted, yet."""
    conn.execute("UPDATE data_copy SET error = %s WHERE id = %s", [error[:1000], copy_id])


def fail_export(conn: Connection, row: CopyRow, *, error: str) -> None:
    """Raises as `keep`."""
    _turn(conn, row, CopyState.FAILED, "error = %(message)s", message=error[:1000])


def kept_of_tenant(conn: Connection, tenant_id: str) -> list[CopyRow]:
    """All that there still is, or may be."""
    return select(
        conn,
        CopyRow,
        "FROM data_copy WHERE tenant_id = %s AND state IN ('making', 'kept') ORDER BY id",
        [tenant_id],
    ).fetchall()


def mark_deleted(conn: Connection, row: CopyRow) -> None:
    """Raises as `keep`."""
    _turn(conn, row, CopyState.DELETED, "deleted_at = clock_timestamp()")


NEEDED = (
    "EXISTS (SELECT FROM data_copy WHERE cluster_id = c.id AND kind = 'snapshot'"
    "  AND state IN ('making', 'kept'))"
    " OR EXISTS (SELECT FROM rollout_snapshot WHERE cluster_id = c.id AND state <> 'deleted')"
)


def snapshot_kept(conn: Connection, cluster_id: str) -> bool:
    """Is there a snapshot of this cluster, a purge's or a rollout's, or one being made?"""
    found = SQL("SELECT FROM cluster c WHERE c.id = %s AND ({})").format(SQL(NEEDED))
    return exists(conn, found, [cluster_id])


def useless_keys(conn: Connection, *, limit: int) -> list[str]:
    """Destroyed clusters whose key is kept though no snapshot needs it any more, and at which nobody is."""
    found = SQL(
        "SELECT c.id FROM cluster c WHERE c.keeps_key AND NOT ({})"
        " AND NOT EXISTS (SELECT FROM operation WHERE kind = 'cluster' AND resource_id = c.id"
        "  AND state IN ('waiting', 'running', 'parked')) ORDER BY c.id LIMIT %s"
    ).format(SQL(NEEDED))
    return [row["id"] for row in conn.execute(found, [limit])]


@dataclass(frozen=True, slots=True)
class Backup:
    """What else holds a tenant's rows: RDS's own backups and a rollout's snapshot of a cluster it lived on,
    and clones of it. `until`: when it is gone at the latest, None where that is not known yet."""

    kind: str
    name: str
    until: datetime | None


def backups_of(conn: Connection, tenant_id: str) -> list[Backup]:
    """Of a tenant whose last placement was deleted now. RDS's own backups go with their cluster, and
    otherwise after its retention."""
    return query(
        conn,
        Backup,
        "WITH home AS (SELECT DISTINCT cluster_id AS id FROM placement WHERE tenant_id = %(id)s)"
        " SELECT 'automatic backups' AS kind, c.id AS name, clock_timestamp()"
        "   + make_interval(days => (c.spec->>'backup_retention_days')::int) AS until"
        "  FROM cluster c JOIN home USING (id) WHERE c.destroyed_at IS NULL AND c.ready_at IS NOT NULL"
        " UNION ALL"
        " SELECT 'snapshot before a rollout', s.name,"
        "   r.finished_at + make_interval(days => coalesce((r.spec->>'snapshot_days')::int, 14))"
        "  FROM rollout_snapshot s JOIN rollout r ON r.id = s.rollout_id"
        "  JOIN home ON home.id = s.cluster_id WHERE s.state <> 'deleted'"
        " UNION ALL"
        " SELECT 'clone', t.id, t.purge_after FROM tenant t"
        "  WHERE t.clone_of = %(id)s AND t.purged_at IS NULL"
        " ORDER BY 1, 2",
        {"id": tenant_id},
    ).fetchall()
