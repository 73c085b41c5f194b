"""Freezes: what an operator wants left alone, and until when.

A freeze is a predicate of the claim (`store/job.py`): what it covers is not begun, and where it interrupts,
the leases of what runs are not renewed either, so its holder stops as it stops when it has lost one. What was
asked for meanwhile waits, with all its causes. (The table is `frozen`: FREEZE is a word of PostgreSQL's.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.errors import UniqueViolation

from controlplane.domain.errors import Conflict, NotFound
from controlplane.store.registry import Connection, one, returning, select

ALL, TERRAFORM = "all", "terraform"
"""The scopes that are no tenant's and no cluster's."""


@dataclass(frozen=True, slots=True)
class FreezeRow:
    id: int
    scope: str
    actor: str
    reason: str
    interrupts: bool
    created_at: datetime
    ends_at: datetime


def begin(
    conn: Connection, scope: str, *, seconds: float, actor: str, reason: str, interrupts: bool
) -> FreezeRow:
    """Raises Conflict where one of this scope is in force."""
    conn.execute(
        "UPDATE frozen SET lifted_at = ends_at, lifted_by = 'clock'"
        " WHERE scope = %s AND lifted_at IS NULL AND ends_at <= clock_timestamp()",
        [scope],
    )
    try:
        with conn.transaction():
            row = returning(
                conn,
                FreezeRow,
                "INSERT INTO frozen (scope, actor, reason, interrupts, ends_at)"
                " VALUES (%s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))",
                [scope, actor, reason, interrupts, seconds],
            ).fetchone()
    except UniqueViolation as error:
        raise Conflict(f"{scope} is frozen already: lift that freeze first") from error
    return one(row)


def lift(conn: Connection, scope: str, *, actor: str) -> FreezeRow:
    """Raises NotFound where none of this scope is in force."""
    row = returning(
        conn,
        FreezeRow,
        "UPDATE frozen SET lifted_at = clock_timestamp(), lifted_by = %s"
        " WHERE scope = %s AND lifted_at IS NULL AND ends_at > clock_timestamp()",
        [actor, scope],
    ).fetchone()
    if row is None:
        raise NotFound(f"{scope} is not frozen")
    return row


def scopes(*ids: str | None) -> list[str]:
    """Those that a tenant or a cluster is under."""
    return [ALL, TERRAFORM, *(found for found in ids if found is not None)]


def in_force(conn: Connection, scopes: list[str] | None = None) -> list[FreezeRow]:
    """All, or those of these scopes; the one that ends last comes last."""
    return select(
        conn,
        FreezeRow,
        "FROM frozen WHERE lifted_at IS NULL AND ends_at > clock_timestamp()"
        " AND (%(scopes)s::text[] IS NULL OR scope = ANY(%(scopes)s)) ORDER BY ends_at, id",
        {"scopes": scopes},
    ).fetchall()
