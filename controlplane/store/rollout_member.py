"""The members of a rollout: one row for each tenant, what people see of it.

How it is waited for, held and tried again is its job's alone (`store/job.py`), whose subject is
"<rollout>/<tenant id>" and whose lock is the tenant's database. A row is `running` as long as its job is at
it, and `pending` while it has none or one that waits; both are written in one transaction, under the job's
guard. That nothing is applied twice does not rest on this but on the tenant's database, where a migration and
its record are one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Cursor
from psycopg.sql import SQL

from controlplane.domain.errors import LeaseLost, NotFound
from controlplane.domain.job import Job, JobKind
from controlplane.domain.rollout import Candidate, Counts, FleetTenant, Member, MemberState, member_of
from controlplane.store import job, rollout
from controlplane.store.registry import Connection, column, exists, query, select, transition
from controlplane.store.rollout import RolloutRow
from controlplane.store.transfer import BEING_MADE


@dataclass(frozen=True, slots=True)
class MemberRow:
    """`attempts`: so far, None where no job is at it. `next_attempt_at`: of one that is to be tried again.
    `seconds`: that the migration took; of one that failed, from its first attempt to its end."""

    tenant_id: str
    slug: str = field(metadata={"sql": "tenant.slug"})
    wave: int
    cluster_id: str
    from_release: str | None
    state: MemberState
    attempts: int | None = field(metadata={"sql": "job.attempts"})
    next_attempt_at: datetime | None = field(
        metadata={"sql": "CASE job.state WHEN 'waiting' THEN job.due_at END"}
    )
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
    """What came of a member that was worked on for so many seconds. `error` None: its database has the
    release now."""

    job: Job
    seconds: float
    error: Exception | None = None


_LOOK_AHEAD = 20  # rows looked at for each that may be started, so that the clusters take turns
_STARTABLE = SQL("""
    WITH {ice},
    r AS MATERIALIZED (
      SELECT id, wave, (spec->>'per_cluster')::int AS per_cluster, (spec->>'concurrency')::int AS most
        FROM rollout WHERE id = %(rollout)s),
    jobs AS MATERIALIZED (
      SELECT subject, lock FROM job WHERE state = 'running' AND kind = 'member'
      UNION ALL
      SELECT subject, lock FROM job WHERE state = 'waiting' AND kind = 'member'),
    busy AS MATERIALIZED (
      SELECT t.cluster_id, count(*) AS n FROM jobs
        JOIN rollout_member t ON t.rollout_id = split_part(subject, '/', 1)::bigint
         AND t.tenant_id = split_part(subject, '/', 2)
       WHERE t.rollout_id = %(rollout)s GROUP BY 1),
    shut AS MATERIALIZED (
      SELECT cluster_id FROM busy WHERE n >= (SELECT per_cluster FROM r)
      UNION ALL
      SELECT cluster_id FROM rollout_snapshot WHERE rollout_id = %(rollout)s AND state = 'making'),
    moving AS MATERIALIZED (
      SELECT tenant_id FROM transfer WHERE {being_made}),
    due AS (
      SELECT w.cluster_id, w.tenant_id FROM (
        SELECT cluster_id, tenant_id, wave, 'database:' || tenant_id AS lock, 'long' AS lane, 'member' AS kind
          FROM rollout_member WHERE rollout_id = %(rollout)s AND state = 'pending') AS w
       WHERE w.wave <= (SELECT wave FROM r) AND w.cluster_id NOT IN (SELECT cluster_id FROM shut)
         AND w.tenant_id NOT IN (SELECT tenant_id FROM moving)
         AND w.lock NOT IN (SELECT lock FROM jobs) {not_frozen}
       ORDER BY w.wave, w.tenant_id LIMIT (SELECT %(look_ahead)s * most FROM r))
    SELECT cluster_id, NULL AS tenant_id, n, 0 AS turn FROM busy
    UNION ALL
    (SELECT cluster_id, tenant_id, 0, turn FROM (
      SELECT cluster_id, tenant_id, row_number() OVER (PARTITION BY cluster_id ORDER BY tenant_id) AS turn
        FROM due) AS c
     WHERE turn <= (SELECT per_cluster FROM r)
     ORDER BY turn, cluster_id LIMIT (SELECT most FROM r))
