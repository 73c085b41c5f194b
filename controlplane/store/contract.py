"""Contracts: what became of the last observation of each, and the customers that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from controlplane.domain.contract import NO_WISHES, Contract, ContractOutcome, Standing, Wishes
from controlplane.store.registry import Connection, column, exists, one, select


@dataclass(frozen=True, slots=True)
class ContractRow:
    """`proposed`: the binding that one person has asked for and nobody else has yet, {tenant, actor}."""

    id: str
    customer_id: str | None
    standing: Standing | None = field(
        metadata={"read": lambda found: None if found is None else Standing(found)}
    )
    terms: Contract | None = field(
        metadata={"read": lambda found: None if found is None else Contract.from_json(found)}
    )
    outcome: ContractOutcome
    reason: str | None
    tenant_id: str | None
    wishes: Wishes = field(metadata={"read": lambda found: Wishes(**found)})
    proposed: dict[str, str] | None
    alone: bool
    first_event_at: datetime
    paid_at: datetime | None
    fetched_at: datetime | None


LIVE_OF_TENANT = (
    "c.standing IS DISTINCT FROM 'ended' AND (c.tenant_id = t.id"
    " OR (c.customer_id = t.customer_id AND c.tenant_id IS NULL AND c.outcome <> 'ignored'))"
)
"""Of a contract `c` and a tenant `t`: it may bring money or is owed some, unpaid and incomplete ones too, and
it is for this tenant, or nobody knows yet whom of its customer's it is for."""


def revision(conn: Connection, customer_id: str) -> int:
    """Call it before the fetch: `lock` takes the revision that the customer has here."""
    row = conn.execute(
        "INSERT INTO customer AS c (id) VALUES (%s) ON CONFLICT (id) DO UPDATE SET id = c.id"
        " RETURNING revision",
        [customer_id],
    ).fetchone()
    return int(one(row)["revision"])


def lock(conn: Connection, customer_id: str, *, revision: int | None) -> bool:
    """Within a transaction: the right to write what was decided from objects fetched while `revision` was
    current (None: from what the registry itself holds). False where somebody wrote since: fetch again."""
    return exists(
        conn,
        "SELECT 1 FROM customer WHERE id = %(id)s"
        " AND (%(revision)s::bigint IS NULL OR revision = %(revision)s) FOR UPDATE",
        {"id": customer_id, "revision": revision},
    )


def written(conn: Connection, customer_id: str) -> None:
    """Whoever has fetched before this must fetch again."""
    conn.execute("UPDATE customer SET revision = revision + 1 WHERE id = %s", [customer_id])


def wishes_of(conn: Connection, customer_ids: Sequence[str]) -> dict[str, Wishes]:
    rows = conn.execute("SELECT id, wishes FROM customer WHERE id = ANY(%s)", [list(customer_ids)])
    return {row["id"]: Wishes(**row["wishes"]) for row in rows}


def set_wishes(conn: Connection, customer_id: str, wishes: Wishes) -> None:
    conn.execute("UPDATE customer SET wishes = %s WHERE id = %s", [Jsonb(asdict(wishes)), customer_id])


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said of a contract: when, whether it was paid by then, and what was wished for."""

    id: str
    at: datetime
    paid: bool = False
    wishes: Wishes = NO_WISHES


def heard(conn: Connection, customer_id: str | None, said: Sequence[Heard]) -> None:
    """The rows are made where there are none. Times only move back, and a wish that was granted stays."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO contract AS c (id, customer_id, outcome, first_event_at, paid_at, wishes)"
            " VALUES (%s, %s, 'new', %s, %s, jsonb_strip_nulls(%s)) ON CONFLICT (id) DO UPDATE"
            " SET first_event_at = least(c.first_event_at, excluded.first_event_at),"
            "     paid_at = least(c.paid_at, excluded.paid_at), wishes = excluded.wishes || c.wishes,"
            "     customer_id = coalesce(c.customer_id, excluded.customer_id)",
            [
                (each.id, customer_id, each.at, each.at if each.paid else None, Jsonb(asdict(each.wishes)))
                for each in said
            ],
        )


def of_customers(conn: Connection, customer_ids: Sequence[str]) -> list[ContractRow]:
    """Theirs, and those of others that are bound to one of their tenants."""
    return select(
        conn,
        ContractRow,
        "FROM contract WHERE customer_id = ANY(%(ids)s) OR tenant_id IN ("
        " SELECT id FROM tenant WHERE customer_id = ANY(%(ids)s) UNION"
        " SELECT tenant_id FROM contract WHERE customer_id = ANY(%(ids)s)) ORDER BY first_event_at, id",
        {"ids": list(customer_ids)},
    ).fetchall()


def get(conn: Connection, contract_id: str) -> ContractRow:
    """Raises NotFound."""
    return one(find(conn, contract_id), f"contract {contract_id}")


