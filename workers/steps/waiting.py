"""Waiting, on behalf of a tenant: for a cluster, or for a person."""

from __future__ import annotations

from typing import NoReturn

from controlplane.domain.errors import NeedsHuman, Pending, Retryable
from controlplane.domain.steps import StepName
from controlplane.store import tenant
from controlplane.store.cluster import ClusterRow
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.steps.registry import tenant_step


def wait_for(work: TenantWork, home: ClusterRow | None) -> NoReturn:
    """A cluster that can't be made or destroyed is its tenant's trouble too. Raises Retryable then, and
    Pending otherwise."""
    if home is not None and home.needs_attention is not None:
        reason = f"its cluster {home.id} needs attention: {home.needs_attention}"
        with work.recording() as conn:
            tenant.set_attention(conn, work.record.row.id, reason=reason, runbook=home.runbook)
        raise Retryable(reason)
    raise Pending(work.step.reason, after=work.ctx.platform.cluster_poll)


@tenant_step(
    StepName.AWAIT_DECISION,
    "nothing; a person decides first, by the runbook that the tenant names",
    again="reading",
)
def await_decision(work: TenantWork) -> NoReturn:
    raise NeedsHuman(work.step.reason, runbook=work.step.runbook)
