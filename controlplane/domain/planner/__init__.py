"""plan(goal, status) → the steps that are left, in order. Pure, and the only place that decides.

The engine applies the first one and looks again, so a plan is never a script to be resumed: after a
crash, an edit by hand or a change of mind the next observation yields whatever is left from there. "Nothing
to do" is the empty list. What each resource should be is computed by the caller into the goal, out of what
the registry knows; so the planner decides order and occasion and nothing else. That a move is called for,
that a purge is due, and that a person has to decide first are steps like any other, and stand last.
"""

from controlplane.domain.planner.cluster import plan_cluster
from controlplane.domain.planner.goal import (
    ClusterGoal,
    LastTransfer,
    PurgeGoal,
    ResidenceGoal,
    RetentionGoal,
    TenantGoal,
    TransferGoal,
)
from controlplane.domain.planner.tenant import plan_tenant

__all__ = [
    "ClusterGoal",
    "LastTransfer",
    "PurgeGoal",
    "ResidenceGoal",
    "RetentionGoal",
    "TenantGoal",
    "TransferGoal",
    "plan_cluster",
    "plan_tenant",
]
