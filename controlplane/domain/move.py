"""A move: a tenant's database goes to another cluster while it is used. Pure.

    preparing ──▶ paused ──▶ moved ──▶ confirmed ──▶ done
        │  ▲        │                   (the source is deleted)
        │  └────────┘ could not be cut over: the source is in use again
        └──▶ abandoned ──▶ undone       (the target is deleted)

While it is prepared the tenant has a second placement, which converges like any: stack, database, logins,
schema. Then rows are copied and followed. `paused` is recorded before the source takes its last write, and
is over in the transaction that makes the target current; nothing in between needs a decision, so whoever
finds a move there goes on. From `moved` on there is no way back but another move: what was written since is
in the target alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.catalogue import Catalogue, Isolation, Plan
from controlplane.domain.errors import Invalid, Refused
from controlplane.domain.placement import CLUSTER_ID
from controlplane.domain.state import State
from controlplane.domain.steps import Step, StepName

KEEP_SOURCE_DAYS = 7
"""After which the source of a move whose tables were compared and the same is deleted unasked."""


class MoveKind(StrEnum):
    """`restore`: the rows are those of an earlier time, see `domain.restore`."""

    MOVE = "move"
    RESTORE = "restore"


class MovePhase(State):
    PREPARING = "preparing", "paused"
    PAUSED = "paused", "preparing", "paused"
    MOVED = "moved", "paused"
    CONFIRMED = "confirmed", "moved"
    ABANDONED = "abandoned", "preparing", "paused"
    DONE = "done", "confirmed"
    UNDONE = "undone", "abandoned"

    @property
    def before_cut(self) -> bool:
        return self in (MovePhase.PREPARING, MovePhase.PAUSED)


@dataclass(frozen=True, slots=True)
class MoveGoal:
    """`number`: of the other placement, the target until the cut and the source from then on; None while it
    has none. `overdue`: the source need not be kept any longer, and holds nothing that the target lacks.
    `pointless`: the plan that it was made for is no longer the tenant's. `differing`: the tables that were
    not the same after the cut."""

    phase: MovePhase
    number: int | None
    overdue: bool = False
    pointless: bool = False
    kind: MoveKind = MoveKind.MOVE
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MoveStatus:
    streaming: bool
    copied: bool


def validate_destination(destination: object) -> str:
    """Raises Invalid."""
    if isinstance(destination, str) and (
        destination in tuple(Isolation) or CLUSTER_ID.fullmatch(destination)
    ):
        return destination
    raise Invalid("to", "dedicated, shared or a cluster's id", got=destination)


def plan_for_destination(catalogue: Catalogue, plan: Plan, isolation: Isolation) -> Plan:
    """The plan whose kind of cluster is taken: the tenant's own where it has this isolation, else the
    smallest that has. Raises Refused where none has."""
    if plan.isolation is isolation:
        return plan
    fitting = [other for other in catalogue.plans.values() if other.isolation is isolation]
    if not fitting:
        raise Refused(f"no plan of the catalogue is {isolation.value}")
    return min(fitting, key=lambda other: (other.max_acu, other.name))


def plan_move(move: MoveGoal, status: MoveStatus, making: Sequence[Step]) -> list[Step]:
    """The steps that are left. `making`: those that the target lacks as a placement."""
    match move.phase:
        case MovePhase.PREPARING if move.number is None:
            return [Step(StepName.PLACE_MOVE, "it has no place to move to yet")]
        case MovePhase.PREPARING:
            return [*making, *_carry(move, status)]
        case MovePhase.PAUSED:
            return [Step(StepName.CUT_OVER, "writing is paused", placement=move.number)]
        case MovePhase.MOVED:
            end = (
                [Step(StepName.CONFIRM_MOVE, "the source need not be kept any longer")]
                if move.overdue
                else []
            )
            return [*_end(move, status), *end]
        case MovePhase.CONFIRMED | MovePhase.ABANDONED:
            why = f"the move was {move.phase.value}"
            gone = Step(StepName.REMOVE_PLACEMENT, why, placement=move.number)
            return [*_end(move, status), gone]
    return []


def _carry(move: MoveGoal, status: MoveStatus) -> list[Step]:
    steps = []
    if not status.streaming:
        steps.append(
            Step(StepName.BEGIN_COPY, "the source does not keep its changes yet", placement=move.number)
        )
    if not status.copied:
        steps.append(Step(StepName.COPY_ROWS, "the target has no rows yet", placement=move.number))
    return [*steps, Step(StepName.CUT_OVER, "the target follows", placement=move.number)]


def _end(move: MoveGoal, status: MoveStatus) -> list[Step]:
    if not status.streaming:
        return []
    return [Step(StepName.END_COPY, "the source must not keep its log any longer", placement=move.number)]


def steps_of_move(number: int, place: str, home: str) -> list[Step]:
    """All of a move that has not begun, for whoever asks what it would do."""
    made = [
        StepName.APPLY_TENANT_STACK,
        StepName.CREATE_DATABASE,
        StepName.MIGRATE_SCHEMA,
        StepName.VERIFY_ACCESS,
    ]
    return [
        Step(StepName.PLACE_MOVE, place),
        *(Step(name, "the target is made like any placement", placement=number) for name in made),
        Step(StepName.BEGIN_COPY, home, placement=number),
        Step(StepName.COPY_ROWS, "in one transaction, while the source is used", placement=number),
        Step(StepName.CUT_OVER, "the only moment without writes", placement=number),
        Step(StepName.END_COPY, "the source is kept until somebody confirms", placement=number),
    ]
