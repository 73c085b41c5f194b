"""What becomes due by itself: periodic observations, the end of a grace, the end of a trial, a key
that nothing needs any more.

What is found is only recorded, at most `limit` of each.
"""

from __future__ import annotations

from dataclasses import replace

from controlplane.domain.job import CLOCK, JobKind
from controlplane.domain.tenant import Lifecycle
from controlplane.store import audit, data_copy, job, tenant
from controlplane.store.registry import Connection

ACTOR = CLOCK


def run(conn: Connection, *, limit: int) -> int:
    """How many tenants are to be looked at. Two transactions, each of which locks tenants in the order of
    their ids."""
    with conn.transaction():
        observations = tenant.due_for_observation(conn, limit=limit)
        job.ensure_all(conn, JobKind.TENANT, observations)
        tenant.notify_trials(conn, limit=limit)
        for cluster_id in data_copy.useless_keys(conn, limit=limit):
            reason = "the last snapshot of it is gone"
            job.ensure(conn, JobKind.CLUSTER, cluster_id, reason=reason, actor=ACTOR)
    with conn.transaction():
        return len(observations) + _end_grace(conn, limit=limit)


def _end_grace(conn: Connection, *, limit: int) -> int:
    """Suspend whose payment is past due for longer than its plan allows. The comparison with Stripe decides
    the same by the same clock, and a payment that comes sets it right."""
    due = tenant.past_grace(conn, limit=limit)
    for row in due:
        tenant.set_spec(conn, row.id, replace(row.spec, lifecycle=Lifecycle.SUSPENDED))
        reason = "the grace of its payment is over"
        job.ensure(conn, JobKind.TENANT, row.id, reason=reason, actor=ACTOR)
        audit.append(
            conn,
            actor=ACTOR,
            action="tenant.spec",
            resource=row.id,
            detail={"lifecycle": Lifecycle.SUSPENDED.value, "reason": reason},
        )
    return len(due)
