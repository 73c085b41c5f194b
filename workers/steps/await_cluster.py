"""Waiting for a cluster, on behalf of a tenant."""

from __future__ import annotations

from typing import NoReturn

from controlplane.domain.errors import Pending, Retryable
from controlplane.store import tenant
from controlplane.store.cluster import ClusterRow
from controlplane.workers.engine.step_context import TenantWork


def wait_for(work: TenantWork, home: ClusterRow | None) -> NoReturn:
    """A cluster that can't be made or destroyed is its tenant's trouble too. Raises Retryable then, and
    Pending otherwise."""
    if home is not None and home.needs_attention is not None:
        reason = f"its cluster {home.id} needs attention: {home.needs_attention}"
        with work.recording() as conn:
            tenant.set_attention(conn, work.record.row.id, reason=reason, runbook=home.runbook)
        raise Retryable(reason)
    raise Pending(work.step.reason, after=work.ctx.platform.cluster_poll)
