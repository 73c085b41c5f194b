"""The one queue: ask for work, claim it, hold it, end it.

Whoever asks while a job waits is served by that one, so it has a cause for each of them, and the first gives
it its reason. The event or the request in whose course it was asked for is known to whoever handles that,
not to the dozen services between: they name it once, with `caused_by`.

`claim` takes the most urgent job that is due, by one probe of an index for each class: what it costs does not
hang on how many wait. The fencing token is drawn from one sequence at every claim, and `guard` at the head of
each of the holder's transactions refuses the write once somebody else has claimed. `start` is for what is
chosen elsewhere and does not wait at all. The guard locks the row FOR
SHARE, so that a take-over waits for the transaction; FOR KEY SHARE would let it pass. Time is the database's
and, where something is looked for, `now()`: `clock_timestamp()` is volatile and no index leads to it. The
worker's own clock decides nothing but when to give up by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, LiteralString

from psycopg import Cursor, errors
from psycopg.sql import SQL, Composed, Identifier

from controlplane.domain.errors import LeaseLost
from controlplane.domain.job import (
    CLOCK,
    TERMS,
    Job,
    JobKind,
    Lane,
    OperationState,
    Priority,
    Trouble,
    priority_of,
)
from controlplane.store.registry import Connection, column, exists, query

MOST_CAUSES = 50
"""That are kept of one job: the first, which gives it its reason, and the newest others."""
RETRIES = 3
"""Of a statement that met another claimer on a unique index."""


@dataclass(frozen=True, slots=True)
class Course:
    """In which jobs are asked for. `event`, `request`: the billing event or API request (an id each) that is
    their cause. `lanes`: those that have work now, to be notified once it is committed."""

    event: str | None = None
    request: str | None = None
    lanes: set[Lane] = field(default_factory=set)


_course: ContextVar[Course | None] = ContextVar("course", default=None)


@contextmanager
def caused_by(*, event: str | None = None, request: str | None = None) -> Iterator[set[Lane]]:
    """What is asked for within has this cause; yields the lanes that have work now (see `Course`)."""
    outer = _course.get() or Course()
    course = Course(event or outer.event, request or outer.request)
    before = _course.set(course)
    try:
        yield course.lanes
    finally:
        _course.reset(before)
        outer.lanes.update(course.lanes)


def has_work(*lanes: Lane) -> None:
    """They are notified once what is done now is committed."""
    course = _course.get()
    if course is not None:
        course.lanes.update(lanes)


# ----------------------------------------------------------------------------------------- asking


def _bounded(causes: LiteralString) -> Composed:
    """The first of these causes and the newest others."""
    return SQL(
        "CASE WHEN jsonb_array_length({causes}) <= {most} THEN {causes} ELSE"
        " jsonb_build_array({causes}->0) || jsonb_path_query_array({causes}, {newest}) END"
    ).format(causes=SQL(causes), most=MOST_CAUSES, newest=f"$[last-{MOST_CAUSES - 2} to last]")


def ensuring(subjects: LiteralString) -> Composed:
    """The statement that ensures a waiting job for each `subject` of these rows (what follows FROM), with
    `values`; returns their ids."""
    return SQL(
        "INSERT INTO job (kind, subject, lock, lane, priority, causes, cause_count, due_at)"
        " SELECT %(kind)s, subject, coalesce(%(lock)s, subject), %(lane)s, %(priority)s,"
        "  CASE WHEN %(counts)s THEN jsonb_build_array(jsonb_build_object('reason', %(reason)s::text,"
        "   'actor', %(actor)s::text, 'event', %(event)s::text, 'request', %(request)s::text,"
        "   'at', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')))"
        "   ELSE '[]' END,"
        "  CASE WHEN %(counts)s THEN 1 ELSE 0 END, clock_timestamp() + make_interval(secs => %(after)s)"
        " FROM {subjects}"
        " ON CONFLICT (kind, subject) WHERE state = 'waiting'"
        " DO UPDATE SET due_at = least(job.due_at, clock_timestamp()), attempts = 0,"
        "  priority = least(job.priority, excluded.priority),"
        "  causes = {causes}, cause_count = job.cause_count + excluded.cause_count"
        " RETURNING id"
    ).format(subjects=SQL(subjects), causes=_bounded("(job.causes || excluded.causes)"))


_ENSURE = ensuring("unnest(%(subjects)s::text[]) AS subject")


def values(
    kind: JobKind,
    *,
    reason: str | None = None,
    actor: str = CLOCK,
    lock: str | None = None,
    after: float = 0.0,
) -> dict[str, Any]:
    """What `ensuring` takes, but for the subjects."""
    course = _course.get() or Course()
    lane = TERMS[kind].lane
    if after <= 0:
        has_work(lane)
    return {
        "kind": kind,
        "lock": lock,
        "lane": lane,
        "priority": int(priority_of(actor)),
        "reason": None if reason is None else reason[:200],
        "actor": actor,
        "event": course.event,
        "request": course.request,
        "counts": reason is not None,
        "after": after,
    }


def ensure(conn: Connection, kind: JobKind, subject: str, **asked: Any) -> int:
    """Ensure that one job waits, due now or `after` seconds from now; its id. One that waits already is
    brought forward to now and keeps this cause beside its own. See `ensure_all`."""
    [job_id] = ensure_all(conn, kind, [subject], **asked)
    return job_id


def ensure_all(
    conn: Connection,
    kind: JobKind,
    subjects: Iterable[str],
    *,
    reason: str | None = None,
    actor: str = CLOCK,
    lock: str | None = None,
    after: float = 0.0,
) -> list[int]:
    """As `ensure`, for each of these. `reason` None: the clock asks, which is no cause. `lock`: what it must
    have to itself, where that is not its subject."""
    asked = values(kind, reason=reason, actor=actor, lock=lock, after=after)
    return column(conn, _ENSURE, {**asked, "subjects": sorted(subjects)})


def keep_due(conn: Connection, kind: JobKind) -> None:
    """Ensure that there is one of this kind that is due by the clock, waiting or running."""
    conn.execute(
        "INSERT INTO job (kind, subject, lock, lane, priority)"
        " SELECT %(kind)s, %(kind)s, %(kind)s, %(lane)s, %(priority)s"
        "  WHERE NOT EXISTS (SELECT FROM job WHERE subject = %(kind)s)"
        " ON CONFLICT DO NOTHING",
        {"kind": kind, "lane": TERMS[kind].lane, "priority": int(Priority.ROUTINE)},
    )


def bring_forward(conn: Connection, kind: JobKind, subjects: Sequence[str]) -> list[str]:
    """Make the waiting jobs of these due now; which had one."""
    has_work(*Lane)
    return column(
        conn,
        "UPDATE job SET due_at = clock_timestamp()"
        " WHERE kind = %s AND subject = ANY(%s) AND state = 'waiting' RETURNING subject",
        [kind, list(subjects)],
    )


# --------------------------------------------------------------------------------------- claiming

_COLUMNS = SQL(", ").join(Identifier("job", f.name) for f in fields(Job) if f.name != "orphan")
_CLASSES = sorted(int(priority) for priority in Priority)
ICE = SQL(
    "ice AS MATERIALIZED (SELECT scope FROM hold"
    " WHERE kind = 'freeze' AND lifted_at IS NULL AND ends_at > now())"
)
"""What `NOT_FROZEN` compares with: an entry of the statement's WITH."""
NOT_FROZEN = SQL("""
           AND NOT EXISTS (SELECT FROM ice WHERE scope = 'all')
           AND NOT EXISTS (SELECT FROM ice
             WHERE ice.scope = split_part(w.lock, ':', -1)
                OR (ice.scope = 'terraform' AND w.lane = 'long'
                    AND w.kind IN ('tenant', 'cluster', 'preview'))
                OR EXISTS (SELECT FROM placement p WHERE p.tenant_id = split_part(w.lock, ':', -1)
                            AND p.cluster_id = ice.scope AND p.state <> 'purged'))""")
