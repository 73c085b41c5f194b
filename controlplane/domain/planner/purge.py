"""When a closed tenant's purge is due, who decides about it, and the steps of one that was approved."""

from __future__ import annotations

from controlplane.domain.planner.goal import PurgeGoal, RetentionGoal
from controlplane.domain.purge import RUNBOOK
from controlplane.domain.status import PurgeStatus, TenantStatus
from controlplane.domain.steps import Step, StepName


def plan_retention(goal: RetentionGoal) -> list[Step]:
    """Nothing is due as long as its customer has a subscription, whatever else is so."""
    if goal.kept_for is not None:
        new = goal.requested or not goal.noted
        return [Step(StepName.HEED_RETURN, goal.kept_for)] if new else []
    if goal.noted:
        return [Step(StepName.HEED_RETURN, "its customer has no subscription any more")]
    if goal.left > 0:
        return []
    until = "" if goal.until is None else goal.until.isoformat(timespec="seconds")
    if goal.unasked and not goal.requested:
        return [Step(StepName.ORDER_PURGE, f"its retention ended at {until}, and its plan asks nobody")]
    why = f"its retention ended at {until}: two persons decide about its purge"
    return [Step(StepName.AWAIT_DECISION, why, runbook=RUNBOOK)]


def plan_purge(goal: PurgeGoal, status: TenantStatus, purging: PurgeStatus) -> list[Step]:
    """Hostnames and logins have gone before. What was never made is neither copied nor dropped, and a
    database is not dropped where its whole cluster goes: the copy is the cluster's snapshot."""
    why = f"approved as purge {goal.approval}"
    if purging.purged:
        overdue = Step(StepName.DELETE_COPY, "the time for which it was kept is over")
        return [overdue] if purging.copy_overdue else []
    steps: list[Step] = []
    if purging.placed:
        database = status.database
        if database is not None and database.exists and not purging.copied:
            steps.append(Step(StepName.KEEP_COPY, why, "snapshot" if goal.cluster_goes else "dump"))
        if database is not None and (database.exists or database.roles) and not goal.cluster_goes:
            steps.append(Step(StepName.DROP_DATABASE, why))
        steps.append(Step(StepName.RELEASE_PLACEMENT, why))
    if purging.placed or purging.releasing:
        steps.append(Step(StepName.AWAIT_SECRET_END, "its cluster takes its secret away"))
    if goal.cluster_goes and not purging.cluster_gone:
        steps.append(Step(StepName.AWAIT_CLUSTER_END, "its cluster is being destroyed"))
    return [*steps, Step(StepName.CERTIFY, "nothing is left to delete")]
