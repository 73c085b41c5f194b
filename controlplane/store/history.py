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

from controlplane.domain.operation import PERIODIC_OBSERVATION, ClaimedOperation
from controlplane.store.registry import Connection

KEEP_LOOKS_DAYS = 2
KEEP_OPERATIONS_DAYS = 90
KEEP_BODIES_DAYS = 60
KEEP_EVENTS_DAYS = 425
KEEP_NOTIFICATIONS_DAYS = 90
KEEP_PREVIEWS_DAYS = 30


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of `table` that are `days` old by their column `since` and that meet `condition`; `remove` does
    away with those of the given ids."""

    table: str
    days: int
    since: str
    condition: str
    remove: tuple[str, ...]


_ENDED = "state IN ('done', 'superseded')"
_HANDLED = "state IN ('applied', 'ignored')"
_WITH_ITS_STEPS = (
    "DELETE FROM step_event WHERE operation_id = ANY(%s)",
    "DELETE FROM step WHERE operation_id = ANY(%s)",
    "DELETE FROM terraform_run WHERE operation_id = ANY(%s)",
    "DELETE FROM operation WHERE id = ANY(%s)",
)
_NEWER = (
    "EXISTS (SELECT FROM operation newer WHERE newer.kind = operation.kind"
    " AND newer.resource_id = operation.resource_id AND newer.id > operation.id)"
)
_RULES = (
    Rule(
        "operation",
        KEEP_LOOKS_DAYS,
        "finished_at",
        f"{_ENDED} AND reason = '{PERIODIC_OBSERVATION}'",
        _WITH_ITS_STEPS,
    ),
    Rule("operation", KEEP_OPERATIONS_DAYS, "finished_at", _ENDED, _WITH_ITS_STEPS),
    Rule("operation", KEEP_OPERATIONS_DAYS, "finished_at", f"state = 'parked' AND {_NEWER}", _WITH_ITS_STEPS),
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
                " ORDER BY {since} LIMIT %s FOR UPDATE SKIP LOCKED"
            ).format(
                table=Identifier(rule.table), condition=SQL(rule.condition), since=Identifier(rule.since)
            ),
            [rule.days, limit],
        ).fetchall()
        if rows:
            for statement in rule.remove:
                conn.execute(statement.encode(), [[row["id"] for row in rows]])
    return len(rows)


def forget_idle_observation(conn: Connection, held: ClaimedOperation) -> bool:
    """Remove the operation that ends where it was a periodic observation that found nothing to do at its
    first attempt. False where it is history."""
    if held.reason != PERIODIC_OBSERVATION or held.attempts > 1:
        return False
    return (
        conn.execute(
            "DELETE FROM operation WHERE id = %(id)s AND state = 'running' AND fencing_token ="
            " %(fencing_token)s"
            " AND NOT EXISTS (SELECT FROM step WHERE operation_id = %(id)s)",
            {"id": held.operation_id, "fencing_token": held.fencing_token},
        ).rowcount
        > 0
    )
