"""When a move is called for, and the steps of a transfer that is not over.

The kinds differ in how the target gets its rows (`_FILL`). The cut, and what follows it, is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controlplane.domain.planner.goal import ResidenceGoal, TenantGoal, TransferGoal
from controlplane.domain.status import TenantStatus, TransferStatus
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind, TransferPhase

MISMATCH_RUNBOOK = "move-mismatch"
RUNBOOK = "move-between-clusters"


def plan_residence(goal: ResidenceGoal | None, transfer: TransferGoal | None) -> list[Step]:
    """A plan that asks for another kind of cluster calls for a move, but where a person sent the tenant where
    it is, and not again where one was aborted by a person for this plan."""
    doubt = None if transfer is None else _doubt(transfer)
    if doubt is not None:
        return [Step(StepName.AWAIT_DECISION, doubt, runbook=MISMATCH_RUNBOOK)]
    if goal is None or goal.wanted is goal.home:
        return []
    why = f"plan {goal.plan} is {goal.wanted.value}, its cluster is {goal.home.value}"
    last = goal.last if goal.last is not None and goal.last.plan == goal.plan else None
    if last is not None and last.by_hand:
        return []
    if transfer is not None:
        why = f"{why}, and its last {transfer.kind.value} is {transfer.phase.value}"
        return [Step(StepName.AWAIT_DECISION, why, runbook=RUNBOOK)]
    if last is not None and last.declined:
        why = f"{why}, and its last move is {last.phase.value}"
        return [Step(StepName.AWAIT_DECISION, why, runbook=RUNBOOK)]
    return [Step(StepName.BEGIN_TRANSFER, why, goal.wanted.value)]


def _doubt(transfer: TransferGoal) -> str | None:
    """Why its source is not given up without a person; None where nothing speaks against that."""
    if transfer.phase is not TransferPhase.REVERSIBLE:
        return None
    if transfer.differing:
        return f"after its move {', '.join(transfer.differing[:10])} were not the same"
    return "its move was cut off before the two ends were compared" if transfer.unproven else None


def plan_transfer(goal: TenantGoal, status: TenantStatus, making: Sequence[Step]) -> list[Step]:
    """`making`: what the target lacks as a placement. A tenant that is suspended or leaves does not go on
    with it: it stays where its data is."""
    transfer, found = goal.transfer, status.transfer
    if transfer is None or found is None:
        return []
    if goal.lifecycle is not Lifecycle.ACTIVE and transfer.phase.before_cut:
        return [Step(StepName.ABORT_TRANSFER, f"the tenant is {goal.lifecycle.value}")]
    if transfer.pointless:
        return [Step(StepName.ABORT_TRANSFER, "its plan asks for another kind of cluster by now")]
    if transfer.phase is TransferPhase.CUT:
        return [Step(StepName.CUT_OVER, "writing is paused", placement=transfer.other)]
    if transfer.phase.before_cut:
        return _FILL[transfer.kind](transfer, found, making)
    return _end(transfer, found)


def _end(transfer: TransferGoal, status: TransferStatus) -> list[Step]:
    steps = []
    if status.streaming:
        why = "the source must not keep its log any longer"
        steps.append(Step(StepName.END_COPY, why, placement=transfer.other))
    if transfer.phase is TransferPhase.REVERSIBLE:
        why = "the source need not be kept any longer"
        return [*steps, Step(StepName.CONFIRM_TRANSFER, why)] if transfer.overdue else steps
    if not status.gone:
        steps.append(Step(StepName.AWAIT_RESTORED_END, "the restored cluster is being destroyed"))
    why = f"the {transfer.kind.value} was {transfer.phase.value}"
    return [*steps, Step(StepName.REMOVE_PLACEMENT, why, placement=transfer.other)]


def _fill_move(transfer: TransferGoal, status: TransferStatus, making: Sequence[Step]) -> list[Step]:
    """A source that has lost its log, or a target that has lost its rows, is copied anew."""
    there = transfer.other
    if there is None:
        return [Step(StepName.PLACE_TRANSFER, "it has no place to move to yet")]
    steps = [*making]
    if not status.streaming:
        steps.append(Step(StepName.BEGIN_COPY, "the source does not keep its changes yet", placement=there))
    if transfer.phase is not TransferPhase.FOLLOWING or not status.copied:
        steps.append(Step(StepName.COPY_ROWS, "the target has no rows yet", placement=there))
    return [*steps, Step(StepName.CUT_OVER, "the target follows", placement=there)]


def _fill_restore(transfer: TransferGoal, status: TransferStatus, making: Sequence[Step]) -> list[Step]:
    """The target is proven when it has the release that the tenant is served under, and not before it has its
    rows."""
    there = transfer.other
    if not status.made:
        return [Step(StepName.RESTORE_CLUSTER, "there is no cluster with its rows of that time yet")]
    if there is None:
        return [Step(StepName.PLACE_TRANSFER, "it has no place to be restored to yet")]
    cut = Step(StepName.CUT_OVER, "the target has the rows of that time", placement=there)
    if transfer.phase is TransferPhase.FOLLOWING:
        return [*making, cut]
    if not status.opened:
        if not status.ready:
            why = "the restored cluster is not ready yet"
            return [Step(StepName.AWAIT_RESTORED, why, placement=there)]
        return [Step(StepName.OPEN_RESTORED, "nobody has looked into the restored cluster", placement=there)]
    made = [step for step in making if step.name is not StepName.VERIFY_ACCESS]
    return [*made, Step(StepName.COPY_ROWS, "the target has no rows yet", placement=there), cut]


def _fill_clone(transfer: TransferGoal, _status: TransferStatus, _making: Sequence[Step]) -> list[Step]:
    """Its target is the placement that the tenant lives on, and is made with that."""
    if transfer.other is None:
        return [Step(StepName.PLACE_TRANSFER, "it has no place to live yet")]
    return [Step(StepName.COPY_ROWS, "it has no rows of its source yet")]


_Fill = Callable[[TransferGoal, TransferStatus, Sequence[Step]], list[Step]]
_FILL: dict[TransferKind, _Fill] = {
    TransferKind.MOVE: _fill_move,
    TransferKind.RESTORE: _fill_restore,
    TransferKind.CLONE: _fill_clone,
}

_MAKING = (StepName.CREATE_DATABASE, StepName.AWAIT_SECRET, StepName.MIGRATE_SCHEMA)


NEW = "new"
"""In a preview: a placement that has no id yet."""


def steps_of_move(place: str, home: str) -> list[Step]:
    """All of a move that has not begun, for whoever asks what it would do."""
    made = (*_MAKING, StepName.VERIFY_ACCESS)
    return [
        Step(StepName.PLACE_TRANSFER, place),
        *(Step(name, "the target is made like any placement", placement=NEW) for name in made),
        Step(StepName.BEGIN_COPY, home, placement=NEW),
        Step(StepName.COPY_ROWS, "in one transaction, while the source is used", placement=NEW),
        Step(StepName.CUT_OVER, "the only moment without writes", placement=NEW),
        Step(StepName.END_COPY, "the source is kept until somebody confirms", placement=NEW),
    ]


def steps_of_restore(origin: str, place: str, home: str) -> list[Step]:
    """All of a restore that has not begun, for whoever asks what it would do."""
    why = "the target is made, to the release of that time"
    return [
        Step(StepName.RESTORE_CLUSTER, origin),
        Step(StepName.PLACE_TRANSFER, place),
        Step(StepName.OPEN_RESTORED, "everybody's logins on it are closed", placement=NEW),
        *(Step(name, why, placement=NEW) for name in _MAKING),
        Step(StepName.COPY_ROWS, "in one transaction, compared; then the cluster goes", placement=NEW),
        Step(StepName.MIGRATE_SCHEMA, "to the release of today, where that is another", placement=NEW),
        Step(StepName.VERIFY_ACCESS, "its own login reads its own database", placement=NEW),
        Step(StepName.CUT_OVER, f"what {home} holds then is kept, closed", placement=NEW),
    ]
