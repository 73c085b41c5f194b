"""The paid-to-usable trace of a tenant: how long each kind of step took, from its step log."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from controlplane.services import tenants
from controlplane.store import operation, step
from controlplane.store.registry import Registry

CLUSTER_STACK, TENANT_STACK = "apply_cluster_stack", "apply_tenant_stack"


@dataclass(frozen=True, slots=True)
class Trace:
    """Seconds. `steps`: by name, of the tenant's own operations. `cluster_stack`: of its cluster's."""

    plan: str
    cluster: str
    steps: dict[str, float]
    cluster_stack: float
    waited_for_cluster: bool

    @property
    def tenant_stack(self) -> float:
        return self.steps.get(TENANT_STACK, 0.0)

    @property
    def terraform(self) -> float:
        return self.tenant_stack + (self.cluster_stack if self.waited_for_cluster else 0.0)


def trace_of(registry: Registry, tenant_id: str) -> Trace:
    with registry.connection() as conn:
        detail = tenants.show(conn, tenant_id)
        cluster_id = "" if detail.placement is None else detail.placement.cluster_id
        of_cluster = operation.page(conn, before=None, limit=50, resource_id=cluster_id)
        seconds: defaultdict[str, float] = defaultdict(float)
        names: Counter[str] = Counter()
        for row in (*detail.operations, *of_cluster):
            for done in step.of_operation(conn, row.id):
                names[done.name] += 1
                if done.finished_at is not None:
                    seconds[done.name] += (done.finished_at - done.started_at).total_seconds()
    own = {n: s for n, s in seconds.items() if n not in (CLUSTER_STACK, "await_available", "harden_cluster")}
    return Trace(
        plan=detail.tenant.spec.plan,
        cluster=cluster_id,
        steps=own,
        cluster_stack=seconds[CLUSTER_STACK],
        waited_for_cluster=names["await_cluster"] > 0,
    )