""").format(ice=job.ICE, not_frozen=job.NOT_FROZEN, being_made=BEING_MADE)


# ------------------------------------------------------------------------------------ enrolment


def candidates(conn: Connection, release: str, *, rollout_id: int | None = None) -> list[FleetTenant]:
    """The tenants that have served and whose release is older, by id; without those that this rollout
    has already. A tenant that is still to be made gets its release then."""
    rows = conn.execute(
        "SELECT t.id, t.slug FROM tenant t JOIN placement p ON p.tenant_id = t.id AND p.state = 'current'"
        " WHERE t.spec->>'lifecycle' <> 'closed' AND t.ready_at IS NOT NULL"
        "   AND (t.release IS NULL OR t.release < %(release)s)"
        "   AND NOT EXISTS (SELECT FROM rollout_member r"
        "                    WHERE r.rollout_id = %(rollout)s AND r.tenant_id = t.id)"
        " ORDER BY t.id",
        {"release": release, "rollout": rollout_id},
    )
    return [FleetTenant(row["id"], row["slug"]) for row in rows]


def enrol(conn: Connection, rollout_id: int, waves: dict[str, int]) -> int:
    """`waves`: tenant id → wave."""
    return conn.execute(
        "INSERT INTO rollout_member (rollout_id, tenant_id, wave, cluster_id, from_release)"
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
        "UPDATE rollout_member r SET state = 'pending', was_closed = false, error = NULL,"
        " finished_at = NULL"
        "  FROM tenant t, rollout o"
        " WHERE r.rollout_id = %s AND o.id = r.rollout_id AND t.id = r.tenant_id AND r.state = 'skipped'"
        "   AND r.was_closed AND t.spec->>'lifecycle' <> 'closed' AND t.ready_at IS NOT NULL"
        "   AND (t.release IS NULL OR t.release < o.release)"
        "   AND EXISTS (SELECT FROM placement p WHERE p.tenant_id = t.id AND p.state = 'current')"
        " RETURNING r.tenant_id",
        [rollout_id],
    )
    return len(taken.fetchall())  # in a pipeline a rowcount is not known yet


# ---------------------------------------------------------------------------------------- starts


def turn(conn: Connection, rollout_id: int) -> tuple[RolloutRow, dict[str, int], list[Candidate]]:
    """Lock the rollout; (its row, cluster → members that are under way on it, who may be started next), for
    `domain.rollout.next_batch`. Two statements, since the second must see what whoever held the lock has
    committed; in a pipeline they are one round trip.

    Under way is what has a job, one that waits for its next attempt too. Of each cluster no more are listed
    than may run on it, the clusters in turn, and none while it is full or a snapshot of it is in the making;
    nor who is moving or frozen. What it costs does not grow with the number of members.
    """
    locked = rollout.lock(conn, rollout_id)
    listed = conn.execute(_STARTABLE, {"rollout": rollout_id, "look_ahead": _LOOK_AHEAD})
    row = rollout.locked_row(locked, rollout_id)
    rows = listed.fetchall()
    running = {r["cluster_id"]: r["n"] for r in rows if r["tenant_id"] is None}
    waiting = sorted((r for r in rows if r["tenant_id"] is not None), key=lambda r: r["turn"])
    return row, running, [Candidate(r["tenant_id"], r["cluster_id"]) for r in waiting]


_BEGIN = SQL("""
    WITH mine AS (
      SELECT id, split_part(subject, '/', 2) AS tenant_id FROM job
       WHERE kind = 'member' AND subject = ANY(%(subjects)s)
         AND state = 'running' AND holder = %(holder)s),
    found AS (
      SELECT mine.id, r.tenant_id, t.spec->>'lifecycle' AS lifecycle, p.id AS placement, p.cluster_id,
             c.endpoint,
             EXISTS (SELECT FROM transfer WHERE tenant_id = r.tenant_id AND {being_made})
             OR EXISTS (SELECT FROM rollout_snapshot s WHERE s.rollout_id = r.rollout_id
                         AND s.cluster_id = p.cluster_id AND s.state = 'making') AS waits
        FROM mine JOIN rollout_member r ON r.rollout_id = %(rollout)s AND r.tenant_id = mine.tenant_id
        JOIN tenant t ON t.id = r.tenant_id
        LEFT JOIN placement p ON p.tenant_id = r.tenant_id AND p.state = 'current'
        LEFT JOIN cluster c ON c.id = p.cluster_id
       WHERE r.state IN ('pending', 'running')),
    gone AS (
      UPDATE rollout_member r SET state = 'skipped', error = CASE f.lifecycle
               WHEN 'closed' THEN 'the tenant was closed' ELSE 'the tenant has no database' END,
             was_closed = f.lifecycle = 'closed', finished_at = clock_timestamp()
        FROM found f WHERE r.rollout_id = %(rollout)s AND r.tenant_id = f.tenant_id
         AND NOT f.waits AND (f.lifecycle = 'closed' OR f.endpoint IS NULL)),
    later AS (
      UPDATE rollout_member r SET state = 'pending'
        FROM found f WHERE r.rollout_id = %(rollout)s AND r.tenant_id = f.tenant_id AND f.waits),
    begun AS (
      UPDATE rollout_member r
         SET state = 'running', cluster_id = f.cluster_id,
             started_at = coalesce(r.started_at, clock_timestamp()),
             file = NULL, statement = NULL, error = NULL
        FROM found f WHERE r.rollout_id = %(rollout)s AND r.tenant_id = f.tenant_id
         AND NOT f.waits AND f.lifecycle <> 'closed' AND f.endpoint IS NOT NULL
      RETURNING r.rollout_id, r.tenant_id, f.placement, f.cluster_id, f.endpoint, f.id),
    ended AS (
      DELETE FROM job USING mine WHERE job.id = mine.id AND mine.id NOT IN (SELECT id FROM begun))
    SELECT rollout_id, tenant_id, placement, cluster_id, endpoint FROM begun