"""Of rows `w` with a kind, a lane and a lock. A tenant's freeze covers its own lock and that of its database,
"database:<tenant id>". The first of the two conditions holds for all rows at once, so that a frozen fleet
reads none of them."""


_CLAIM = SQL("""
    WITH {ice},
    next AS MATERIALIZED (
      SELECT found.id FROM unnest(%(classes)s::smallint[]) AS class (priority)
       CROSS JOIN LATERAL (
        SELECT w.id, w.due_at FROM job w
         WHERE w.state = 'waiting' AND w.lane = %(lane)s AND w.priority = class.priority
           AND w.due_at <= now() AND w.kind = ANY(%(kinds)s) {only} {not_frozen}
           AND NOT EXISTS (SELECT FROM job r WHERE r.lock = w.lock AND r.state = 'running')
         ORDER BY w.due_at, w.id LIMIT 1 FOR UPDATE OF w SKIP LOCKED) AS found
       {order} LIMIT 1)
    UPDATE job SET state = 'running', holder = %(holder)s, fencing_token = nextval('fencing_token'),
           attempts = attempts + 1, lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
           started_at = coalesce(started_at, clock_timestamp())
      FROM next WHERE job.id = next.id
    RETURNING {columns}, false AS orphan
""")
"""Without an order the probes are made one after the other and the first that finds a job ends the search:
the classes are given in their order."""
_TAKE_OVER = SQL("""
    WITH {ice},
    died AS MATERIALIZED (
      SELECT id FROM job w WHERE state = 'running' AND lease_until < now() AND lane = %(lane)s
         AND kind = ANY(%(kinds)s) {only} {not_frozen}
       ORDER BY priority, lease_until LIMIT 1 FOR UPDATE SKIP LOCKED),
    abandoned AS (
      UPDATE step SET state = 'abandoned', finished_at = clock_timestamp()
        FROM died WHERE operation_id = died.id AND step.state = 'running')
    UPDATE job SET holder = %(holder)s, fencing_token = nextval('fencing_token'), attempts = attempts + 1,
           lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
      FROM died WHERE job.id = died.id
    RETURNING {columns}, true AS orphan
""")


