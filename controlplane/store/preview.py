"""Previews: what a pass over a tenant, or the upgrade of a cluster, would do, worked out by a worker,
changing nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from controlplane.domain.errors import LeaseLost
from controlplane.domain.job import JobKind, PreviewState
from controlplane.store import job
from controlplane.store.registry import Connection, one, select, transition


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """Of a tenant or of a cluster. `steps`: [{name, target, reason}] in order; `changes`: [{address, action,
    destructive}] of the Terraform plans; both None until it is done."""

    id: int
    tenant_id: str | None
    cluster_id: str | None
    actor: str
    state: PreviewState
    steps: list[dict[str, Any]] | None
    changes: list[dict[str, Any]] | None
    error: str | None
    requested_at: datetime
    finished_at: datetime | None


def request(
    conn: Connection,
    tenant_id: str,
    *,
    actor: str,
    transfer: dict[str, str] | None = None,
) -> int:
    """`transfer`: the move ({"to"}) or restore ({"at"} or {"snapshot"}) whose steps are asked for."""
    row = conn.execute(
        "INSERT INTO preview (tenant_id, actor, state, transfer) VALUES (%s, %s, 'waiting', %s) RETURNING id",
        [tenant_id, actor, None if transfer is None else Jsonb(transfer)],
    ).fetchone()
    return _asked_for(conn, int(one(row)["id"]), actor)


def request_upgrade(conn: Connection, cluster_id: str, release: str, *, actor: str) -> int:
    """`release`: of the stacks, to which it would be upgraded."""
    row = conn.execute(
        "INSERT INTO preview (cluster_id, release, actor, state) VALUES (%s, %s, %s, 'waiting') RETURNING id",
        [cluster_id, release, actor],
    ).fetchone()
    return _asked_for(conn, int(one(row)["id"]), actor)


def _asked_for(conn: Connection, preview_id: int, actor: str) -> int:
    job.ensure(conn, JobKind.PREVIEW, str(preview_id), reason="dry run", actor=actor)
    return preview_id


def get(conn: Connection, preview_id: int) -> PreviewRow:
    """Raises NotFound."""
    row = select(conn, PreviewRow, "FROM preview WHERE id = %s", [preview_id]).fetchone()
    return one(row, f"preview {preview_id}")


@dataclass(frozen=True, slots=True)
class Requested:
    """`transfer`: as asked for; None for an ordinary pass. `release`: of the stacks, of an upgrade of the
    cluster. `age`: seconds since it was."""

    id: int
    tenant_id: str | None
    cluster_id: str | None
    release: str | None
    transfer: dict[str, str] | None
    age: float = field(metadata={"sql": "extract(epoch FROM clock_timestamp() - requested_at)::float8"})


def requested(conn: Connection, preview_id: int) -> Requested:
    """Raises NotFound."""
    row = select(conn, Requested, "FROM preview WHERE id = %s", [preview_id]).fetchone()
    return one(row, f"preview {preview_id}")


def finish(
    conn: Connection,
    preview_id: int,
    *,
    steps: list[dict[str, Any]],
    changes: list[dict[str, Any]],
) -> None:
    """Raises LeaseLost where the hold ran out and another worker has ended it."""
    transition(
        conn,
        "preview",
        {"id": preview_id},
        PreviewState.DONE,
        "steps = %(steps)s, changes = %(planned)s, finished_at = clock_timestamp()",
        error=LeaseLost,
        steps=Jsonb(steps),
        planned=Jsonb(changes),
    )


def fail(conn: Connection, preview_id: int, *, error: str) -> None:
    """Raises as `finish`."""
    transition(
        conn,
        "preview",
        {"id": preview_id},
        PreviewState.FAILED,
        "error = %(message)s, finished_at = clock_timestamp()",
        error=LeaseLost,
        message=error[:1000],
    )


def waits_for(conn: Connection, tenant_id: str | None, cluster_id: str | None = None) -> str | None:
    """What is at work on this cluster; or on the tenant, and on its cluster where the tenant's own waits for
    that: a preview of something that is changing would be wrong by the time it is read. None where nothing
    is."""
    rows = conn.execute(
        "SELECT o.id, o.kind, o.resource_id, s.seq, s.name FROM operation o LEFT JOIN LATERAL"
        "  (SELECT seq, name FROM step WHERE operation_id = o.id ORDER BY seq DESC LIMIT 1) s ON true"
        " WHERE (o.state = 'running' OR (o.state = 'waiting' AND o.attempts = 0))"
        "  AND (o.kind, o.resource_id) IN (VALUES ('tenant', %(tenant)s),"
        "  ('cluster', coalesce(%(cluster)s, (SELECT cluster_id FROM placement WHERE tenant_id = %(tenant)s"
        "   AND state = 'current'))))"
        "  AND (o.kind = 'cluster' OR s.seq IS NOT NULL) ORDER BY o.id",
        {"tenant": tenant_id, "cluster": cluster_id},
    ).fetchall()
    at_work = {row["kind"]: row for row in rows}
    if cluster_id is not None:
        return _at_step(at_work["cluster"]) if "cluster" in at_work else None
    if "tenant" not in at_work:
        return None
    said = _at_step(at_work["tenant"])
    if "cluster" in at_work:
        said += f"; it waits for cluster {at_work['cluster']['resource_id']}: {_at_step(at_work['cluster'])}"
    return said


def _at_step(row: DictRow) -> str:
    where = "has not begun" if row["seq"] is None else f"is at step {row['seq']}, {row['name']}"
    return f"operation {row['id']} {where}"
