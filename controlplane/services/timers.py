"""What becomes due by itself: periodic observations, looks at clusters in use, the end of a grace, of a
trial, of a hold, a key that nothing needs any more.

What is found is only recorded, at most `limit` of each.
"""

from __future__ import annotations

from controlplane.domain.catalogue import Catalogue
from controlplane.domain.job import CLOCK, JobKind
from controlplane.services import billing
from controlplane.store import cluster, data_copy, hold, job, tenant
from controlplane.store.registry import Connection

LOOK_EVERY = 86_400.0
"""Seconds between two looks at a cluster in use. Each is a Terraform plan, some ten seconds of CPU."""
LOOKS_AT_ONCE = 4
"""That wait at most: what else is routine waits behind those that came before it."""


def run(conn: Connection, catalogue: Catalogue, *, zone: str, limit: int) -> int:
    """How many tenants are to be looked at. `zone`: of the platform."""
    with conn.transaction():
        looks = cluster.due_for_look(conn, every=LOOK_EVERY, at_most=LOOKS_AT_ONCE)
        job.ensure_all(conn, JobKind.CLUSTER, looks)
        observations = tenant.due_for_observation(conn, limit=limit)
        job.ensure_all(conn, JobKind.TENANT, observations)
        tenant.notify_trials(conn, limit=limit)
        for cluster_id in data_copy.useless_keys(conn, limit=limit):
            reason = "the last snapshot of it is gone"
            job.ensure(conn, JobKind.CLUSTER, cluster_id, reason=reason, actor=CLOCK)
    over = tenant.customers_past_grace(conn, limit=limit)
    for customer_id in over:
        reason = "the grace of its payment is over"
        billing.apply(conn, customer_id, {}, catalogue, zone=zone, revision=None, reason=reason)
    released = hold.customers_of_ended(conn, limit=limit)
    for customer_id in released:
        reason = "an operator's hold has come to its end"
        billing.apply(conn, customer_id, {}, catalogue, zone=zone, revision=None, reason=reason)
        hold.end(conn, customer_id)
    return len(observations) + len(over) + len(released)