""").format(being_made=BEING_MADE)


def begin(conn: Connection, rollout_id: int, subjects: Sequence[str], *, holder: str) -> Cursor[Member]:
    """→ running, of those of these that the holder has a running job of. A tenant that was closed meanwhile
    is skipped on the way, one that moved is taken where it lives now, and one that is just moving, or whose
    cluster has a snapshot in the making, is pending until that is over; their jobs end here."""
    return query(
        conn,
        Member,
        _BEGIN,
        {"rollout": rollout_id, "subjects": list(subjects), "holder": holder},
    )


# -------------------------------------------------------------------------------------- outcomes

_FINISH = SQL("""
    WITH ended AS ({finishing}),
    done AS (
      UPDATE rollout_member r SET state = 'done', seconds = o.seconds, finished_at = clock_timestamp()
        FROM ended
        JOIN unnest(%(subjects)s::text[], %(seconds)s::float8[]) AS o (subject, seconds) USING (subject)
       WHERE r.rollout_id = %(rollout)s AND r.tenant_id = split_part(o.subject, '/', 2)
         AND r.state = 'running'
      RETURNING r.tenant_id),
    older AS (
      SELECT t.id FROM tenant t JOIN done ON done.tenant_id = t.id
       WHERE t.release IS NULL OR t.release < %(release)s ORDER BY t.id FOR NO KEY UPDATE OF t),
    raised AS (
      UPDATE tenant t SET release = %(release)s FROM older WHERE t.id = older.id RETURNING t.id AS subject)
    {ensure}
