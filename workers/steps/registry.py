"""Which act takes which step. An act registers itself where it is defined:

    @tenant_step(StepName.VERIFY_ACCESS, "logs in as the application would and reads", again="reading")
    def prove(work: TenantWork) -> None: ...

What it does, and why doing it again changes nothing, are half sentences for the tables of the pages
(`tests/docs/step_tables.py`). Every act is idempotent and may be cut off at any point; the next observation
finds out how far it came. What an act records about the outside it records after the outside has
confirmed it, in a transaction that is guarded by the fencing token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from controlplane.domain.status import Part
from controlplane.domain.steps import StepName
from controlplane.workers.engine.step_context import ClusterWork, TenantWork

ClusterAct = Callable[[ClusterWork], None]
TenantAct = Callable[[TenantWork], None]


@dataclass(frozen=True, slots=True)
class Explained:
    """`family`: the file that the act stands in."""

    does: str
    again: str
    family: str


EXPLAINED: dict[StepName, Explained] = {}
CLUSTER_ACTS: dict[StepName, ClusterAct] = {}
TENANT_ACTS: dict[StepName, TenantAct] = {}
LONG: set[StepName] = set()
"""Steps that may take minutes; a tenant's job goes over to the long lane before it takes one."""
BOTH_PLACEMENTS: set[StepName] = set()
"""Steps about both ends of a transfer; any other with a placement is one of that placement's own."""
DELETES: set[StepName] = set()
"""Steps that take away what nobody can give back: everything is observed anew before one is taken."""
TOUCHES: dict[StepName, Collection[Part]] = {}
"""What is to be asked again after a step; a step that is not named here may have changed anything."""


def cluster_step(name: StepName, does: str, *, again: str) -> Callable[[ClusterAct], ClusterAct]:
    def register(act: ClusterAct) -> ClusterAct:
        _explain(name, does, again, act)
        CLUSTER_ACTS[name] = act
        return act

    return register


def tenant_step(
    name: StepName,
    does: str,
    *,
    again: str,
    touches: Collection[Part] | None = None,
    long: bool = False,
    both_placements: bool = False,
    deletes: bool = False,
) -> Callable[[TenantAct], TenantAct]:
    """`touches`: the only parts of the outside that it changes; None where that can't be said."""

    def register(act: TenantAct) -> TenantAct:
        _explain(name, does, again, act)
        TENANT_ACTS[name] = act
        if touches is not None:
            TOUCHES[name] = touches
        if deletes:
            DELETES.add(name)
        if long:
            LONG.add(name)
        if both_placements:
            BOTH_PLACEMENTS.add(name)
        return act

    return register


def _explain(name: StepName, does: str, again: str, act: ClusterAct | TenantAct) -> None:
    if name in EXPLAINED:
        raise ValueError(f"{name}: expected one act, a second one registers itself")
    EXPLAINED[name] = Explained(does, again, act.__module__.rpartition(".")[2])
