"""Rehearsals of a release on copies of tenants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.domain.errors import LeaseLost
from controlplane.domain.rollout import RehearsalState
from controlplane.store.registry import Connection, exists, one, returning, select, transition


@dataclass(frozen=True, slots=True)
class RehearsalRow:
    """`results`: one for each copy that was tried. `copies`: how many were asked for."""

    id: int
    release: str
    copies: int
    actor: str
    state: RehearsalState
    attempts: int
    results: list[dict[str, Any]]
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A tenant to copy. `alike`: how many have its release and the shape of its schema."""

    tenant_id: str
    slug: str
    number: int
    cluster_id: str
    endpoint: dict[str, Any]
    release: str | None
    alike: int


def request(conn: Connection, release: str, *, copies: int, actor: str) -> int:
    row = conn.execute(
        "INSERT INTO rehearsal (release, copies, actor, state) VALUES (%s, %s, %s, 'waiting') RETURNING id",
        [release, copies, actor],
    ).fetchone()
    return int(one(row)["id"])


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


def take(conn: Connection, *, holder: str, seconds: float) -> RehearsalRow | None:
    """One that waits, or whose worker has died, held for so many seconds. The attempt is counted before
    the work, so that one that kills its worker ends as failed."""
    return returning(
        conn,
        RehearsalRow,
        "UPDATE rehearsal SET state = 'running', holder = %s, attempts = attempts + 1,"
        " until = clock_timestamp() + make_interval(secs => %s), results = '[]'"
        " WHERE id = (SELECT id FROM rehearsal WHERE state = 'waiting'"
        "   OR (state = 'running' AND until < clock_timestamp())"
        "   ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)",
        [holder, seconds],
    ).fetchone()


def add_result(
    conn: Connection, rehearsal_id: int, result: dict[str, Any], *, holder: str, seconds: float
) -> None:
    """Raises LeaseLost where another worker has it by now."""
    transition(
        conn,
        "rehearsal",
        {"id": rehearsal_id, "holder": holder},
        RehearsalState.RUNNING,
        "results = results || %(result)s, until = clock_timestamp() + make_interval(secs => %(seconds)s)",
        error=LeaseLost,
        sources=[RehearsalState.RUNNING],
        result=Jsonb([result]),
        seconds=seconds,
    )


def finish(conn: Connection, rehearsal_id: int, *, holder: str, error: str | None) -> None:
    """Raises as `add_result`."""
    transition(
        conn,
        "rehearsal",
        {"id": rehearsal_id, "holder": holder},
        RehearsalState.DONE if error is None else RehearsalState.FAILED,
        "error = %(message)s, finished_at = clock_timestamp()",
        error=LeaseLost,
        message=error,
    )


def due(conn: Connection) -> bool:
    return exists(
        conn,
        "SELECT FROM rehearsal WHERE state = 'waiting'"
        " OR (state = 'running' AND until < clock_timestamp()) LIMIT 1",
    )


def candidates(conn: Connection, release: str) -> list[CandidateRow]:
    """Tenants that the release would change, the most divergent first: those whose release and schema
    the fewest others have, one after the other of each kind."""
    return select(
        conn,
        CandidateRow,
        "FROM ("
        "  SELECT t.id AS tenant_id, t.slug, p.number, p.cluster_id, c.endpoint, t.release,"
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