""").format(finishing=job.FINISHING, ensure=job.ensuring("raised"))


def finish(conn: Connection, rollout_id: int, outcomes: Sequence[Outcome], *, release: str) -> None:
    """running → done, and their jobs end; the tenants have the rollout's release now, and their operations
    are asked to publish it. Passes over those that are another holder's by now: that one records them. One
    statement, for which no pipeline has to wait."""
    ended = {
        "rollout": rollout_id,
        "release": release,
        "subjects": [o.job.subject for o in outcomes],
        "seconds": [o.seconds for o in outcomes],
    }
    ended |= {"jobs": [o.job.id for o in outcomes], "tokens": [o.job.fencing_token for o in outcomes]}
    conn.execute(_FINISH, ended | job.values(JobKind.TENANT, reason=f"release {release}", actor="rollout"))


def fail(conn: Connection, held: Job, *, file: str, statement: str, error: str) -> None:
    """→ failed, or skipped where the tenant was closed meanwhile. The job's guard is the caller's; raises
    LeaseLost where it is not under way all the same."""
    rollout_id, tenant_id = member_of(held.subject)
    closed = exists(conn, "SELECT FROM tenant WHERE id = %s AND spec->>'lifecycle' = 'closed'", [tenant_id])
    transition(
        conn,
        "rollout_member",
        {"tenant_id": tenant_id, "rollout_id": rollout_id},
        MemberState.SKIPPED if closed else MemberState.FAILED,
        "finished_at = clock_timestamp(), was_closed = %(closed)s,"
        " seconds = extract(epoch FROM clock_timestamp() - started_at),"
        " file = nullif(%(file)s, ''), statement = nullif(%(statement)s, ''), error = %(message)s",
        error=LeaseLost,
        sources=[MemberState.RUNNING, MemberState.PENDING],
        closed=closed,
        file=file[:200],
        statement=statement[:500],
        message=f"{'the tenant was closed; ' if closed else ''}{error[:500]}",
    )


def put_back(conn: Connection, held: Job, *, error: str | None = None) -> None:
    """→ pending, where it is under way: it is begun again later, by this job or another. `error`: why, None
    where nothing was wrong. The job's guard is the caller's."""
    rollout_id, tenant_id = member_of(held.subject)
    conn.execute(
        "UPDATE rollout_member SET state = 'pending', error = coalesce(%s, error)"
        " WHERE rollout_id = %s AND tenant_id = %s AND state IN ('pending', 'running')",
        [error and error[:500], rollout_id, tenant_id],
    )


def retry(conn: Connection, rollout_id: int, tenant_ids: Sequence[str] | None) -> int:
    """failed → pending, of these tenants or of all; how many."""
    return conn.execute(
        "UPDATE rollout_member SET state = 'pending', finished_at = NULL"
        " WHERE rollout_id = %(id)s AND state = 'failed'"
        " AND (%(tenants)s::text[] IS NULL OR tenant_id = ANY(%(tenants)s))",
        {"id": rollout_id, "tenants": None if tenant_ids is None else list(tenant_ids)},
    ).rowcount


def skip(conn: Connection, rollout_id: int, tenant_ids: Sequence[str], *, reason: str) -> int:
    """pending or failed → skipped; how many. What failed is still reported."""
    rows = column(
        conn,
        "UPDATE rollout_member SET state = 'skipped', finished_at = clock_timestamp(),"
        " error = concat_ws('; ', %s::text, error)"
        " WHERE rollout_id = %s AND tenant_id = ANY(%s) AND state IN ('pending', 'failed')"
        " RETURNING rollout_id || '/' || tenant_id",
        [f"skipped: {reason[:200]}", rollout_id, list(tenant_ids)],
    )
    job.withdraw(conn, JobKind.MEMBER, rows)
    return len(rows)


def leave_behind(conn: Connection, rollout_id: int, tenant_id: str | None = None) -> None:
    """pending → stale, of this tenant or of all, at an abort."""
    rows = column(
        conn,
        "UPDATE rollout_member SET state = 'stale', finished_at = clock_timestamp()"
        " WHERE rollout_id = %(id)s AND state = 'pending'"
        " AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) RETURNING rollout_id || '/' || tenant_id",
        {"id": rollout_id, "tenant": tenant_id},
    )
    job.withdraw(conn, JobKind.MEMBER, rows)


# -------------------------------------------------------------------------------------- reading


def counts(conn: Connection, rollout_id: int, *, up_to_wave: int | None = None) -> Counts:
    rows = conn.execute(
        "SELECT state, count(*) AS n FROM rollout_member WHERE rollout_id = %(id)s"
        " AND (%(wave)s::int IS NULL OR wave <= %(wave)s) GROUP BY state",
        {"id": rollout_id, "wave": up_to_wave},
    )
    return Counts(**{row["state"]: row["n"] for row in rows})


def is_open(conn: Connection, rollout_id: int, *, up_to_wave: int) -> bool:
    """Is one of these waves' members pending or running?"""
    return exists(
        conn,
        "SELECT WHERE EXISTS (SELECT FROM rollout_member"
        "                WHERE rollout_id = %(id)s AND wave <= %(wave)s AND state = 'running')"
        "    OR EXISTS (SELECT FROM rollout_member"
        "                WHERE rollout_id = %(id)s AND wave <= %(wave)s AND state = 'pending')",
        {"id": rollout_id, "wave": up_to_wave},
    )


