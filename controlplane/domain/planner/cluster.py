"""The steps that are left for a cluster."""

from __future__ import annotations

from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.planner.goal import ClusterGoal
from controlplane.domain.status import ClusterStatus
from controlplane.domain.steps import Step, StepName


def plan_cluster(goal: ClusterGoal, status: ClusterStatus) -> list[Step]:
    steps: list[Step] = []
    if goal.lifecycle is ClusterLifecycle.CLOSED:
        if status.placements_digest is not None:
            steps.append(Step(StepName.DESTROY_PLACEMENTS_STACK, "the cluster is closed"))
        if not status.destroyed or status.status is not None:
            steps.append(Step(StepName.DESTROY_CLUSTER_STACK, "the cluster is closed"))
        elif status.keeps_key and not goal.key:
            steps.append(Step(StepName.DESTROY_CLUSTER_STACK, "the last snapshot of it is gone", "key"))
        return steps
    if status.stack_digest != goal.stack_digest:
        steps.append(Step(StepName.APPLY_CLUSTER_STACK, _why_applied(status.stack_digest)))
    steps += _placements(goal, status)
    if not status.available:
        steps.append(
            Step(StepName.AWAIT_AVAILABLE, f"cluster {status.status}, writer {status.writer_status}")
        )
    if not status.hardened:
        steps.append(Step(StepName.HARDEN_CLUSTER, "PUBLIC may still connect to the cluster's own databases"))
    return steps


def _placements(goal: ClusterGoal, status: ClusterStatus) -> list[Step]:
    """They need nothing of the cluster, which may take minutes. One that has never had any has no such
    stack."""
    confirmed = status.placements_digest
    if status.releasing:
        return [Step(StepName.APPLY_PLACEMENTS_STACK, "placements on it were released")]
    if confirmed == goal.placements_digest or (confirmed is None and not goal.placements):
        return []
    return [Step(StepName.APPLY_PLACEMENTS_STACK, f"{goal.placements} placements: {_why_applied(confirmed)}")]


def _why_applied(confirmed: str | None) -> str:
    """`confirmed`: the digest that the stack has, which is not the one that it should have."""
    return "no stack is confirmed" if confirmed is None else "the stack differs from what is asked for"