@cache
def _statement(*, dead: bool, one_subject: bool, oldest: bool) -> Composed:
    """Put together once: a claim is made for every job, and by every idle slot once a second."""
    return (_TAKE_OVER if dead else _CLAIM).format(
        columns=_COLUMNS,
        ice=ICE,
        not_frozen=NOT_FROZEN,
        only=SQL("AND w.subject = %(subject)s" if one_subject else ""),
        order=SQL("ORDER BY found.due_at" if oldest else ""),
    )


def claim(
    conn: Connection,
    lane: Lane,
    *,
    holder: str,
    seconds: float,
    kinds: Iterable[JobKind] = JobKind,
    subject: str | None = None,
    oldest: bool = False,
) -> Job | None:
    """The next job of these kinds that is due, held for `seconds`; None where nothing is. Rows that another
    claimer has locked are skipped, so no worker ever queues behind another. `oldest`: whatever its class.
    `subject`: of this one only."""
    asked = {
        "lane": lane,
        "classes": _CLASSES,
        "kinds": list(kinds),
        "subject": subject,
        "holder": holder,
        "seconds": seconds,
    }
    statement = _statement(dead=False, one_subject=subject is not None, oldest=oldest)
    for _ in range(RETRIES):
        try:
            return query(conn, Job, statement, asked).fetchone()
        except errors.UniqueViolation:  # another claimer took a job with the same lock at this moment
            continue
    return None


def take_over(
    conn: Connection,
    lane: Lane,
    *,
    holder: str,
    seconds: float,
    kinds: Iterable[JobKind] = JobKind,
    subject: str | None = None,
) -> Job | None:
    """A job whose holder let its lease run out; None where nobody died. What it was at is abandoned."""
    asked = {"lane": lane, "kinds": list(kinds), "subject": subject, "holder": holder, "seconds": seconds}
    statement = _statement(dead=True, one_subject=subject is not None, oldest=False)
    return query(conn, Job, statement, asked).fetchone()


_START = SQL("""
    WITH {ice}
    INSERT INTO job (kind, subject, lock, lane, priority, state, attempts, fencing_token, holder, lease_until,
                     started_at)
    SELECT w.kind, w.subject, w.lock, w.lane, %(priority)s, 'running', 1, nextval('fencing_token'),
           %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s), clock_timestamp()
      FROM (SELECT %(kind)s::text AS kind, %(lane)s::text AS lane, subject, lock
              FROM unnest(%(subjects)s::text[], %(locks)s::text[]) AS asked (subject, lock)) AS w
     WHERE NOT EXISTS (SELECT FROM job o WHERE o.kind = w.kind AND o.subject = w.subject) {not_frozen}
    ON CONFLICT DO NOTHING
    RETURNING {columns}, false AS orphan
""").format(ice=ICE, not_frozen=NOT_FROZEN, columns=_COLUMNS)


