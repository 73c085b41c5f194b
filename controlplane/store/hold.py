"""Holds: an operator's word, with author, reason and end.

A freeze is a predicate of the claim (`store/job.py`): what it covers is not begun, and where it interrupts,
the leases of what runs are not renewed either, so its holder stops as it stops when it has lost one. What was
asked for meanwhile waits, with all its causes. The other kinds are about one tenant and are heeded where its
spec is decided (`domain/binding.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.errors import UniqueViolation

from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.hold import Hold, HoldKind
from controlplane.store.registry import Connection, column, one, returning, select

ALL, TERRAFORM = "all", "terraform"
"""The scopes that are no tenant's and no cluster's."""


@dataclass(frozen=True, slots=True)
class HoldRow:
    """`plan`: of that kind. `interrupts`: a freeze that cuts off what runs."""

    id: int
    kind: HoldKind
    scope: str
    actor: str
    reason: str
    plan: str | None
    interrupts: bool
    created_at: datetime
    ends_at: datetime


def begin(
    conn: Connection,
    kind: HoldKind,
    scope: str,
    *,
    seconds: float,
    actor: str,
    reason: str,
    plan: str | None = None,
    interrupts: bool = False,
) -> HoldRow:
    """Raises Conflict where one of this kind and scope is in force."""
    conn.execute(
        "UPDATE hold SET lifted_at = ends_at, lifted_by = 'clock'"
        " WHERE kind = %s AND scope = %s AND lifted_at IS NULL AND ends_at <= clock_timestamp()",
        [kind, scope],
    )
    try:
        with conn.transaction():
            row = returning(
                conn,
                HoldRow,
                "INSERT INTO hold (kind, scope, actor, reason, plan, interrupts, ends_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))",
                [kind, scope, actor, reason, plan, interrupts, seconds],
            ).fetchone()
    except UniqueViolation as error:
        raise in_force(kind, scope) from error
    return one(row)


def in_force(kind: HoldKind, scope: str) -> Conflict:
    """Why none is begun beside it."""
    if kind is HoldKind.FREEZE:
        return Conflict(f"{scope} is frozen already: `unfreeze` ends that")
    return Conflict(f"{scope} has a hold of kind {kind} already: `end-hold` ends that")


def lift(conn: Connection, kind: HoldKind, scope: str, *, actor: str) -> HoldRow:
    """Raises NotFound where none of this kind and scope is in force."""
    row = returning(
        conn,
        HoldRow,
        "UPDATE hold SET lifted_at = clock_timestamp(), lifted_by = %s"
        " WHERE kind = %s AND scope = %s AND lifted_at IS NULL AND ends_at > clock_timestamp()",
        [actor, kind, scope],
    ).fetchone()
    if row is None:
        what = "is not frozen" if kind is HoldKind.FREEZE else f"has no hold of kind {kind}"
        raise NotFound(f"{scope} {what}: nothing to do")
    return row


def scopes(*ids: str | None) -> list[str]:
    """Those that a tenant or a cluster is under."""
    return [ALL, TERRAFORM, *(found for found in ids if found is not None)]


def freezes(conn: Connection, scopes: list[str] | None = None) -> list[HoldRow]:
    """All that are in force, or those of these scopes; the one that ends last comes last."""
    return select(
        conn,
        HoldRow,
        "FROM hold WHERE kind = 'freeze' AND lifted_at IS NULL AND ends_at > clock_timestamp()"
        " AND (%(scopes)s::text[] IS NULL OR scope = ANY(%(scopes)s)) ORDER BY ends_at, id",
        {"scopes": scopes},
    ).fetchall()


def of_tenant(conn: Connection, tenant_id: str) -> list[HoldRow]:
    """Those in force over what billing says."""
    return select(
        conn,
        HoldRow,
        "FROM hold WHERE kind <> 'freeze' AND scope = %s AND lifted_at IS NULL"
        " AND ends_at > clock_timestamp() ORDER BY id",
        [tenant_id],
    ).fetchall()


def of_tenants(conn: Connection, tenant_ids: Sequence[str]) -> dict[str, tuple[Hold, ...]]:
    """Those in force over what billing says, by tenant."""
    rows = conn.execute(
        "SELECT scope, kind, plan FROM hold WHERE kind <> 'freeze' AND scope = ANY(%s)"
        " AND lifted_at IS NULL AND ends_at > clock_timestamp() ORDER BY id",
        [list(tenant_ids)],
    )
    found: dict[str, tuple[Hold, ...]] = {}
    for row in rows:
        held = Hold(HoldKind(row["kind"]), row["plan"])
        found[row["scope"]] = (*found.get(row["scope"], ()), held)
    return found


def customers_of_ended(conn: Connection, *, limit: int) -> list[str]:
    """Of tenants whose hold over what billing says has come to its end, and that nobody has decided about
    since; `end` says that somebody has."""
    return column(
        conn,
        "SELECT DISTINCT t.customer_id FROM hold h JOIN tenant t ON t.id = h.scope WHERE h.kind <> 'freeze'"
        " AND h.lifted_at IS NULL AND h.ends_at <= clock_timestamp() ORDER BY 1 LIMIT %s",
        [limit],
    )


def end(conn: Connection, customer_id: str) -> None:
    conn.execute(
        "UPDATE hold h SET lifted_at = h.ends_at, lifted_by = 'clock' FROM tenant t"
        " WHERE t.id = h.scope AND t.customer_id = %s AND h.kind <> 'freeze'"
        " AND h.lifted_at IS NULL AND h.ends_at <= clock_timestamp()",
        [customer_id],
    )
