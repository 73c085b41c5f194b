"""Transfers: what was asked for, how far each is, what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

from psycopg.errors import UniqueViolation
from psycopg.sql import SQL, Literal
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict, Retryable
from controlplane.domain.placement import PlacementState
from controlplane.domain.rollout import database_lock
from controlplane.domain.transfer import RestoreRequest, TransferKind, TransferPhase
from controlplane.store import job, placement
from controlplane.store.registry import Connection, column, one, select, transition


@dataclass(frozen=True, slots=True)
class TransferRow:
    """`destination`, `source`: None for a clone. `declined`: a person aborted it. `compared`: [{name, rows,
    checksum, same}], None while nothing was. `overdue`: the time for which the source is kept is over.

    Of a restore: `at` or `snapshot`; `lived_on`: the placement that the tenant lived on then;
    `restored_cluster`: the one that is made for it; both None until that is recorded. `release`: what the
    tenant's database has there."""

    id: int
    tenant_id: str
    kind: TransferKind
    destination: str | None
    plan: str
    by_hand: bool
    declined: bool
    source: str | None
    target: str | None
    at: datetime | None
    snapshot: str | None
    lived_on: str | None
    restored_cluster: str | None
    release: str | None
    phase: TransferPhase
    reason: str
    actor: str
    copied_rows: int | None
    copied_bytes: int | None
    pause_seconds: float | None
    compared: list[dict[str, Any]] | None
    checked: str | None
    created_at: datetime
    opened_at: datetime | None
    copied_at: datetime | None
    paused_at: datetime | None
    cut_at: datetime | None
    cleared_at: datetime | None
    keep_until: datetime | None
    finished_at: datetime | None
    overdue: bool = field(metadata={"sql": "coalesce(keep_until <= clock_timestamp(), false)"})

    @property
    def differing(self) -> list[str]:
        return [str(table["name"]) for table in self.compared or () if not table["same"]]

    @property
    def other(self) -> str | None:
        """The placement that is not current; of a clone, of the one that it fills."""
        if self.phase.before_cut or self.phase is TransferPhase.ABORTED:
            return self.target
        return self.source

    @property
    def requested(self) -> RestoreRequest:
        """What a restore brings back."""
        return RestoreRequest(self.at, self.snapshot)


def insert(
    conn: Connection,
    tenant_id: str,
    kind: TransferKind,
    *,
    plan: str,
    reason: str,
    actor: str,
    by_hand: bool = True,
    destination: str | None = None,
    source: str | None = None,
    restore: RestoreRequest | None = None,
) -> int:
    """Raises Conflict where one is open."""
    restore = restore or RestoreRequest()
    try:
        with conn.transaction():
            return int(
                one(
                    conn.execute(
                        "INSERT INTO transfer (tenant_id, kind, destination, plan, by_hand, source, at,"
                        " snapshot, reason, actor)"
                        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
                        [
                            tenant_id,
                            kind,
                            destination,
                            plan,
                            by_hand,
                            source,
                            restore.at,
                            restore.snapshot,
                            reason[:200],
                            actor,
                        ],
                    ).fetchone()
                )["id"]
            )
    except UniqueViolation as error:
        raise Conflict(f"{tenant_id} has a transfer that is not over yet") from error


def current(conn: Connection, tenant_id: str) -> TransferRow | None:
    """The one that is not over."""
    return select(
        conn, TransferRow, "FROM transfer WHERE tenant_id = %s AND finished_at IS NULL", [tenant_id]
    ).fetchone()


def get(conn: Connection, transfer_id: int) -> TransferRow:
    return one(select(conn, TransferRow, "FROM transfer WHERE id = %s", [transfer_id]).fetchone())


def latest(conn: Connection, tenant_id: str) -> TransferRow | None:
    return select(
        conn, TransferRow, "FROM transfer WHERE tenant_id = %s ORDER BY id DESC LIMIT 1", [tenant_id]
    ).fetchone()


def left(conn: Connection, tenant_id: str) -> list[tuple[str, datetime]]:
    """The placements that it has left: (id, when), oldest first."""
    rows = conn.execute(
        "SELECT source, cut_at FROM transfer WHERE tenant_id = %s AND cut_at IS NOT NULL ORDER BY cut_at",
        [tenant_id],
    )
    return [(row["source"], row["cut_at"]) for row in rows]


def set_target(conn: Connection, transfer_id: int, placement_id: str) -> None:
    """Raises Retryable where it was aborted meanwhile."""
    _prepare(conn, "UPDATE transfer SET target = %s", [placement_id, transfer_id])


def set_restored(conn: Connection, transfer_id: int, *, lived_on: str, cluster_id: str) -> None:
    """Raises Retryable where it was aborted meanwhile."""
    _prepare(
        conn,
        "UPDATE transfer SET lived_on = %s, restored_cluster = %s",
        [lived_on, cluster_id, transfer_id],
    )


def _prepare(conn: Connection, change: LiteralString, values: Sequence[Any]) -> None:
    done = conn.execute(change + " WHERE id = %s AND phase = 'preparing'", values)
    if not done.rowcount:
        raise Retryable(f"transfer {values[-1]} has changed meanwhile")


def mark_opened(conn: Connection, transfer_id: int, *, release: str) -> None:
    """The restored cluster was looked into."""
    conn.execute(
        "UPDATE transfer SET release = %s, opened_at = clock_timestamp() WHERE id = %s",
        [release, transfer_id],
    )


