"""What becomes due by itself: periodic observations, the end of a grace, the end of a trial, a key
that nothing needs any more.

Called by every sweep within its transaction; what is found is only recorded, at most `limit` of each.
"""

from __future__ import annotations

from dataclasses import replace

from controlplane.domain.operation import PERIODIC_OBSERVATION, ResourceKind
from controlplane.domain.tenant import Lifecycle
from controlplane.store import audit, data_copy, operation, tenant
from controlplane.store.registry import Connection

ACTOR = "sweep"


def run(conn: Connection, *, limit: int) -> int:
    """How many tenants are to be looked at."""
    observations = tenant.due_for_observation(conn, limit=limit)
    for tenant_id in observations:
        operation.request(conn, ResourceKind.TENANT, tenant_id, reason=PERIODIC_OBSERVATION, actor=ACTOR)
    tenant.notify_trials(conn, limit=limit)
    for cluster_id in data_copy.useless_keys(conn, limit=limit):
        reason = "the last snapshot of it is gone"
        operation.request(conn, ResourceKind.CLUSTER, cluster_id, reason=reason, actor=ACTOR)
    return len(observations) + _end_grace(conn, limit=limit)


def _end_grace(conn: Connection, *, limit: int) -> int:
    """Suspend whose payment is past due for longer than its plan allows. The comparison with Stripe decides
    the same by the same clock, and a payment that comes sets it right."""
    due = tenant.past_grace(conn, limit=limit)
    for row in due:
        tenant.set_spec(conn, row.id, replace(row.spec, lifecycle=Lifecycle.SUSPENDED))
        reason = "the grace of its payment is over"
        operation.request(conn, ResourceKind.TENANT, row.id, reason=reason, actor=ACTOR)
        audit.append(
            conn,
            actor=ACTOR,
            action="tenant.spec",
            resource=row.id,
            detail={"lifecycle": Lifecycle.SUSPENDED.value, "reason": reason},
        )
    return len(due)
