"""Leases with a fencing token, on the database's clock.

`claim` gives out the right to converge one resource: a due waiting operation, or a running one whose
holder let its lease run out. The fencing token rises with every claim, and `guard` at the head of each of the
holder's transactions refuses the write once somebody else has claimed. The worker's own clock decides
nothing but when to give up by itself.
"""

from __future__ import annotations

from controlplane.domain.errors import LeaseLost
from controlplane.domain.operation import ClaimedOperation, ResourceKind
from controlplane.store.registry import Connection, one


def register(conn: Connection, kind: ResourceKind, resource_id: str) -> None:
    conn.execute(
        "INSERT INTO lease (kind, resource_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", [kind, resource_id]
    )


_CLAIMABLE = """
    SELECT o.id, o.kind, o.resource_id, o.reason, o.actor, o.state
      FROM operation o JOIN lease l USING (kind, resource_id)
     WHERE {}
       AND (%(kind)s::text IS NULL OR o.kind = %(kind)s)
       AND (%(id)s::text IS NULL OR o.resource_id = %(id)s)
     ORDER BY o.next_attempt_at LIMIT 1
       FOR UPDATE OF o, l SKIP LOCKED
"""
_DIED = "o.state = 'running' AND l.until < statement_timestamp()"
_WAITS = """
           o.state = 'waiting' AND o.next_attempt_at <= statement_timestamp()
       AND NOT EXISTS (SELECT FROM operation r WHERE r.kind = o.kind
                        AND r.resource_id = o.resource_id AND r.state = 'running')
"""
"""Two statements and not one with an OR: each has an index that leads to the few operations it is about."""


def claim(
    conn: Connection,
    *,
    holder: str,
    seconds: float,
    kind: ResourceKind | None = None,
    resource_id: str | None = None,
    orphaned: bool = False,
) -> ClaimedOperation | None:
    """The next operation that is due, of one resource or of any; None where nothing is.

    An operation that died running is taken before one that waits; `orphaned`: no other is. Rows that
    another claimer has locked are skipped, so no worker ever queues behind another.
    """
    which = {"kind": kind, "id": resource_id}
    with conn.transaction():
        row = conn.execute(_CLAIMABLE.format(_DIED).encode(), which).fetchone()
        if row is None and not orphaned:
            row = conn.execute(_CLAIMABLE.format(_WAITS).encode(), which).fetchone()
        if row is None:
            return None
        fencing_token = one(
            conn.execute(
                "UPDATE lease SET fencing_token = fencing_token + 1, holder = %s,"
                " until = clock_timestamp() + make_interval(secs => %s)"
                " WHERE kind = %s AND resource_id = %s RETURNING fencing_token",
                [holder, seconds, row["kind"], row["resource_id"]],
            ).fetchone()
        )["fencing_token"]
        conn.execute(  # none where the one before died between two steps, or there was none before
            "UPDATE step SET state = 'abandoned', finished_at = clock_timestamp()"
            " WHERE operation_id = %s AND state = 'running'",
            [row["id"]],
        )
        attempts = one(
            conn.execute(
                "UPDATE operation SET state = 'running', fencing_token = %s, attempts = attempts + 1,"
                " started_at = coalesce(started_at, clock_timestamp()) WHERE id = %s RETURNING attempts",
                [fencing_token, row["id"]],
            ).fetchone()
        )["attempts"]
    return ClaimedOperation(
        kind=ResourceKind(row["kind"]),
        resource_id=row["resource_id"],
        operation_id=row["id"],
        fencing_token=fencing_token,
        holder=holder,
        attempts=attempts,
        reason=row["reason"],
        actor=row["actor"],
        orphan=row["state"] == "running",
    )


def renew(conn: Connection, held: ClaimedOperation, *, seconds: float) -> None:
    """Raises LeaseLost once somebody else has claimed."""
    renewed = conn.execute(
        "UPDATE lease SET until = clock_timestamp() + make_interval(secs => %s)"
        " WHERE kind = %s AND resource_id = %s AND fencing_token = %s",
        [seconds, held.kind, held.resource_id, held.fencing_token],
    ).rowcount
    if not renewed:
        raise LeaseLost(f"{held.resource_id}: fencing_token {held.fencing_token} is no longer the newest")


def guard(conn: Connection, held: ClaimedOperation) -> None:
    """Within a transaction: refuse to write for a holder that has been superseded (I3)."""
    row = conn.execute(
        "SELECT 1 FROM lease WHERE kind = %s AND resource_id = %s AND fencing_token = %s FOR SHARE",
        [held.kind, held.resource_id, held.fencing_token],
    ).fetchone()
    if row is None:
        raise LeaseLost(f"{held.resource_id}: fencing_token {held.fencing_token} is no longer the newest")


def release(conn: Connection, held: ClaimedOperation) -> None:
    """Nothing where somebody else has claimed: it is theirs."""
    conn.execute(
        "UPDATE lease SET until = '-infinity', holder = NULL"
        " WHERE kind = %s AND resource_id = %s AND fencing_token = %s",
        [held.kind, held.resource_id, held.fencing_token],
    )
