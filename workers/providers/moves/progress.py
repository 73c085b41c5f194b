"""How far a copy has come, kept in the copy itself.

One row in the target's schema `platform`, changed in the same transaction as the rows that it speaks of:
a worker that dies has either done both or neither, so no change is made twice and none is left out. It
carries the fencing token of the worker's lease too, so that one which slept through its lease finds its write
refused by the database that it would have written to.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from controlplane.domain.errors import LeaseLost
from controlplane.domain.placement import Placement

TABLE = sql.Identifier("platform", "move_progress")


@dataclass(frozen=True, slots=True)
class Progress:
    """Positions in the source's log. `snapshot`: which of its transactions the copy holds; those up to
    `copied_to` have to be asked of it. `applied`: the last commit that was made here."""

    slot: str
    fencing_token: int
    snapshot: str | None
    copied_to: int
    applied: int


def make(master: psycopg.Connection, target: Placement) -> None:
    """By the master, whose schema it is; the rest is done by the tenant's migrator."""
    master.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (one boolean PRIMARY KEY DEFAULT true CHECK (one),"
            " slot text NOT NULL, fencing_token bigint NOT NULL, snapshot text,"
            " copied_to bigint NOT NULL DEFAULT 0, applied bigint NOT NULL DEFAULT 0)"
        ).format(TABLE)
    )
    master.execute(
        sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}").format(
            TABLE, sql.Identifier(target.owner_role)
        )
    )


def drop(master: psycopg.Connection) -> None:
    master.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(TABLE))


def exists(conn: psycopg.Connection) -> bool:
    row = conn.execute("SELECT to_regclass('platform.move_progress') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])


def start(conn: psycopg.Connection, slot: str, fencing_token: int) -> None:
    """A copy that is to be made from the beginning. Raises LeaseLost where a later holder has been here."""
    begun = conn.execute(
        sql.SQL(
            "INSERT INTO {} (slot, fencing_token) VALUES (%s, %s) ON CONFLICT (one) DO UPDATE"
            " SET slot = excluded.slot, fencing_token = excluded.fencing_token, snapshot = NULL, copied_to ="
            " 0, applied = 0"
            " WHERE move_progress.fencing_token <= excluded.fencing_token"
        ).format(TABLE),
        (slot, fencing_token),
    ).rowcount
    if not begun:
        raise LeaseLost(f"the copy has observed a later fencing_token than {fencing_token}")


def see(conn: psycopg.Connection) -> Progress | None:
    if not exists(conn):
        return None
    with conn.cursor(row_factory=class_row(Progress)) as cur:
        return cur.execute(
            sql.SQL("SELECT slot, fencing_token, snapshot, copied_to, applied FROM {}").format(TABLE)
        ).fetchone()


def take(conn: psycopg.Connection, fencing_token: int) -> Progress:
    """Lock it to the end of the transaction. Raises LeaseLost where a later holder has been here."""
    with conn.cursor(row_factory=class_row(Progress)) as cur:
        found = cur.execute(
            sql.SQL(
                "UPDATE {} SET fencing_token = %(fencing_token)s WHERE fencing_token <= %(fencing_token)s"
                " RETURNING slot, fencing_token, snapshot, copied_to, applied"
            ).format(TABLE),
            {"fencing_token": fencing_token},
        ).fetchone()
    if found is None:
        raise LeaseLost(f"the copy has observed a later fencing_token than {fencing_token}")
    return found


def copied(conn: psycopg.Connection, *, snapshot: str, copied_to: int) -> None:
    conn.execute(
        sql.SQL("UPDATE {} SET snapshot = %s, copied_to = %s, applied = 0").format(TABLE),
        (snapshot, copied_to),
    )


def applied(conn: psycopg.Connection, lsn: int) -> None:
    conn.execute(sql.SQL("UPDATE {} SET applied = %s").format(TABLE), (lsn,))


class Snapshot:
    """`xmin:xmax:xip,…` of `pg_current_snapshot()`: whose changes a reader saw."""

    def __init__(self, text: str) -> None:
        xmin, xmax, running = text.split(":")
        self._xmin, self._xmax = int(xmin), int(xmax)
        self._running = {int(xid) for xid in running.split(",") if xid}

    def sees(self, xid: int) -> bool:
        """`xid`: the lower 32 bits, of a transaction that has committed since or shortly before."""
        full = (self._xmax & ~0xFFFFFFFF) | xid
        if full - self._xmax > 2**31:
            full -= 2**32
        elif self._xmax - full > 2**31:
            full += 2**32
        return full < self._xmin or (full < self._xmax and full not in self._running)
