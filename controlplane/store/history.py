"""How long history is kept, so that the registry does not grow without end (I10).

Operations that ended well are for people who ask what happened lately; what was changed by whom is in
the audit trail, which is never pruned. A periodic observation that found everything as it should be is no
history at all: at one look an hour ten thousand tenants make 240,000 of them a day, so it goes when it
settles. Bodies of handled events go after Stripe itself has forgotten them (30 days), with a margin; the
event's row stays for a year more, so that a very late duplicate is still a duplicate. After that a duplicate
is one more look at the subscription as it is now.

What waits for a person is never removed: events that are parked, and the newest parked operation of a tenant
or cluster, which says why it needs attention.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from controlplane.domain.job import Job
from controlplane.store.registry import Connection, exists

KEEP_LOOKS_DAYS = 2
KEEP_OPERATIONS_DAYS = 90
KEEP_BODIES_DAYS = 60
KEEP_EVENTS_DAYS = 425
KEEP_NOTIFICATIONS_DAYS = 90
KEEP_PREVIEWS_DAYS = 30
KEEP_PROCESSES_DAYS = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of `table` that are `days` old by their column `since` and that meet `condition`; `remove` does
    away with those of the given ids."""

    table: str
    days: int
    since: str
    condition: str
    remove: tuple[str, ...]


_HANDLED = "state IN ('applied', 'ignored')"
_WITH_ITS_STEPS = (
    "DELETE FROM step_event WHERE operation_id = ANY(%s)",
    "DELETE FROM step WHERE operation_id = ANY(%s)",
    "DELETE FROM terraform_run WHERE operation_id = ANY(%s)",
    "DELETE FROM job_history WHERE id = ANY(%s)",
)
_NEWER = (
    "EXISTS (SELECT FROM job_history newer WHERE newer.subject = job_history.subject"
    " AND newer.id > job_history.id)"
)
_RULES = (
    Rule(
        "job_history", KEEP_LOOKS_DAYS, "finished_at", "state = 'done' AND cause_count = 0", _WITH_ITS_STEPS
    ),
    Rule("job_history", KEEP_OPERATIONS_DAYS, "finished_at", "state = 'done'", _WITH_ITS_STEPS),
    Rule(
        "job_history", KEEP_OPERATIONS_DAYS, "finished_at", f"state = 'parked' AND {_NEWER}", _WITH_ITS_STEPS
    ),
    Rule("process", KEEP_PROCESSES_DAYS, "heartbeat_at", "true", ("DELETE FROM process WHERE id = ANY(%s)",)),
    Rule(
        "stripe_event",
        KEEP_BODIES_DAYS,
        "handled_at",
        f"{_HANDLED} AND length(body) > 0",
        ("UPDATE stripe_event SET body = '' WHERE id = ANY(%s)",),
    ),
    Rule(
        "stripe_event",
        KEEP_EVENTS_DAYS,
        "received_at",
        _HANDLED,
        ("DELETE FROM stripe_event WHERE id = ANY(%s)",),
    ),
    Rule(
        "notification",
        KEEP_NOTIFICATIONS_DAYS,
        "finished_at",
        "state <> 'waiting'",
        ("DELETE FROM notification WHERE id = ANY(%s)",),
    ),
    Rule(
        "preview",
        KEEP_PREVIEWS_DAYS,
        "finished_at",
        "state <> 'waiting'",
        ("DELETE FROM preview WHERE id = ANY(%s)",),
    ),
)


def prune(conn: Connection, *, limit: int) -> int:
    """Remove at most `limit` by each rule, each in a transaction of its own, so that no lock is held for
    long; how many there were. Call it again until it is 0."""
    return sum(_remove(conn, rule, limit) for rule in _RULES)


def _remove(conn: Connection, rule: Rule, limit: int) -> int:
    with conn.transaction():
        rows = conn.execute(
            SQL(
                "SELECT id FROM {table} WHERE {condition}"
                " AND {since} < statement_timestamp() - make_interval(days => %s)"
                " ORDER BY {since} LIMIT %s FOR UPDATE"
            ).format(
                table=Identifier(rule.table), condition=SQL(rule.condition), since=Identifier(rule.since)
            ),
            [rule.days, limit],
        ).fetchall()
        if rows:
            for statement in rule.remove:
                conn.execute(statement.encode(), [[row["id"] for row in rows]])
    return len(rows)


def worth_keeping(conn: Connection, held: Job) -> bool:
    """Is what ends history? A periodic observation that found nothing to do at its first attempt is none."""
    if held.causes or held.attempts > 1:
        return True
    return exists(conn, "SELECT FROM step WHERE operation_id = %s", [held.id])