def by_wave(conn: Connection, rollout_id: int) -> list[WaveRow]:
    return select(
        conn,
        WaveRow,
        "FROM (SELECT wave, state, count(*) AS n, min(started_at) AS began, max(finished_at) AS ended"
        "        FROM rollout_member WHERE rollout_id = %s GROUP BY wave, state) s"
        " GROUP BY wave ORDER BY wave",
        [rollout_id],
    ).fetchall()


def failures(conn: Connection, rollout_id: int) -> list[FailureRow]:
    """Grouped, the most frequent first."""
    return select(
        conn,
        FailureRow,
        "FROM rollout_member WHERE rollout_id = %s AND state = 'failed'"
        " GROUP BY file, statement, error ORDER BY tenants DESC, error LIMIT 100",
        [rollout_id],
    ).fetchall()


def page(
    conn: Connection, rollout_id: int, *, after: str | None, limit: int, state: str | None = None
) -> list[MemberRow]:
    """By tenant id, those behind `after`."""
    return select(
        conn,
        MemberRow,
        "FROM rollout_member t JOIN tenant ON tenant.id = t.tenant_id"
        " LEFT JOIN job ON job.kind = 'member' AND job.subject = t.rollout_id || '/' || t.tenant_id"
        " WHERE t.rollout_id = %(id)s AND (%(after)s::text IS NULL OR t.tenant_id > %(after)s)"
        " AND (%(state)s::text IS NULL OR t.state = %(state)s) ORDER BY t.tenant_id LIMIT %(limit)s",
        {"id": rollout_id, "after": after, "limit": limit, "state": state},
        table="t",
    ).fetchall()


def named(conn: Connection, rollout_id: int, names: Sequence[str]) -> list[str]:
    """The ids of these members, named by id or slug. Raises NotFound for one that is none."""
    rows = conn.execute(
        "SELECT t.tenant_id, tenant.slug FROM rollout_member t JOIN tenant ON tenant.id = t.tenant_id"
        " WHERE t.rollout_id = %(id)s AND (t.tenant_id = ANY(%(names)s) OR tenant.slug = ANY(%(names)s))",
        {"id": rollout_id, "names": list(names)},
    ).fetchall()
    known: dict[str, Any] = {row["slug"]: row["tenant_id"] for row in rows}
    known |= {row["tenant_id"]: row["tenant_id"] for row in rows}
    for name in names:
        if name not in known:
            raise NotFound(f"tenant {name} is no member of rollout {rollout_id}")
    return sorted({known[name] for name in names})


def timeline(conn: Connection, rollout_id: int) -> list[tuple[datetime, datetime, int, str]]:
    """(started, finished, wave, state) of those that ended, in that order: what a plot needs."""
    rows = conn.execute(
        "SELECT started_at, finished_at, wave, state FROM rollout_member"
        " WHERE rollout_id = %s AND started_at IS NOT NULL AND finished_at IS NOT NULL ORDER BY finished_at",
        [rollout_id],
    )
    return [(r["started_at"], r["finished_at"], r["wave"], r["state"]) for r in rows]
