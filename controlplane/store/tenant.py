"""Tenants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.tenant import Phase, TenantDesired, phase_of
from controlplane.store.registry import Connection


class SlugTaken(Conflict):
    """Another tenant has this slug."""


@dataclass(frozen=True, slots=True)
class TenantRow:
    id: str
    slug: str
    display_name: str
    customer_id: str
    desired: TenantDesired
    generation: int
    settled_generation: int
    observed: dict[str, Any] | None
    observed_at: datetime | None
    proof: str | None
    release: str | None
    needs_attention: str | None
    runbook: str | None
    paid_at: datetime | None
    started_at: datetime | None
    ready_at: datetime | None
    created_at: datetime

    @property
    def phase(self) -> Phase:
        return phase_of(
            self.desired,
            settled=self.settled_generation == self.generation,
            ever_ready=self.ready_at is not None,
            started=self.started_at is not None,
        )


def _row(row: DictRow) -> TenantRow:
    return TenantRow(**{**row, "desired": TenantDesired.from_json(row["desired"])})


_COLUMNS = (
    "id, slug, display_name, customer_id, desired, generation, settled_generation, observed, observed_at,"
    " proof, release, needs_attention, runbook, paid_at, started_at, ready_at, created_at"
)


def insert(
    conn: Connection,
    *,
    tenant_id: str,
    slug: str,
    display_name: str,
    customer_id: str,
    desired: TenantDesired,
    paid_at: datetime | None,
    release: str | None = None,
) -> None:
    """`release`: the one it is born with, None where none is registered.

    Raises SlugTaken; the caller's transaction stays usable (a savepoint is around the insert).
    """
    try:
        with conn.transaction():
            conn.execute(
                "INSERT INTO tenant (id, slug, display_name, customer_id, desired, paid_at, release)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [tenant_id, slug, display_name, customer_id, Jsonb(desired.to_json()), paid_at, release],
            )
    except UniqueViolation as error:
        if error.diag.constraint_name == "tenant_slug_taken":
            raise SlugTaken(f"slug {slug} is taken") from error
        raise


def get(conn: Connection, tenant_id: str, *, lock: bool = False) -> TenantRow:
    row = find(conn, tenant_id, lock=lock)
    if row is None:
        raise NotFound(f"tenant {tenant_id} does not exist")
    return row


def find(conn: Connection, tenant_id: str, *, lock: bool = False) -> TenantRow | None:
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM tenant WHERE id = %s{' FOR UPDATE' if lock else ''}",  # noqa: S608
        [tenant_id],
    ).fetchone()
    return None if row is None else _row(row)


def find_by_slug(conn: Connection, slug: str) -> TenantRow | None:
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM tenant WHERE slug = %s",  # noqa: S608 — a constant
        [slug],
    ).fetchone()
    return None if row is None else _row(row)


def page(conn: Connection, *, after: str | None, limit: int) -> list[TenantRow]:
    """By slug, those behind `after`."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM tenant"  # noqa: S608 — a constant
        " WHERE (%(after)s::text IS NULL OR slug > %(after)s) ORDER BY slug LIMIT %(limit)s",
        {"after": after, "limit": limit},
    ).fetchall()
    return [_row(row) for row in rows]


def set_desired(conn: Connection, tenant_id: str, desired: TenantDesired) -> bool:
    """True where it differs from before; the generation rises only then."""
    data = Jsonb(desired.to_json())
    return (
        conn.execute(
            "UPDATE tenant SET desired = %s, generation = generation + 1 WHERE id = %s AND desired <> %s",
            [data, tenant_id, data],
        ).rowcount
        > 0
    )


def rise(conn: Connection, tenant_id: str) -> None:
    """Something else than `desired` is wanted of it: what was settled is so no longer."""
    conn.execute("UPDATE tenant SET generation = generation + 1 WHERE id = %s", [tenant_id])


def set_display_name(conn: Connection, tenant_id: str, name: str) -> None:
    conn.execute("UPDATE tenant SET display_name = %s WHERE id = %s", [name, tenant_id])


def mark_started(conn: Connection, tenant_id: str) -> None:
    conn.execute(
        "UPDATE tenant SET started_at = clock_timestamp() WHERE id = %s AND started_at IS NULL", [tenant_id]
    )


def set_proof(conn: Connection, tenant_id: str, proof: str | None) -> None:
    conn.execute("UPDATE tenant SET proof = %s WHERE id = %s", [proof, tenant_id])


def set_observed(conn: Connection, tenant_id: str, observed: dict[str, Any]) -> None:
    conn.execute(
        "UPDATE tenant SET observed = %s, observed_at = clock_timestamp() WHERE id = %s",
        [Jsonb(observed), tenant_id],
    )


def settle(conn: Connection, tenant_id: str, *, generation: int, look_in: float) -> bool:
    """Desired of this generation is reality. False where desired has moved on: look again.

    What needs attention is over with it, but for a subscription that is parked: that is about what
    desired should have become.
    """
    return (
        conn.execute(
            "UPDATE tenant t SET settled_generation = %(generation)s,"
            " needs_attention = CASE WHEN s.parked THEN needs_attention END,"
            " runbook = CASE WHEN s.parked THEN runbook END,"
            " next_look_at = clock_timestamp() + make_interval(secs => %(look)s)"
            " FROM (SELECT EXISTS (SELECT FROM subscription"
            "        WHERE tenant_id = %(id)s AND outcome = 'parked') AS parked) s"
            " WHERE t.id = %(id)s AND t.generation = %(generation)s",
            {"id": tenant_id, "generation": generation, "look": look_in},
        ).rowcount
        > 0
    )


def mark_ready(conn: Connection, tenant_id: str) -> None:
    """Its own host serves it: the moment from which the customer can use what it paid for."""
    conn.execute(
        "UPDATE tenant SET ready_at = clock_timestamp() WHERE id = %s AND ready_at IS NULL", [tenant_id]
    )


def set_attention(conn: Connection, tenant_id: str, *, reason: str | None, runbook: str | None) -> None:
    conn.execute(
        "UPDATE tenant SET needs_attention = %s, runbook = %s WHERE id = %s",
        [None if reason is None else reason[:1000], runbook, tenant_id],
    )


def due_for_a_look(conn: Connection, *, limit: int) -> list[str]:
    """Tenants whose periodic look has come; it is postponed at once, so two sweeps don't both ask."""
    rows = conn.execute(
        "UPDATE tenant SET next_look_at = NULL WHERE id IN (SELECT id FROM tenant"
        " WHERE next_look_at <= clock_timestamp() ORDER BY next_look_at LIMIT %s FOR UPDATE SKIP LOCKED)"
        " RETURNING id",
        [limit],
    ).fetchall()
    return [row["id"] for row in rows]
