"""When a move is called for, and the steps of one, or of a restore, that is not over."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.domain.move import MoveGoal, MovePhase, plan_move
from controlplane.domain.planner.goal import ResidenceGoal, TenantGoal
from controlplane.domain.restore import plan_restore
from controlplane.domain.status import TenantStatus
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle

MISMATCH_RUNBOOK = "move-mismatch"
RUNBOOK = "move-between-clusters"


def plan_residence(goal: ResidenceGoal | None, move: MoveGoal | None) -> list[Step]:
    """A plan that asks for another kind of cluster calls for a move, but where a person sent the tenant where
    it is, and not again where one was given up for this plan."""
    if move is not None and move.phase is MovePhase.MOVED and move.differing:
        why = f"after its move {', '.join(move.differing[:10])} were not the same"
        return [Step(StepName.AWAIT_DECISION, why, runbook=MISMATCH_RUNBOOK)]
    if goal is None or goal.wanted is goal.home:
        return []
    why = f"plan {goal.plan} is {goal.wanted.value}, its cluster is {goal.home.value}"
    last = goal.last if goal.last is not None and goal.last.plan == goal.plan else None
    if last is not None and last.by_hand:
        return []
    if move is not None:
        why = f"{why}, and its last {move.kind.value} is {move.phase.value}"
        return [Step(StepName.AWAIT_DECISION, why, runbook=RUNBOOK)]
    if last is not None and last.declined:
        why = f"{why}, and its last move is {last.phase.value}"
        return [Step(StepName.AWAIT_DECISION, why, runbook=RUNBOOK)]
    return [Step(StepName.BEGIN_MOVE, why, goal.wanted.value)]


def plan_transfer(goal: TenantGoal, status: TenantStatus, making: Sequence[Step]) -> list[Step]:
    """`making`: what the placement lacks that it goes to. A tenant that is suspended or leaves does not go on
    moving: it stays where its data is."""
    move = goal.move
    if move is None or (status.move is None and status.restore is None):
        return []
    if goal.lifecycle is not Lifecycle.ACTIVE and move.phase.before_cut:
        return [Step(StepName.GIVE_UP_MOVE, f"the tenant is {goal.lifecycle.value}")]
    if move.pointless:
        return [Step(StepName.GIVE_UP_MOVE, "its plan asks for another kind of cluster by now")]
    if status.restore is not None:
        return plan_restore(move, status.restore, making)
    return [] if status.move is None else plan_move(move, status.move, making)
