"""Moves of tenants between clusters: what was asked for, how far it is, what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict, Retryable
from controlplane.domain.move import MoveKind, MovePhase
from controlplane.domain.placement import PlacementState
from controlplane.domain.rollout import database_lock
from controlplane.store import job, placement
from controlplane.store.registry import Connection, one, select, transition


@dataclass(frozen=True, slots=True)
class MoveRow:
    """`declined`: a person gave it up. `compared`: [{name, rows, checksum, same}], None while nothing was.
    `overdue`: the time for which the source is kept is over."""

    id: int
    tenant_id: str
    kind: MoveKind
    destination: str
    plan: str
    by_hand: bool
    declined: bool
    source: int
    target: int | None
    phase: MovePhase
    reason: str
    actor: str
    access_proof: str | None
    copied_rows: int | None
    copied_bytes: int | None
    paused_at: datetime | None
    pause_seconds: float | None
    compared: list[dict[str, Any]] | None
    checked: str | None
    moved_at: datetime | None
    cleared_at: datetime | None
    keep_until: datetime | None
    created_at: datetime
    finished_at: datetime | None
    overdue: bool = field(metadata={"sql": "coalesce(keep_until <= clock_timestamp(), false)"})

    @property
    def differing(self) -> list[str]:
        return [str(table["name"]) for table in self.compared or () if not table["same"]]

    @property
    def other(self) -> int | None:
        """The number of the placement that is not current."""
        if self.phase.before_cut or self.phase in (MovePhase.ABANDONED, MovePhase.UNDONE):
            return self.target
        return self.source


def insert(
    conn: Connection,
    tenant_id: str,
    *,
    destination: str,
    plan: str,
    by_hand: bool,
    source: int,
    reason: str,
    actor: str,
    kind: MoveKind = MoveKind.MOVE,
) -> int:
    """Raises Conflict where one is open."""
    try:
        with conn.transaction():
            return int(
                one(
                    conn.execute(
                        "INSERT INTO move (tenant_id, kind, destination, plan, by_hand, source, reason,"
                        " actor)"
                        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
                        [tenant_id, kind, destination, plan, by_hand, source, reason[:200], actor],
                    ).fetchone()
                )["id"]
            )
    except UniqueViolation as error:
        raise Conflict(f"{tenant_id} has a move that is not over yet") from error


def current(conn: Connection, tenant_id: str) -> MoveRow | None:
    """The one that is not over."""
    return select(
        conn, MoveRow, "FROM move WHERE tenant_id = %s AND finished_at IS NULL", [tenant_id]
    ).fetchone()


def get(conn: Connection, move_id: int) -> MoveRow:
    return one(select(conn, MoveRow, "FROM move WHERE id = %s", [move_id]).fetchone())


def latest(conn: Connection, tenant_id: str, *, kind: MoveKind | None = None) -> MoveRow | None:
    """`kind`: only of this one."""
    return select(
        conn,
        MoveRow,
        "FROM move WHERE tenant_id = %(tenant)s AND (%(kind)s::text IS NULL OR kind = %(kind)s)"
        " ORDER BY id DESC LIMIT 1",
        {"tenant": tenant_id, "kind": kind},
    ).fetchone()


def left(conn: Connection, tenant_id: str) -> list[tuple[int, datetime]]:
    """The placements that it has left: (number, when), oldest first."""
    rows = conn.execute(
        "SELECT source, moved_at FROM move WHERE tenant_id = %s AND moved_at IS NOT NULL ORDER BY moved_at",
        [tenant_id],
    )
    return [(row["source"], row["moved_at"]) for row in rows]


def set_target(conn: Connection, move_id: int, number: int) -> None:
    conn.execute("UPDATE move SET target = %s WHERE id = %s", [number, move_id])


def set_access_proof(conn: Connection, move_id: int, access_proof: str | None) -> None:
    conn.execute("UPDATE move SET access_proof = %s WHERE id = %s", [access_proof, move_id])


def set_copied(conn: Connection, move_id: int, *, rows: int, size: int) -> None:
    conn.execute(
        "UPDATE move SET copied_rows = %s, copied_bytes = %s WHERE id = %s",
        [rows, size, move_id],
    )


def turn(
    conn: Connection,
    move_id: int,
    to: MovePhase,
    *,
    error: Callable[[str], Exception] = Conflict,
    sources: Sequence[MovePhase] = (),
) -> None:
    """Raises `error` where it is in no phase that this one is reached from, or in none of `sources`."""
    transition(
        conn,
        "move",
        {"id": move_id},
        to,
        "paused_at = CASE WHEN %(to)s = 'paused' THEN coalesce(paused_at, clock_timestamp())"
        "                 WHEN %(to)s = 'preparing' THEN NULL ELSE paused_at END,"
        " finished_at = CASE WHEN %(to)s IN ('done', 'undone') THEN clock_timestamp() END",
        error=error,
        sources=sources,
        column="phase",
    )


def cut(conn: Connection, row: MoveRow, *, keep_days: int) -> None:
    """The target is the one that is used. Raises Retryable where it is not paused."""
    turn(conn, row.id, MovePhase.MOVED, error=Retryable)
    conn.execute(
        "UPDATE move SET moved_at = clock_timestamp(),"
        " keep_until = clock_timestamp() + make_interval(days => %s) WHERE id = %s",
        [keep_days, row.id],
    )
    placement.turn(conn, row.tenant_id, row.source, PlacementState.SOURCE)
    placement.turn(conn, row.tenant_id, row.target, PlacementState.CURRENT)


def served_again(conn: Connection, move_id: int) -> None:
    """Routes lead to the target: the write pause is over."""
    conn.execute(
        "UPDATE move SET pause_seconds = extract(epoch FROM clock_timestamp() - paused_at)"
        " WHERE id = %s AND pause_seconds IS NULL",
        [move_id],
    )


def pause_of(conn: Connection, move_id: int) -> float | None:
    """Seconds for which no write was taken."""
    row = conn.execute("SELECT pause_seconds FROM move WHERE id = %s", [move_id]).fetchone()
    return None if row is None else row["pause_seconds"]


def set_compared(conn: Connection, move_id: int, tables: list[dict[str, Any]], *, checked: str) -> None:
    conn.execute(
        "UPDATE move SET compared = %s, checked = %s WHERE id = %s", [Jsonb(tables), checked, move_id]
    )


def decline(conn: Connection, move_id: int) -> None:
    conn.execute("UPDATE move SET declined = true WHERE id = %s", [move_id])


def mark_cleared(conn: Connection, move_id: int) -> None:
    """Neither end keeps anything for the copy any more."""
    conn.execute("UPDATE move SET cleared_at = clock_timestamp() WHERE id = %s", [move_id])


def rollout_is_at(conn: Connection, tenant_id: str) -> bool:
    """Is a rollout changing the schema of its database now?"""
    return job.is_running(conn, database_lock(tenant_id))
