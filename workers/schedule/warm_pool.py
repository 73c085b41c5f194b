"""Keep the warm pool: look, ask the account's quota where it matters, record, notify.

Every few seconds, which is soon enough: a refill waits longer than that by design. A look that
finds nothing to do costs one query and the comparison of a report; AWS is asked only before a cluster
is made or tried again, and no database is ever touched, so a cluster that sleeps at zero is left asleep.
"""

from __future__ import annotations

from controlplane.domain.pool import Quota
from controlplane.services import pool
from controlplane.store.cluster import ClusterRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.quota import quota_left
from controlplane.workers.engine.stacks import cluster_variables, digest

QUOTA_MAX_AGE = 60.0


def tend(ctx: Context) -> int:
    """How many clusters were recorded to be made, retired or tried again."""

    def digest_of(row: ClusterRow) -> str:
        return digest(cluster_variables(ctx.platform, row), row.release)

    with ctx.registry.connection() as conn:
        found = pool.observe(conn, ctx.catalogue, digest_of)
    if not found.due:
        return 0
    quota = quota_left(ctx, max_age=QUOTA_MAX_AGE) if found.asks_quota else Quota()
    with ctx.registry.connection() as conn:
        return pool.tend(conn, ctx.catalogue, digest_of, quota)
