"""Rehearsals of a release on copies of tenants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.domain.errors import LeaseLost
from controlplane.domain.job import JobKind
from controlplane.domain.rollout import RehearsalState
from controlplane.store import job
from controlplane.store.registry import Connection, one, select, transition


@dataclass(frozen=True, slots=True)
class RehearsalRow:
    """`results`: one for each copy that was tried. `copies`: how many were asked for."""

    id: int
    release: str
    copies: int
    actor: str
    state: RehearsalState
    results: list[dict[str, Any]]
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A tenant to copy. `alike`: how many have its release and the shape of its schema."""

    tenant_id: str
    slug: str
    placement: str
    cluster_id: str
    endpoint: dict[str, Any]
    release: str | None
    alike: int


def request(conn: Connection, release: str, *, copies: int, actor: str) -> int:
    row = conn.execute(
        "INSERT INTO rehearsal (release, copies, actor, state) VALUES (%s, %s, %s, 'waiting') RETURNING id",
        [release, copies, actor],
    ).fetchone()
    rehearsal_id = int(one(row)["id"])
    job.ensure(conn, JobKind.REHEARSAL, str(rehearsal_id), reason=f"release {release}", actor=actor)
    return rehearsal_id


def open_id(conn: Connection, release: str, *, copies: int) -> int | None:
    """Of the one that has not ended. The caller holds the releases' lock."""
    row = conn.execute(
        "SELECT id FROM rehearsal WHERE release = %s AND copies = %s AND state IN ('waiting', 'running')"
        " ORDER BY id LIMIT 1",
        [release, copies],
    ).fetchone()
    return None if row is None else int(row["id"])


def get(conn: Connection, rehearsal_id: int) -> RehearsalRow:
    """Raises NotFound."""
    row = select(conn, RehearsalRow, "FROM rehearsal WHERE id = %s", [rehearsal_id]).fetchone()
    return one(row, f"rehearsal {rehearsal_id}")


def begin(conn: Connection, rehearsal_id: int) -> RehearsalRow:
    """Anew, where a worker died over it."""
    transition(
        conn, "rehearsal", {"id": rehearsal_id}, RehearsalState.RUNNING, "results = '[]'", error=LeaseLost
    )
    return get(conn, rehearsal_id)


def add_result(conn: Connection, rehearsal_id: int, result: dict[str, Any]) -> None:
    """Within the transaction of the job's holder."""
    conn.execute(
        "UPDATE rehearsal SET results = results || %s WHERE id = %s", [Jsonb([result]), rehearsal_id]
    )


def finish(conn: Connection, rehearsal_id: int, *, error: str | None) -> None:
    """Likewise."""
    transition(
        conn,
        "rehearsal",
        {"id": rehearsal_id},
        RehearsalState.DONE if error is None else RehearsalState.FAILED,
        "error = %(message)s, finished_at = clock_timestamp()",
        error=LeaseLost,
        message=error,
    )


def candidates(conn: Connection, release: str) -> list[CandidateRow]:
    """Tenants that the release would change, the most divergent first: those whose release and schema
    the fewest others have, one after the other of each kind."""
    return select(
        conn,
        CandidateRow,
        "FROM ("
        "  SELECT t.id AS tenant_id, t.slug, p.id AS placement, p.cluster_id, c.endpoint, t.release,"
        "         count(*) OVER kind AS alike,"
        "         row_number() OVER (PARTITION BY t.release, s.digest ORDER BY t.id) AS turn"
        "    FROM tenant t JOIN placement p ON p.tenant_id = t.id AND p.state = 'current'"
        "    JOIN cluster c ON c.id = p.cluster_id AND c.endpoint IS NOT NULL"
        "    LEFT JOIN tenant_schema s ON s.tenant_id = t.id"
        "   WHERE t.spec->>'lifecycle' <> 'closed' AND t.ready_at IS NOT NULL"
        "     AND (t.release IS NULL OR t.release < %s)"
        "   WINDOW kind AS (PARTITION BY t.release, s.digest)) k"
        " ORDER BY turn, alike, tenant_id LIMIT 100",
        [release],
    ).fetchall()