def turn(
    conn: Connection,
    transfer_id: int,
    to: TransferPhase,
    *,
    error: Callable[[str], Exception] = Retryable,
    sources: Sequence[TransferPhase] = (),
) -> None:
    """Raises `error` where it is in no phase that this one is reached from, or in none of `sources`."""
    transition(
        conn,
        "transfer",
        {"id": transfer_id},
        to,
        "paused_at = CASE WHEN %(to)s = 'cut' THEN coalesce(paused_at, clock_timestamp())"
        "                 WHEN %(to)s = 'following' THEN NULL ELSE paused_at END",
        error=error,
        sources=sources,
        column="phase",
    )


def copied(conn: Connection, row: TransferRow, *, rows: int, size: int) -> None:
    """The target has the rows. A clone is over with it. Raises Retryable where it is not copying."""
    over = row.kind is TransferKind.CLONE
    turn(
        conn,
        row.id,
        TransferPhase.CONFIRMED if over else TransferPhase.FOLLOWING,
        sources=[TransferPhase.COPYING],
    )
    conn.execute(
        "UPDATE transfer SET copied_rows = %s, copied_bytes = %s, copied_at = clock_timestamp()"
        " WHERE id = %s",
        [rows, size, row.id],
    )
    if over:
        finish(conn, row.id)


def cut(conn: Connection, row: TransferRow, *, keep_days: int) -> None:
    """The target is the one that is used. Raises Retryable where writing is not paused."""
    turn(conn, row.id, TransferPhase.REVERSIBLE)
    conn.execute(
        "UPDATE transfer SET cut_at = clock_timestamp(),"
        " keep_until = clock_timestamp() + make_interval(days => %s) WHERE id = %s",
        [keep_days, row.id],
    )
    placement.turn(conn, row.source, PlacementState.SOURCE)
    placement.turn(conn, row.target, PlacementState.CURRENT)


def served_again(conn: Connection, transfer_id: int) -> None:
    """Routes lead to the target: the write pause is over."""
    conn.execute(
        "UPDATE transfer SET pause_seconds = extract(epoch FROM clock_timestamp() - paused_at)"
        " WHERE id = %s AND pause_seconds IS NULL",
        [transfer_id],
    )


def set_compared(conn: Connection, transfer_id: int, tables: list[dict[str, Any]], *, checked: str) -> None:
    conn.execute(
        "UPDATE transfer SET compared = %s, checked = %s WHERE id = %s", [Jsonb(tables), checked, transfer_id]
    )


def decline(conn: Connection, transfer_id: int) -> None:
    conn.execute("UPDATE transfer SET declined = true WHERE id = %s", [transfer_id])


def mark_cleared(conn: Connection, transfer_id: int) -> None:
    """Neither end keeps anything for the copy any more."""
    conn.execute("UPDATE transfer SET cleared_at = clock_timestamp() WHERE id = %s", [transfer_id])


def finish(conn: Connection, transfer_id: int) -> None:
    """Nothing is left to do for it. Raises Retryable where it is neither confirmed nor aborted, or over."""
    done = conn.execute(
        "UPDATE transfer SET finished_at = clock_timestamp()"
        " WHERE id = %s AND finished_at IS NULL AND phase IN ('confirmed', 'aborted')",
        [transfer_id],
    )
    if not done.rowcount:
        raise Retryable(f"transfer {transfer_id} has changed meanwhile")


# ---------------------------------------------------------------------------------- restored clusters


def waiting_for(conn: Connection, cluster_id: str) -> list[str]:
    """The tenant whose rows are to be read from this cluster."""
    return column(
        conn,
        "SELECT tenant_id FROM transfer WHERE restored_cluster = %s AND finished_at IS NULL",
        [cluster_id],
    )


def carried_over(conn: Connection, cluster_id: str) -> str | None:
    """A tenant with a transfer from or to this cluster that is not cut over yet."""
    found = column(
        conn,
        "SELECT t.tenant_id FROM transfer t WHERE t.finished_at IS NULL AND t.phase = ANY(%(phases)s)"
        " AND (t.restored_cluster = %(cluster)s OR EXISTS (SELECT FROM placement p"
        "   WHERE p.cluster_id = %(cluster)s AND p.state <> 'purged' AND (p.tenant_id = t.tenant_id"
        "    OR t.kind = 'clone' AND p.tenant_id = (SELECT clone_of FROM tenant WHERE id = t.tenant_id))))"
        " ORDER BY t.id LIMIT 1",
        {"cluster": cluster_id, "phases": [phase.value for phase in TransferPhase if phase.before_cut]},
    )
    return found[0] if found else None


def reason_to_end(conn: Connection, cluster_id: str) -> str | None:
    """Why this restored cluster is not needed any more, for the log of its deletion; None while it is."""
    row = select(conn, TransferRow, "FROM transfer WHERE restored_cluster = %s", [cluster_id]).fetchone()
    if row is None or (row.copied_at is None and row.phase.before_cut):
        return None
    why = "its rows are copied" if row.copied_at is not None else f"it was {row.phase.value}"
    return f"transfer {row.id}, a restore of {row.tenant_id}, asked for by {row.actor}: {why}"


# ------------------------------------------------------------------------------------------- rollouts


BEING_MADE = SQL("target IS NOT NULL AND finished_at IS NULL AND phase IN ({})").format(
    SQL(", ").join(map(Literal, TransferPhase.ABORTED.sources))
)
"""Of transfers that are under way: a placement waits to become the one in use
(`TransferPhase.before_cut`)."""


def rollout_is_at(conn: Connection, tenant_id: str) -> bool:
    """Is a rollout changing the schema of its database now?"""
    return job.is_running(conn, database_lock(tenant_id))