def start(
    conn: Connection,
    kind: JobKind,
    locks: Mapping[str, str],
    *,
    holder: str,
    seconds: float,
    actor: str = CLOCK,
) -> Cursor[Job]:
    """Begin a job for each subject at once, without one that waits first, and hold it for `seconds`. `locks`:
    subject → what it must have to itself. Left out are those of which there is a job, whose lock another job
    has, and that a freeze covers. It waits for nobody but who takes the same lock at this moment.

    What is handed back says which were begun; within a pipeline it is fetched after what follows."""
    asked = {
        "kind": kind,
        "lane": TERMS[kind].lane,
        "priority": int(priority_of(actor)),
        "subjects": sorted(locks, key=locks.__getitem__),
        "locks": sorted(locks.values()),
        "holder": holder,
        "seconds": seconds,
    }
    return query(conn, Job, _START, asked)


def is_open(conn: Connection, kind: JobKind, subject: str) -> bool:
    """Whether one waits or runs, of a kind whose lock is its subject."""
    return exists(
        conn,
        "SELECT FROM job WHERE (state = 'waiting' AND kind = %(kind)s AND subject = %(subject)s)"
        " OR (state = 'running' AND kind = %(kind)s AND lock = %(subject)s)",
        {"kind": kind, "subject": subject},
    )


def is_running(conn: Connection, lock: str) -> bool:
    """Is a job at what this lock is for?"""
    return exists(conn, "SELECT FROM job WHERE lock = %s AND state = 'running'", [lock])


# ---------------------------------------------------------------------------------------- holding


def beat(
    conn: Connection,
    holder: str,
    tokens: Sequence[int],
    *,
    lanes: Sequence[Lane],
    version: str,
    seconds: float,
) -> set[int]:
    """This process lives, and the leases of these fencing tokens last `seconds` from now; those that are
    still its own and that no freeze interrupts. In one statement that touches no index of `job`."""
    return set(
        column(
            conn,
            _BEAT,
            {
                "holder": holder,
                "tokens": list(tokens),
                "lanes": list(lanes),
                "version": version,
                "seconds": seconds,
            },
        )
    )


_BEAT = SQL("""
    WITH alive AS (
      INSERT INTO process (id, lanes, version) VALUES (%(holder)s, %(lanes)s, %(version)s)
      ON CONFLICT (id) DO UPDATE SET heartbeat_at = clock_timestamp(), lanes = excluded.lanes),
    ice AS MATERIALIZED (
      SELECT scope FROM hold WHERE kind = 'freeze' AND lifted_at IS NULL AND ends_at > now() AND interrupts)
    UPDATE job w SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
     WHERE holder = %(holder)s AND state = 'running' AND fencing_token = ANY(%(tokens)s) {not_frozen}
    RETURNING fencing_token
""").format(not_frozen=NOT_FROZEN)


def guard(conn: Connection, held: Job) -> None:
    """Within a transaction: refuse to write for a holder that has been superseded (I3)."""
    if not exists(
        conn,
        "SELECT FROM job WHERE id = %s AND fencing_token = %s AND state = 'running' FOR SHARE",
        [held.id, held.fencing_token],
    ):
        raise lost(held)


def lost(held: Job) -> LeaseLost:
    return LeaseLost(
        f"{held.kind} {held.subject}: fencing token {held.fencing_token} is no longer the newest"
    )


# ----------------------------------------------------------------------------------------- ending

_FINISH = """
    WITH gone AS (
      DELETE FROM job WHERE id = %(id)s AND fencing_token = %(token)s AND state = 'running' RETURNING *),
    kept AS (
      INSERT INTO job_history (id, kind, subject, state, attempts, fencing_token, causes, cause_count,
                               absorbed, error, runbook, created_at, started_at)
      SELECT id, kind, subject, %(state)s, attempts, fencing_token, causes, cause_count,
             absorbed, %(error)s, %(runbook)s, created_at, started_at FROM gone WHERE %(recorded)s)
    SELECT FROM gone
"""


def finish(conn: Connection, held: Job, *, recorded: bool | None = None) -> None:
    """It is done. Raises LeaseLost where it is another holder's by now. `recorded`: whether it is kept for
    people, where its kind is."""
    kept = held.terms.recorded if recorded is None else recorded
    _end(conn, held, OperationState.DONE, error=None, runbook=None, recorded=kept)


