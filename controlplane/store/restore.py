"""Restores: what was asked for, how far the cluster with those rows is. The rest is the move's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.restore import RestoreRequest
from controlplane.store.registry import Connection, column, select


@dataclass(frozen=True, slots=True)
class RestoreRow:
    """`at` or `snapshot`. `number`: of the placement that the tenant lived on then; `cluster_id`: the one
    that was restored; both None until that is recorded. `release`: what its database has there."""

    move_id: int
    at: datetime | None
    snapshot: str | None
    number: int | None
    cluster_id: str | None
    release: str | None
    opened_at: datetime | None
    copied_at: datetime | None

    @property
    def requested(self) -> RestoreRequest:
        return RestoreRequest(self.at, self.snapshot)


def insert(conn: Connection, move_id: int, requested: RestoreRequest) -> None:
    conn.execute(
        "INSERT INTO restore (move_id, at, snapshot) VALUES (%s, %s, %s)",
        [move_id, requested.at, requested.snapshot],
    )


def of_move(conn: Connection, move_id: int) -> RestoreRow | None:
    return select(conn, RestoreRow, "FROM restore WHERE move_id = %s", [move_id]).fetchone()


def set_cluster(conn: Connection, move_id: int, *, number: int, cluster_id: str) -> None:
    conn.execute(
        "UPDATE restore SET number = %s, cluster_id = %s WHERE move_id = %s", [number, cluster_id, move_id]
    )


def mark_opened(conn: Connection, move_id: int, *, release: str) -> None:
    conn.execute(
        "UPDATE restore SET release = %s, opened_at = clock_timestamp() WHERE move_id = %s",
        [release, move_id],
    )


def mark_copied(conn: Connection, move_id: int) -> None:
    conn.execute("UPDATE restore SET copied_at = clock_timestamp() WHERE move_id = %s", [move_id])


def waiting_for(conn: Connection, cluster_id: str) -> list[str]:
    """The tenant whose rows are to be read from this cluster."""
    return column(
        conn,
        "SELECT m.tenant_id FROM restore r JOIN move m ON m.id = r.move_id"
        " WHERE r.cluster_id = %s AND m.finished_at IS NULL",
        [cluster_id],
    )


def reason_to_end(conn: Connection, cluster_id: str) -> str | None:
    """Why this restored cluster is not needed any more, for the log of its deletion; None while it is."""
    row = conn.execute(
        "SELECT m.id, m.tenant_id, m.phase, m.actor, r.copied_at"
        " FROM restore r JOIN move m ON m.id = r.move_id"
        " WHERE r.cluster_id = %s AND (r.copied_at IS NOT NULL OR m.phase NOT IN ('preparing', 'paused'))",
        [cluster_id],
    ).fetchone()
    if row is None:
        return None
    why = "its rows are copied" if row["copied_at"] is not None else f"it was {row['phase']}"
    return f"restore {row['id']} of {row['tenant_id']}, asked for by {row['actor']}: {why}"
