"""Rehearsals: ask for one, show what came of it and what it foretells for the fleet."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.errors import Invalid
from controlplane.domain.rollout import Estimate, Spec, estimate
from controlplane.store import audit, rehearsal, release, rollout_member
from controlplane.store.registry import Connection
from controlplane.store.rehearsal import RehearsalRow

MAX_COPIES = 20


@dataclass(frozen=True, slots=True)
class RehearsalDetail:
    """`estimate` is for a rollout with the default spec, None while no copy was migrated."""

    rehearsal: RehearsalRow
    tenants: int
    estimate: Estimate | None


def request(conn: Connection, number: str, *, copies: int, actor: str) -> int:
    """Have a worker migrate copies of that many tenants; the rehearsal's id. The same request again finds
    the one that has not ended. Raises NotFound, Invalid."""
    if not 1 <= copies <= MAX_COPIES:
        raise Invalid("copies", f"1 to {MAX_COPIES}", got=copies)
    with conn.transaction():
        release.lock(conn)
        release.get(conn, number)
        rehearsal_id = rehearsal.open_id(conn, number, copies=copies) or rehearsal.request(
            conn, number, copies=copies, actor=actor
        )
        audit.append(
            conn,
            actor=actor,
            action="release.rehearse",
            resource=f"release:{number}",
            detail={"rehearsal": rehearsal_id, "copies": copies},
        )
    return rehearsal_id


def show(conn: Connection, rehearsal_id: int) -> RehearsalDetail:
    """Raises NotFound."""
    row = rehearsal.get(conn, rehearsal_id)
    tenants = len(rollout_member.candidates(conn, row.release))
    good = [result for result in row.results if result["error"] is None]
    foretold = None
    if good:
        locks = [max((lock["seconds"] for lock in result["locks"]), default=0.0) for result in good]
        foretold = estimate([result["seconds"] for result in good], locks, members=tenants, spec=Spec())
    return RehearsalDetail(row, tenants, foretold)
