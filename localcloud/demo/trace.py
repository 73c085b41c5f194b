"""The paid-to-usable trace of a tenant: how long each kind of step took, from its step log."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from controlplane.domain.steps import StepName, StepState
from controlplane.services import tenants
from controlplane.store import operation, step
from controlplane.store.registry import Registry


@dataclass(frozen=True, slots=True)
class Trace:
    """Seconds. `steps`: by name, of the tenant's own operations; what it waited for counts until it went on.
    `cluster_stack`: of its cluster's, Terraform's run for the cluster itself."""

    plan: str
    cluster: str
    steps: dict[str, float]
    cluster_stack: float

    @property
    def waited_for_cluster(self) -> bool:
        return StepName.AWAIT_CLUSTER in self.steps

    @property
    def secret(self) -> float:
        """Until its cluster's operation had made it, with Terraform."""
        return self.steps.get(StepName.AWAIT_SECRET, 0.0)

    @property
    def terraform(self) -> float:
        return self.secret + (self.cluster_stack if self.waited_for_cluster else 0.0)


def trace_of(registry: Registry, tenant_id: str) -> Trace:
    with registry.connection() as conn:
        detail = tenants.show(conn, tenant_id)
        cluster_id = "" if detail.placement is None else detail.placement.cluster_id
        own: defaultdict[str, float] = defaultdict(float)
        for row in detail.operations:
            log = step.of_operation(conn, row.id)
            for done, following in pairwise([*log, None]):
                assert done is not None
                waits = done.state == StepState.WAITING and following is not None
                until = following.started_at if waits and following is not None else done.finished_at
                if until is not None:
                    own[done.name] += (until - done.started_at).total_seconds()
        cluster_stack = sum(
            (done.finished_at - done.started_at).total_seconds()
            for row in operation.page(conn, before=None, limit=50, resource_id=cluster_id)
            for done in step.of_operation(conn, row.id)
            if done.name == StepName.APPLY_CLUSTER_STACK and done.finished_at is not None
        )
    return Trace(detail.tenant.spec.plan, cluster_id, dict(own), cluster_stack)
