"""Clusters and their free slots."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from controlplane.domain.cluster import ClusterSpec
from controlplane.store.registry import Connection, column, exists, one, select


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """`used`: slots that hold a placement; `ever_used`: one ever did, whatever became of it. `release`: of
    the Terraform stacks, the one that it and the placements on it are applied with; None until its first
    apply. `upgraded_from`: the one before, as long as an upgrade is not over. `declares`: the variables of
    each stack in `release`."""

    id: str
    cluster_class: str
    slots: int
    used: int
    ever_used: bool
    spec: ClusterSpec
    generation: int
    observed_generation: int
    status: dict[str, Any] | None
    observed_at: datetime | None
    hardened_at: datetime | None
    endpoint: dict[str, Any] | None
    needs_attention: str | None
    runbook: str | None
    ready_at: datetime | None
    created_at: datetime
    destroyed_at: datetime | None
    keeps_key: bool
    release: str | None
    upgraded_from: str | None
    declares: dict[str, list[str]] | None = field(
        metadata={"sql": "(SELECT variables FROM stack_release r WHERE r.digest = release)"}
    )

    @property
    def ready(self) -> bool:
        """May tenants be put on it now?"""
        return self.ready_at is not None and self.endpoint is not None


def insert(conn: Connection, *, cluster_id: str, slots: int, spec: ClusterSpec) -> None:
    conn.execute(
        "INSERT INTO cluster (id, cluster_class, slots, spec) VALUES (%s, %s, %s, %s)",
        [cluster_id, spec.cluster_class, slots, Jsonb(spec.to_json())],
    )


def get(conn: Connection, cluster_id: str, *, lock: bool = False) -> ClusterRow:
    """`lock`: to the end of the transaction nobody takes a slot of it or closes it. Raises NotFound."""
    tail = " FOR NO KEY UPDATE" if lock else ""
    row = select(conn, ClusterRow, f"FROM cluster WHERE id = %s{tail}", [cluster_id]).fetchone()
    return one(row, f"cluster {cluster_id}")


def living(conn: Connection) -> list[ClusterRow]:
    """All that have not been destroyed."""
    return select(conn, ClusterRow, "FROM cluster WHERE destroyed_at IS NULL ORDER BY id").fetchall()


def lock_class(conn: Connection, cluster_class: str) -> None:
    """To the end of the transaction nobody else makes a cluster of this class for want of room."""
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('cluster-class:' || %s, 0))", [cluster_class])


_ROOM = SQL("""
    SELECT id FROM cluster
     WHERE cluster_class = %s AND used < slots AND (slots > 1 OR NOT ever_used)
       AND needs_attention IS NULL AND spec->>'lifecycle' = 'active' AND id IS DISTINCT FROM %s
     ORDER BY (ready_at IS NULL), used DESC, created_at, id LIMIT 1 FOR NO KEY UPDATE {skip}
