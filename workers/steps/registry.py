"""Which act takes which step. An act registers itself where it is defined:

    @tenant_step(StepName.PROVE)
    def prove(work: TenantWork) -> None: ...

Every act is idempotent and may be cut off at any point; the next look finds out how far it came. What an act
records about the outside it records after the outside has confirmed it, in a transaction that is guarded by
the fencing token.
"""

from __future__ import annotations

from collections.abc import Callable

from controlplane.domain.steps import StepName
from controlplane.workers.engine.step_context import ClusterWork, TenantWork

ClusterAct = Callable[[ClusterWork], None]
TenantAct = Callable[[TenantWork], None]

CLUSTER_ACTS: dict[StepName, ClusterAct] = {}
TENANT_ACTS: dict[StepName, TenantAct] = {}
BOTH_PLACEMENTS: set[StepName] = set()
"""Steps about both ends of a move; any other with a placement is one of that placement's own."""


def cluster_step(name: StepName) -> Callable[[ClusterAct], ClusterAct]:
    def register(act: ClusterAct) -> ClusterAct:
        _expect_new(name)
        CLUSTER_ACTS[name] = act
        return act

    return register


def tenant_step(name: StepName, *, both_placements: bool = False) -> Callable[[TenantAct], TenantAct]:
    def register(act: TenantAct) -> TenantAct:
        _expect_new(name)
        TENANT_ACTS[name] = act
        if both_placements:
            BOTH_PLACEMENTS.add(name)
        return act

    return register


def _expect_new(name: StepName) -> None:
    if name in CLUSTER_ACTS or name in TENANT_ACTS:
        raise ValueError(f"{name}: expected one act, a second one registers itself")
