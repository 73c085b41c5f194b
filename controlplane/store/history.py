"""How long history is kept, so that the registry does not grow without end (I10).

Operations that ended well are for people who ask what happened lately; what was changed by whom is in
the audit trail, which is never pruned. Bodies of handled events go after Stripe itself has forgotten
them (30 days), with a margin; the event's row stays, so a very late duplicate is still a duplicate.
"""

from __future__ import annotations

from controlplane.domain.operation import PERIODIC_LOOK
from controlplane.store.registry import Connection

KEEP_LOOKS_DAYS = 2
KEEP_OPERATIONS_DAYS = 90
KEEP_BODIES_DAYS = 60


def prune(conn: Connection, *, limit: int) -> int:
    """Remove at most `limit` of each kind; how many operations went."""
    with conn.transaction():
        old = conn.execute(
            "SELECT id FROM operation WHERE state IN ('done', 'superseded')"
            " AND finished_at < clock_timestamp()"
            "   - make_interval(days => CASE WHEN reason = %s THEN %s ELSE %s END)"
            " ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED",
            [PERIODIC_LOOK, KEEP_LOOKS_DAYS, KEEP_OPERATIONS_DAYS, limit],
        ).fetchall()
        ids = [row["id"] for row in old]
        if ids:
            conn.execute("DELETE FROM step_event WHERE operation_id = ANY(%s)", [ids])
            conn.execute("DELETE FROM step WHERE operation_id = ANY(%s)", [ids])
            conn.execute("DELETE FROM terraform_run WHERE operation_id = ANY(%s)", [ids])
            conn.execute("DELETE FROM operation WHERE id = ANY(%s)", [ids])
        conn.execute(
            "UPDATE stripe_event SET body = '' WHERE id IN (SELECT id FROM stripe_event"
            " WHERE state IN ('applied', 'ignored') AND length(body) > 0"
            " AND handled_at < clock_timestamp() - make_interval(days => %s) LIMIT %s)",
            [KEEP_BODIES_DAYS, limit],
        )
    return len(ids)