""")


def with_free_slot(conn: Connection, cluster_class: str, *, other_than: str | None = None) -> str | None:
    """A cluster of this class with room, locked: ready ones first, then the fullest, so that few stay half
    empty. One that was a tenant's alone is nobody else's afterwards: its backups hold that tenant's data.

    One that another placing has locked is passed over as long as there are others. Where there are none, and
    one will have to be made, they wait for each other: the first makes it, the others find it.
    """
    for skip in ("SKIP LOCKED", ""):
        if not skip:
            lock_class(conn, cluster_class)
        row = conn.execute(_ROOM.format(skip=SQL(skip)), [cluster_class, other_than]).fetchone()
        if row is not None:
            return str(row["id"])
    return None


def tenants_on(conn: Connection, cluster_id: str) -> list[str]:
    """Those that live on it, that are moving to it, or have left something there."""
    return column(
        conn,
        "SELECT DISTINCT tenant_id FROM placement"
        " WHERE cluster_id = %s AND state IN ('current', 'target', 'source') ORDER BY tenant_id",
        [cluster_id],
    )


def in_use(conn: Connection, cluster_id: str) -> bool:
    """Is or was a tenant placed on it whose data was not deleted in a way that somebody approved?"""
    return exists(
        conn,
        "SELECT FROM placement WHERE cluster_id = %s AND state <> 'purged' LIMIT 1",
        [cluster_id],
    )


def set_spec(conn: Connection, cluster_id: str, spec: ClusterSpec) -> bool:
    data = Jsonb(spec.to_json())
    return (
        conn.execute(
            "UPDATE cluster SET spec = %s, cluster_class = %s, generation = generation + 1"
            " WHERE id = %s AND spec <> %s",
            [data, spec.cluster_class, cluster_id, data],
        ).rowcount
        > 0
    )


def name_release(conn: Connection, cluster_id: str, release: str) -> None:
    """Of a cluster that names none."""
    conn.execute("UPDATE cluster SET release = %s WHERE id = %s AND release IS NULL", [release, cluster_id])


def put_in_subnet_group(conn: Connection, cluster_id: str, name: str) -> None:
    """Of a cluster that was never applied: no generation, since nothing was made of it yet."""
    conn.execute(
        "UPDATE cluster SET spec = spec || jsonb_build_object('subnet_group', %s::text)"
        " WHERE id = %s AND release IS NULL",
        [name, cluster_id],
    )


def upgrade(conn: Connection, cluster_id: str, release: str) -> None:
    """Name another release than before; over once its spec of this generation is reality."""
    conn.execute(
        "UPDATE cluster SET upgraded_from = release, release = %s, generation = generation + 1 WHERE id = %s",
        [release, cluster_id],
    )


def upgraded_meanwhile(conn: Connection, *, other_than: str) -> str | None:
    """Another cluster whose upgrade is not over. To the end of the transaction nobody else begins one."""
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('cluster-upgrade', 0))")
    found = column(
        conn,
        "SELECT id FROM cluster WHERE upgraded_from IS NOT NULL AND id <> %s AND destroyed_at IS NULL"
        " ORDER BY id LIMIT 1",
        [other_than],
    )
    return found[0] if found else None


def due_for_look(conn: Connection, *, every: float, at_most: int) -> list[str]:
    """Clusters in use that nobody has looked at for `every` seconds and that nothing is done about, the
    oldest look first; no more than make `at_most` that wait for one."""
    return column(
        conn,
        "SELECT id FROM cluster c WHERE used > 0 AND needs_attention IS NULL AND destroyed_at IS NULL"
        " AND observed_at < clock_timestamp() - make_interval(secs => %s)"
        " AND spec->>'lifecycle' = 'active' AND ready_at IS NOT NULL AND release IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM job WHERE kind = 'cluster' AND subject = c.id)"
        " ORDER BY observed_at LIMIT greatest(0, %s - (SELECT count(*) FROM job"
        "  WHERE kind = 'cluster' AND state = 'waiting' AND cause_count = 0))",
        [every, at_most],
    )


def set_status(conn: Connection, cluster_id: str, status: dict[str, Any]) -> None:
    conn.execute(
        "UPDATE cluster SET status = %s, observed_at = clock_timestamp() WHERE id = %s",
        [Jsonb(status), cluster_id],
    )


def set_endpoint(conn: Connection, cluster_id: str, endpoint: dict[str, Any]) -> None:
    conn.execute("UPDATE cluster SET endpoint = %s WHERE id = %s", [Jsonb(endpoint), cluster_id])


def mark_hardened(conn: Connection, cluster_id: str) -> None:
    conn.execute("UPDATE cluster SET hardened_at = clock_timestamp() WHERE id = %s", [cluster_id])


def mark_destroyed(conn: Connection, cluster_id: str, *, keeps_key: bool = False) -> None:
    """Nothing of it is left outside, but for its key where that is kept; the row stays for the audit trail
    and the operations."""
    conn.execute(
        "UPDATE cluster SET destroyed_at = coalesce(destroyed_at, clock_timestamp()), endpoint = NULL,"
        " keeps_key = %s WHERE id = %s",
        [keeps_key, cluster_id],
    )


def mark_reconciled(conn: Connection, cluster_id: str, *, generation: int) -> bool:
    """The spec of this generation is reality; tenants may come, unless it is closed. False where the spec
    has moved on."""
    return (
        conn.execute(
            "UPDATE cluster SET observed_generation = %(generation)s, needs_attention = NULL, runbook = NULL,"
            " upgraded_from = NULL,"
            " ready_at = CASE WHEN spec->>'lifecycle' = 'active'"
            "  THEN coalesce(ready_at, clock_timestamp()) ELSE ready_at END"
            " WHERE id = %(id)s AND generation = %(generation)s",
            {"id": cluster_id, "generation": generation},
        ).rowcount
        > 0
    )


def set_attention(conn: Connection, cluster_id: str, *, reason: str | None, runbook: str | None) -> None:
    conn.execute(
        "UPDATE cluster SET needs_attention = %s, runbook = %s WHERE id = %s",
        [None if reason is None else reason[:1000], runbook, cluster_id],
    )


def page(conn: Connection, *, after: str | None, limit: int) -> list[ClusterRow]:
    """By id, those behind `after`; without those that are destroyed."""
    return select(
        conn,
        ClusterRow,
        "FROM cluster WHERE destroyed_at IS NULL AND (%(after)s::text IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s",
        {"after": after, "limit": limit},
    ).fetchall()