def find(conn: Connection, contract_id: str) -> ContractRow | None:
    return select(conn, ContractRow, "FROM contract WHERE id = %s", [contract_id]).fetchone()


def parked_of(conn: Connection, contract_ids: Sequence[str]) -> set[str]:
    """Those of them that wait for a person."""
    statement = "SELECT id FROM contract WHERE id = ANY(%s) AND outcome = 'parked'"
    return set(column(conn, statement, [list(contract_ids)]))


def of_tenant(conn: Connection, tenant_id: str) -> list[ContractRow]:
    return select(
        conn, ContractRow, "FROM contract WHERE tenant_id = %s ORDER BY first_event_at, id", [tenant_id]
    ).fetchall()


def live_of_tenant(conn: Connection, tenant_id: str) -> list[tuple[str, str | None]]:
    """Oldest first: (id, the source's word for the status, None where it is not known yet)."""
    rows = conn.execute(
        SQL(
            "SELECT c.id, c.terms->>'status' AS status FROM contract c, tenant t WHERE t.id = %s AND {}"
            " ORDER BY c.first_event_at, c.id"
        ).format(SQL(LIVE_OF_TENANT)),
        [tenant_id],
    )
    return [(row["id"], row["status"]) for row in rows]


def bound_of(conn: Connection, customer_id: str) -> set[str]:
    """Those that are for a tenant, which has its slug."""
    statement = "SELECT id FROM contract WHERE customer_id = %s AND tenant_id IS NOT NULL"
    return set(column(conn, statement, [customer_id]))


def live_of_customer(conn: Connection, customer_id: str) -> set[str]:
    """Those that have not ended."""
    statement = "SELECT id FROM contract WHERE customer_id = %s AND standing IS DISTINCT FROM 'ended'"
    return set(column(conn, statement, [customer_id]))


def record(
    conn: Connection,
    contract_id: str,
    *,
    terms: Contract | None,
    outcome: ContractOutcome,
    reason: str | None,
    tenant_id: str | None,
) -> None:
    """`terms`: None leaves what was read before. A binding is never taken away."""
    conn.execute(
        "UPDATE contract SET terms = coalesce(%(terms)s, terms), standing = coalesce(%(standing)s, standing),"
        " outcome = %(outcome)s, reason = %(reason)s, tenant_id = coalesce(%(tenant)s, tenant_id)"
        " WHERE id = %(id)s",
        {
            "id": contract_id,
            "terms": None if terms is None else Jsonb(terms.to_json()),
            "standing": None if terms is None else terms.standing.value,
            "outcome": outcome,
            "reason": reason,
            "tenant": tenant_id,
        },
    )


def propose(conn: Connection, contract_id: str, tenant_id: str, *, actor: str) -> None:
    asked = Jsonb({"tenant": tenant_id, "actor": actor})
    conn.execute("UPDATE contract SET proposed = %s WHERE id = %s", [asked, contract_id])


def bind(conn: Connection, contract_id: str, tenant_id: str | None) -> None:
    """A person's word; None: to a tenant of its own, which is founded. What was fetched before it is decided
    anew."""
    conn.execute(
        "WITH bound AS (UPDATE contract SET tenant_id = %(tenant)s, proposed = NULL,"
        "   alone = alone OR %(tenant)s::text IS NULL WHERE id = %(id)s RETURNING customer_id)"
        " UPDATE customer SET revision = revision + 1 FROM bound WHERE customer.id = bound.customer_id",
        {"tenant": tenant_id, "id": contract_id},
    )


def is_customer(conn: Connection, name: str) -> bool:
    return exists(conn, "SELECT FROM customer WHERE id = %s", [name])


def fetched(conn: Connection, contract_ids: Sequence[str]) -> None:
    """They were read at this moment, whether anything was new or not."""
    conn.execute(
        "UPDATE contract SET fetched_at = clock_timestamp() WHERE id = ANY(%s)", [list(contract_ids)]
    )


def page(
    conn: Connection, *, after: tuple[datetime, str] | None, limit: int, outcome: str | None = None
) -> list[ContractRow]:
    """Oldest first, those behind the given (first_event_at, id)."""
    at, contract_id = after or (None, None)
    return select(
        conn,
        ContractRow,
        "FROM contract"
        " WHERE (%(at)s::timestamptz IS NULL OR (first_event_at, id) > (%(at)s, %(id)s))"
        " AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)"
        " ORDER BY first_event_at, id LIMIT %(limit)s",
        {"at": at, "id": contract_id, "outcome": outcome, "limit": limit},
    ).fetchall()


def counts(conn: Connection) -> dict[str, int]:
    rows = conn.execute("SELECT outcome, count(*) AS n FROM contract GROUP BY outcome")
    return {row["outcome"]: row["n"] for row in rows}
