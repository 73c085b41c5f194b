"""The targets of a rollout: one row for each tenant, claimed with a lease and a fencing token.

A target that is claimed is `running` until its holder records what came of it. A holder that dies lets
its lease run out, on the registry's clock, and the next claimer takes the target over with a higher
fencing token; whatever the dead one still writes is refused. That nothing is applied twice does not rest on
this but on the tenant's database, where a migration and its record are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

from controlplane.domain.errors import LeaseLost, NotFound
from controlplane.domain.job import JobKind
from controlplane.domain.rollout import Candidate, Counts, Member, Target, TargetState
from controlplane.store import job, rollout
from controlplane.store.registry import Connection, exists, query, select, transition
from controlplane.store.rollout import RolloutRow

Claim = Callable[[], list[Target]]


@dataclass(frozen=True, slots=True)
class TargetRow:
    tenant_id: str
    slug: str = field(metadata={"sql": "tenant.slug"})
    wave: int
    cluster_id: str
    from_release: str | None
    state: TargetState
    attempts: int
    next_attempt_at: datetime
    holder: str | None
    file: str | None
    statement: str | None
    error: str | None
    seconds: float | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class WaveRow:
    wave: int
    counts: Counts = field(
        metadata={"sql": "jsonb_object_agg(state, n)", "read": lambda found: Counts(**found)}
    )
    started_at: datetime | None = field(metadata={"sql": "min(began)"})
    finished_at: datetime | None = field(metadata={"sql": "max(ended)"})


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Failures that are the same: file, statement and error. `example`: one of the tenants."""

    file: str | None
    statement: str | None
    error: str | None
    tenants: int = field(metadata={"sql": "count(*)"})
    example: str = field(metadata={"sql": "min(tenant_id)"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a claimed target."""

    tenant_id: str
    fencing_token: int
    seconds: float


_LOOK_AHEAD = 20  # rows looked at for each that may be started, so that the clusters take turns
_STARTABLE = """
    WITH r AS MATERIALIZED (
      SELECT id, wave, (spec->>'per_cluster')::int AS per_cluster, (spec->>'concurrency')::int AS most
        FROM rollout WHERE id = %(rollout)s),
    busy AS MATERIALIZED (
      SELECT cluster_id, count(*) AS n FROM rollout_target
       WHERE rollout_id = %(rollout)s AND state = 'running' AND until > clock_timestamp() GROUP BY 1),
    shut AS MATERIALIZED (
      SELECT cluster_id FROM busy WHERE n >= (SELECT per_cluster FROM r)
      UNION ALL
      SELECT cluster_id FROM rollout_snapshot WHERE rollout_id = %(rollout)s AND state = 'making'),
    moving AS MATERIALIZED (
      SELECT tenant_id FROM move
       WHERE finished_at IS NULL AND target IS NOT NULL AND phase IN ('preparing', 'paused')),
    due AS (
      (SELECT cluster_id, tenant_id, next_attempt_at FROM rollout_target
        WHERE rollout_id = %(rollout)s AND state = 'running' AND until <= clock_timestamp()
          AND cluster_id NOT IN (SELECT cluster_id FROM shut)
          AND tenant_id NOT IN (SELECT tenant_id FROM moving) LIMIT (SELECT most FROM r))
      UNION ALL
      (SELECT cluster_id, tenant_id, next_attempt_at FROM rollout_target
        WHERE rollout_id = %(rollout)s AND state = 'pending' AND wave <= (SELECT wave FROM r)
          AND next_attempt_at <= clock_timestamp() AND cluster_id NOT IN (SELECT cluster_id FROM shut)
          AND tenant_id NOT IN (SELECT tenant_id FROM moving)
        ORDER BY wave, next_attempt_at, tenant_id LIMIT (SELECT %(look_ahead)s * most FROM r)))
    SELECT cluster_id, NULL AS tenant_id, n, 0 AS turn FROM busy
    UNION ALL
    (SELECT cluster_id, tenant_id, 0, turn FROM (
      SELECT cluster_id, tenant_id,
             row_number() OVER (PARTITION BY cluster_id ORDER BY next_attempt_at, tenant_id) AS turn
        FROM due) AS c
     WHERE turn <= (SELECT per_cluster FROM r)
     ORDER BY turn, cluster_id LIMIT (SELECT most FROM r))
"""


# ------------------------------------------------------------------------------------ enrolment


def candidates(conn: Connection, release: str, *, rollout_id: int | None = None) -> list[Member]:
    """The tenants that have served and whose release is older, by id; without those that this rollout
    has already. A tenant that is still to be made gets its release then."""
    rows = conn.execute(
        "SELECT t.id, t.slug FROM tenant t JOIN placement p ON p.tenant_id = t.id AND p.state = 'current'"
        " WHERE t.spec->>'lifecycle' <> 'closed' AND t.ready_at IS NOT NULL"
        "   AND (t.release IS NULL OR t.release < %(release)s)"
        "   AND NOT EXISTS (SELECT FROM rollout_target r"
        "                    WHERE r.rollout_id = %(rollout)s AND r.tenant_id = t.id)"
        " ORDER BY t.id",
        {"release": release, "rollout": rollout_id},
    )
    return [Member(row["id"], row["slug"]) for row in rows]


def enrol(conn: Connection, rollout_id: int, waves: dict[str, int]) -> int:
    """`waves`: tenant id → wave."""
    return conn.execute(
        "INSERT INTO rollout_target (rollout_id, tenant_id, wave, cluster_id, from_release)"
        " SELECT %s, t.id, w.wave, p.cluster_id, t.release"
        "   FROM unnest(%s::text[], %s::int[]) AS w (tenant_id, wave)"
        "   JOIN tenant t ON t.id = w.tenant_id"
        "   JOIN placement p ON p.tenant_id = t.id AND p.state = 'current'"
        " ON CONFLICT DO NOTHING",
        [rollout_id, list(waves), list(waves.values())],
    ).rowcount


def take_back(conn: Connection, rollout_id: int) -> int:
    """skipped → pending, of those whose tenant had closed and is back, on an older release; how many."""
    taken = conn.execute(
        "UPDATE rollout_target r SET state = 'pending', was_closed = false, attempts = 0, error = NULL,"
        " next_attempt_at = clock_timestamp(), finished_at = NULL"
        "  FROM tenant t, rollout o"
        " WHERE r.rollout_id = %s AND o.id = r.rollout_id AND t.id = r.tenant_id AND r.state = 'skipped'"
        "   AND r.was_closed AND t.spec->>'lifecycle' <> 'closed' AND t.ready_at IS NOT NULL"
        "   AND (t.release IS NULL OR t.release < o.release)"
        "   AND EXISTS (SELECT FROM placement p WHERE p.tenant_id = t.id AND p.state = 'current')"
        " RETURNING r.tenant_id",
        [rollout_id],
    )
    return len(taken.fetchall())  # in a pipeline a rowcount is not known yet


# ---------------------------------------------------------------------------------------- claims


def turn(conn: Connection, rollout_id: int) -> tuple[RolloutRow, dict[str, int], list[Candidate]]:
    """Lock the rollout; (its row, cluster → targets that run on it, who may be started next), for
    `domain.rollout.next_batch`. Two statements, since the second must see what whoever held the lock has
    committed; in a pipeline they are one round trip.

    A target whose holder's lease has run out may be started and does not count as running. Of each
    cluster no more are listed than may run on it, the clusters in turn, and none while it is full or a
    snapshot of it is in the making. What it costs does not grow with the number of targets.
    """
    locked = rollout.lock(conn, rollout_id)
    listed = conn.execute(_STARTABLE, {"rollout": rollout_id, "look_ahead": _LOOK_AHEAD})
    row = rollout.locked_row(locked, rollout_id)
    rows = listed.fetchall()
    running = {r["cluster_id"]: r["n"] for r in rows if r["tenant_id"] is None}
    waiting = sorted((r for r in rows if r["tenant_id"] is not None), key=lambda r: r["turn"])
    return row, running, [Candidate(r["tenant_id"], r["cluster_id"]) for r in waiting]


def claim(
    conn: Connection, rollout_id: int, tenant_ids: Sequence[str], *, holder: str, seconds: float
) -> Claim:
    """Take these, but for what another one holds or has locked at this moment. A tenant that was closed
    meanwhile is skipped on the way, one that moved is taken where it lives now, and one that is just moving
    waits until it has.

    What is handed back says which were taken, to be called after the commit: so the two are one round
    trip of a pipeline.
    """
    cursor = query(
        conn,
        Target,
        """
        WITH free AS (
          SELECT r.tenant_id, t.spec->>'lifecycle' AS lifecycle, p.number, p.cluster_id, c.endpoint
            FROM rollout_target r JOIN tenant t ON t.id = r.tenant_id
            LEFT JOIN placement p ON p.tenant_id = r.tenant_id AND p.state = 'current'
            LEFT JOIN cluster c ON c.id = p.cluster_id
           WHERE r.rollout_id = %(rollout)s AND r.tenant_id = ANY(%(tenants)s)
             AND (r.state = 'pending' OR (r.state = 'running' AND r.until <= clock_timestamp()))
             AND NOT EXISTS (SELECT FROM move m WHERE m.tenant_id = r.tenant_id AND m.target IS NOT NULL
                              AND m.phase IN ('preparing', 'paused'))
             FOR UPDATE OF r SKIP LOCKED),
        gone AS (
          UPDATE rollout_target r SET state = 'skipped', error = CASE f.lifecycle
                   WHEN 'closed' THEN 'the tenant was closed' ELSE 'the tenant has no database' END,
                 was_closed = f.lifecycle = 'closed',
                 finished_at = clock_timestamp(), holder = NULL
            FROM free f WHERE r.rollout_id = %(rollout)s AND r.tenant_id = f.tenant_id
             AND (f.lifecycle = 'closed' OR f.endpoint IS NULL))
        UPDATE rollout_target r
           SET state = 'running', holder = %(holder)s, fencing_token = r.fencing_token + 1, attempts =
           r.attempts + 1,
               until = clock_timestamp() + make_interval(secs => %(seconds)s), cluster_id = f.cluster_id,
               started_at = coalesce(r.started_at, clock_timestamp()),
               file = NULL, statement = NULL, error = NULL
          FROM free f WHERE r.rollout_id = %(rollout)s AND r.tenant_id = f.tenant_id
           AND f.lifecycle <> 'closed' AND f.endpoint IS NOT NULL
        RETURNING r.rollout_id, r.tenant_id, f.number, f.cluster_id, r.fencing_token, r.attempts, f.endpoint
        """,
        {"rollout": rollout_id, "tenants": list(tenant_ids), "holder": holder, "seconds": seconds},
    )
    return cursor.fetchall


def renew(conn: Connection, rollout_id: int, held: Sequence[tuple[str, int]], *, seconds: float) -> int:
    """`held`: (tenant id, fencing token). How many were renewed: those of another holder are not, nor those
    whose outcome is being recorded at this moment."""
    return conn.execute(
        "UPDATE rollout_target r SET until = clock_timestamp() + make_interval(secs => %s)"
        "  FROM (SELECT t.tenant_id FROM rollout_target t"
        "          JOIN unnest(%s::text[], %s::bigint[]) AS h (tenant_id, fencing_token) USING (tenant_id,"
        " fencing_token)"
        "         WHERE t.rollout_id = %s AND t.state = 'running' FOR UPDATE OF t SKIP LOCKED) AS mine"
        " WHERE r.rollout_id = %s AND r.tenant_id = mine.tenant_id",
        [
            seconds,
            [tenant for tenant, _ in held],
            [fencing_token for _, fencing_token in held],
            rollout_id,
            rollout_id,
        ],
    ).rowcount


# -------------------------------------------------------------------------------------- outcomes


def finish(conn: Connection, rollout_id: int, outcomes: Sequence[Outcome]) -> None:
    """running → done; the tenants have the release now, and their operations are asked to publish it.
    Passes over those that are not their holder's any more: somebody else records them."""
    with conn.transaction():
        rows = conn.execute(
            """
            WITH ended AS (
              UPDATE rollout_target r SET state = 'done', seconds = o.seconds, holder = NULL,
                     finished_at = clock_timestamp()
                FROM unnest(%(tenants)s::text[], %(fencing_tokens)s::bigint[], %(seconds)s::float8[])
                  AS o (tenant_id, fencing_token, seconds)
               WHERE r.rollout_id = %(rollout)s AND r.tenant_id = o.tenant_id AND r.fencing_token =
               o.fencing_token
                 AND r.state = 'running'
              RETURNING r.tenant_id)
            UPDATE tenant t SET release = r.release FROM ended e, rollout r
             WHERE t.id = e.tenant_id AND r.id = %(rollout)s AND (t.release IS NULL OR t.release < r.release)
            RETURNING t.id, t.release
            """,
            {
                "rollout": rollout_id,
                "tenants": [o.tenant_id for o in outcomes],
                "fencing_tokens": [o.fencing_token for o in outcomes],
                "seconds": [o.seconds for o in outcomes],
            },
        ).fetchall()
        if rows:
            reason = f"release {rows[0]['release']}"
            raised = [row["id"] for row in rows]
            job.ensure_all(conn, JobKind.TENANT, raised, reason=reason, actor="rollout")


def fail(
    conn: Connection, rollout_id: int, outcome: Outcome, *, file: str, statement: str, error: str
) -> None:
    """running → failed, or skipped where the tenant was closed meanwhile. Raises LeaseLost where it is
    another holder's by now."""
    closed = exists(
        conn, "SELECT FROM tenant WHERE id = %s AND spec->>'lifecycle' = 'closed'", [outcome.tenant_id]
    )
    _turn(
        conn,
        rollout_id,
        outcome,
        TargetState.SKIPPED if closed else TargetState.FAILED,
        "holder = NULL, finished_at = clock_timestamp(), was_closed = %(closed)s, seconds = %(seconds)s,"
        " file = nullif(%(file)s, ''), statement = nullif(%(statement)s, ''), error = %(message)s",
        closed=closed,
        seconds=outcome.seconds,
        file=file[:200],
        statement=statement[:500],
        message=f"{'the tenant was closed; ' if closed else ''}{error[:500]}",
    )


def put_back(conn: Connection, rollout_id: int, outcome: Outcome, *, after: float, error: str) -> None:
    """running → pending, due after that many seconds. Raises as `fail`."""
    _turn(
        conn,
        rollout_id,
        outcome,
        TargetState.PENDING,
        "holder = NULL, error = %(message)s,"
        " next_attempt_at = clock_timestamp() + make_interval(secs => %(after)s)",
        message=error[:500],
        after=after,
    )


def _turn(
    conn: Connection,
    rollout_id: int,
    outcome: Outcome,
    to: TargetState,
    changes: LiteralString,
    **values: Any,
) -> None:
    key = {
        "tenant_id": outcome.tenant_id,
        "rollout_id": rollout_id,
        "fencing_token": outcome.fencing_token,
    }
    running = [TargetState.RUNNING]
    transition(conn, "rollout_target", key, to, changes, error=LeaseLost, sources=running, **values)


def retry(conn: Connection, rollout_id: int, tenant_ids: Sequence[str] | None) -> int:
    """failed → pending, of these tenants or of all; how many."""
    return conn.execute(
        "UPDATE rollout_target SET state = 'pending', attempts = 0, next_attempt_at = clock_timestamp(),"
        " finished_at = NULL WHERE rollout_id = %(id)s AND state = 'failed'"
        " AND (%(tenants)s::text[] IS NULL OR tenant_id = ANY(%(tenants)s))",
        {"id": rollout_id, "tenants": None if tenant_ids is None else list(tenant_ids)},
    ).rowcount


def skip(conn: Connection, rollout_id: int, tenant_ids: Sequence[str], *, reason: str) -> int:
    """pending or failed → skipped; how many. What failed is still reported."""
    return conn.execute(
        "UPDATE rollout_target SET state = 'skipped', finished_at = clock_timestamp(),"
        " error = concat_ws('; ', %s::text, error)"
        " WHERE rollout_id = %s AND tenant_id = ANY(%s) AND state IN ('pending', 'failed')",
        [f"skipped: {reason[:200]}", rollout_id, list(tenant_ids)],
    ).rowcount


def leave_behind(conn: Connection, rollout_id: int) -> int:
    """pending → stale, at an abort; how many."""
    return conn.execute(
        "UPDATE rollout_target SET state = 'stale', finished_at = clock_timestamp()"
        " WHERE rollout_id = %s AND state = 'pending'",
        [rollout_id],
    ).rowcount


# -------------------------------------------------------------------------------------- reading


def counts(conn: Connection, rollout_id: int, *, up_to_wave: int | None = None) -> Counts:
    rows = conn.execute(
        "SELECT state, count(*) AS n FROM rollout_target WHERE rollout_id = %(id)s"
        " AND (%(wave)s::int IS NULL OR wave <= %(wave)s) GROUP BY state",
        {"id": rollout_id, "wave": up_to_wave},
    )
    return Counts(**{row["state"]: row["n"] for row in rows})


def is_open(conn: Connection, rollout_id: int, *, up_to_wave: int) -> bool:
    """Is one of these waves' targets pending or running?"""
    return exists(
        conn,
        "SELECT WHERE EXISTS (SELECT FROM rollout_target"
        "                WHERE rollout_id = %(id)s AND wave <= %(wave)s AND state = 'running')"
        "    OR EXISTS (SELECT FROM rollout_target"
        "                WHERE rollout_id = %(id)s AND wave <= %(wave)s AND state = 'pending')",
        {"id": rollout_id, "wave": up_to_wave},
    )


def by_wave(conn: Connection, rollout_id: int) -> list[WaveRow]:
    return select(
        conn,
        WaveRow,
        "FROM (SELECT wave, state, count(*) AS n, min(started_at) AS began, max(finished_at) AS ended"
        "        FROM rollout_target WHERE rollout_id = %s GROUP BY wave, state) s"
        " GROUP BY wave ORDER BY wave",
        [rollout_id],
    ).fetchall()


def failures(conn: Connection, rollout_id: int) -> list[FailureRow]:
    """Grouped, the most frequent first."""
    return select(
        conn,
        FailureRow,
        "FROM rollout_target WHERE rollout_id = %s AND state = 'failed'"
        " GROUP BY file, statement, error ORDER BY tenants DESC, error LIMIT 100",
        [rollout_id],
    ).fetchall()


def page(
    conn: Connection, rollout_id: int, *, after: str | None, limit: int, state: str | None = None
) -> list[TargetRow]:
    """By tenant id, those behind `after`."""
    return select(
        conn,
        TargetRow,
        "FROM rollout_target t JOIN tenant ON tenant.id = t.tenant_id"
        " WHERE t.rollout_id = %(id)s AND (%(after)s::text IS NULL OR t.tenant_id > %(after)s)"
        " AND (%(state)s::text IS NULL OR t.state = %(state)s) ORDER BY t.tenant_id LIMIT %(limit)s",
        {"id": rollout_id, "after": after, "limit": limit, "state": state},
        table="t",
    ).fetchall()


def named(conn: Connection, rollout_id: int, names: Sequence[str]) -> list[str]:
    """The ids of these targets, named by id or slug. Raises NotFound for one that is none."""
    rows = conn.execute(
        "SELECT t.tenant_id, tenant.slug FROM rollout_target t JOIN tenant ON tenant.id = t.tenant_id"
        " WHERE t.rollout_id = %(id)s AND (t.tenant_id = ANY(%(names)s) OR tenant.slug = ANY(%(names)s))",
        {"id": rollout_id, "names": list(names)},
    ).fetchall()
    known: dict[str, Any] = {row["slug"]: row["tenant_id"] for row in rows}
    known |= {row["tenant_id"]: row["tenant_id"] for row in rows}
    for name in names:
        if name not in known:
            raise NotFound(f"tenant {name} is no target of rollout {rollout_id}")
    return sorted({known[name] for name in names})


def timeline(conn: Connection, rollout_id: int) -> list[tuple[datetime, datetime, int, str]]:
    """(started, finished, wave, state) of those that ended, in that order: what a plot needs."""
    rows = conn.execute(
        "SELECT started_at, finished_at, wave, state FROM rollout_target"
        " WHERE rollout_id = %s AND started_at IS NOT NULL AND finished_at IS NOT NULL ORDER BY finished_at",
        [rollout_id],
    )
    return [(r["started_at"], r["finished_at"], r["wave"], r["state"]) for r in rows]
