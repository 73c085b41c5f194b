"""Purges: asked for, approved, begun, done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.domain.purge import PurgeState
from controlplane.store.registry import Connection, column, one, returning, select, transition


@dataclass(frozen=True, slots=True)
class PurgeRow:
    """`content`: see `domain.purge.Content`. `begun_at`: from then on there is no way back."""

    id: int
    tenant_id: str
    state: PurgeState
    reason: str
    content: dict[str, Any]
    digest: str
    requested_by: str
    requested_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    begun_at: datetime | None
    done_at: datetime | None
    certificate: dict[str, Any] | None

    @property
    def cluster_goes(self) -> bool:
        return bool(self.content["cluster_goes"])


def request(
    conn: Connection, tenant_id: str, *, reason: str, content: dict[str, Any], digest: str, actor: str
) -> PurgeRow:
    """The tenant's row is locked by the caller, and it has no open purge."""
    return one(
        returning(
            conn,
            PurgeRow,
            "INSERT INTO purge (tenant_id, reason, content, digest, requested_by)"
            " VALUES (%s, %s, %s, %s, %s)",
            [tenant_id, reason, Jsonb(content), digest, actor],
        ).fetchone()
    )


def of_tenant(conn: Connection, tenant_id: str) -> PurgeRow | None:
    """The one that was not withdrawn."""
    return select(
        conn, PurgeRow, "FROM purge WHERE tenant_id = %s AND state <> 'withdrawn'", [tenant_id]
    ).fetchone()


def approve(conn: Connection, purge_id: int, *, actor: str) -> None:
    """Raises Conflict where it does not wait for an approval."""
    transition(
        conn,
        "purge",
        {"id": purge_id},
        PurgeState.APPROVED,
        "approved_by = %(actor)s, approved_at = clock_timestamp()",
        actor=actor,
    )


def withdraw(conn: Connection, tenant_id: str) -> int | None:
    """The purge that was withdrawn, None where there is none that has not begun."""
    row = conn.execute(
        "UPDATE purge SET state = 'withdrawn' WHERE tenant_id = %s AND begun_at IS NULL"
        " AND state IN ('requested', 'approved') RETURNING id",
        [tenant_id],
    ).fetchone()
    return None if row is None else int(row["id"])


def begin(conn: Connection, purge_id: int) -> bool:
    """From here on there is no way back. False where it was withdrawn. The tenant's row is locked by the
    caller, so nobody brings it back at the same moment."""
    return (
        conn.execute(
            "UPDATE purge SET begun_at = coalesce(begun_at, clock_timestamp())"
            " WHERE id = %s AND state = 'approved'",
            [purge_id],
        ).rowcount
        > 0
    )


def begun(conn: Connection, tenant_id: str) -> bool:
    """Is this tenant's data gone, or going?"""
    return tenant_id in begun_of(conn, [tenant_id])


def begun_of(conn: Connection, tenant_ids: Sequence[str]) -> set[str]:
    """Those of them whose data is gone, or going."""
    statement = "SELECT tenant_id FROM purge WHERE tenant_id = ANY(%s) AND begun_at IS NOT NULL"
    return set(column(conn, statement, [list(tenant_ids)]))


def finish(conn: Connection, purge_id: int, *, certificate: dict[str, Any]) -> None:
    """Raises LookupError where it was not approved or is done, which the lease's guard makes impossible."""
    transition(
        conn,
        "purge",
        {"id": purge_id},
        PurgeState.DONE,
        "done_at = clock_timestamp(), certificate = %(certificate)s",
        error=LookupError,
        certificate=Jsonb(certificate),
    )


def of_cluster(conn: Connection, cluster_id: str) -> list[PurgeRow]:
    """Those by which tenants that lived on this cluster were deleted."""
    return select(
        conn,
        PurgeRow,
        "FROM purge WHERE content->>'cluster' = %s AND state IN ('approved', 'done')"
        " AND begun_at IS NOT NULL"
        " AND tenant_id IN (SELECT tenant_id FROM placement WHERE cluster_id = %s) ORDER BY id",
        [cluster_id, cluster_id],
    ).fetchall()