def park(conn: Connection, held: Job, trouble: Trouble) -> None:
    """It is given up. Raises as `finish`."""
    _end(
        conn,
        held,
        OperationState.PARKED,
        error=trouble.message,
        runbook=trouble.runbook,
        recorded=held.terms.recorded,
    )


FINISHING = SQL(
    "DELETE FROM job j USING unnest(%(jobs)s::bigint[], %(tokens)s::bigint[]) AS held (id, token)"
    " WHERE j.id = held.id AND j.fencing_token = held.token AND j.state = 'running' RETURNING j.subject"
)
"""`finish` of many, for the statement that records what came of them: the subjects of those that are not
another holder's by now. Of a kind that is not kept for people. `jobs`, `tokens`: ids and fencing tokens."""


def withdraw(conn: Connection, kind: JobKind, subjects: Sequence[str]) -> None:
    """What waits of these is not to be done any more. Who has claimed one finds out by itself."""
    conn.execute(
        "DELETE FROM job WHERE kind = %s AND subject = ANY(%s) AND state = 'waiting'",
        [kind, list(subjects)],
    )


def _end(
    conn: Connection,
    held: Job,
    state: OperationState,
    *,
    error: str | None,
    runbook: str | None,
    recorded: bool,
) -> None:
    ended = {"id": held.id, "token": held.fencing_token, "state": state, "error": error}
    if not exists(conn, SQL(_FINISH), {**ended, "runbook": runbook, "recorded": recorded}):
        raise lost(held)


_PUT_BACK = SQL(
    "WITH newer AS ("
    "  DELETE FROM job w USING job r WHERE r.id = %(id)s AND r.fencing_token = %(token)s"
    "   AND r.state = 'running' AND w.kind = r.kind AND w.subject = r.subject AND w.state = 'waiting'"
    "  RETURNING w.id, w.causes, w.cause_count, w.priority, w.due_at, w.absorbed),"
    " fold AS (SELECT count(*) AS n, coalesce(max(cause_count), 0) AS cause_count, min(priority) AS priority,"
    "  min(due_at) AS due_at, coalesce((SELECT causes FROM newer), '[]') AS causes,"
    "  coalesce((SELECT absorbed || id FROM newer), '{{}}') AS absorbed FROM newer)"
    " UPDATE job SET state = 'waiting', holder = NULL, lease_until = NULL, error = %(error)s,"
    "  attempts = CASE WHEN fold.n > 0 OR %(anew)s THEN 0 ELSE attempts - %(undone)s END,"
    "  due_at = least(clock_timestamp() + make_interval(secs => %(after)s), fold.due_at),"
    "  priority = least(job.priority, fold.priority), lane = coalesce(%(lane)s, lane),"
    "  causes = {causes}, cause_count = job.cause_count + fold.cause_count,"
    "  absorbed = job.absorbed || fold.absorbed"
    " FROM fold WHERE id = %(id)s AND fencing_token = %(token)s AND job.state = 'running' RETURNING fold.n"
).format(causes=_bounded("(job.causes || fold.causes)"))


def put_back(
    conn: Connection,
    held: Job,
    *,
    after: float,
    error: str | None = None,
    counts: bool = False,
    anew: bool = False,
    lane: Lane | None = None,
) -> bool:
    """Running → waiting, due after that many seconds. One that waits already is folded into it, with its
    causes; True where there was one, which makes it due when that was. Raises LeaseLost as `finish`.

    `counts`: whether this was an attempt (False for Pending: nothing was wrong). `anew`: it is for the next
    time, and earlier attempts do not count. `lane`: where it goes on.
    """
    asked = {
        "id": held.id,
        "token": held.fencing_token,
        "error": error,
        "undone": 0 if counts else 1,
        "anew": anew,
        "after": after,
        "lane": lane,
    }
    if lane is not None:
        has_work(lane)
    for _ in range(RETRIES):
        try:
            with conn.transaction():
                row = conn.execute(_PUT_BACK, asked).fetchone()
        except errors.UniqueViolation:  # somebody asked for another one at this moment
            continue
        if row is None:
            raise lost(held)
        return bool(row["n"])
    raise lost(held)
