"""What the planner calls for by itself, and what it leaves to a person: purges that are due, moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane.domain.catalogue import Isolation
from controlplane.domain.planner import (
    LastTransfer,
    ResidenceGoal,
    RetentionGoal,
    TransferGoal,
    plan_tenant,
)
from controlplane.domain.status import TransferStatus
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind, TransferPhase
from tests.domain.test_planner import ACTIVE, RECONCILED

CLOSED = replace(ACTIVE, lifecycle=Lifecycle.CLOSED, routes={})
LEFT = replace(RECONCILED, database=None, routes={})
OVER = RetentionGoal(
    left=0.0,
    until=datetime(2026, 11, 1, tzinfo=UTC),
    kept_for=None,
    noted=False,
    requested=False,
    unasked=False,
)
AWAY = ResidenceGoal("team", wanted=Isolation.DEDICATED, home=Isolation.SHARED, last=None)


def due(retention: RetentionGoal) -> list[Step]:
    return plan_tenant(replace(CLOSED, retention=retention), LEFT)


def called_for(residence: ResidenceGoal, transfer: TransferGoal | None = None) -> list[Step]:
    status = RECONCILED if transfer is None else replace(RECONCILED, transfer=TransferStatus())
    return plan_tenant(replace(ACTIVE, residence=residence, transfer=transfer), status)


@pytest.mark.parametrize("unasked", [True, False])
def test_nothing_is_due_while_the_retention_lasts(unasked: bool) -> None:
    assert due(replace(OVER, left=0.1, unasked=unasked)) == []


def test_two_persons_decide_about_a_purge_that_is_due() -> None:
    [step] = due(OVER)
    assert (step.name, step.runbook) == (StepName.AWAIT_DECISION, "purge-due")
    assert (
        step.reason == "its retention ended at 2026-11-01T00:00:00+00:00: two persons decide about its purge"
    )


def test_a_plan_that_asks_nobody_orders_it() -> None:
    [step] = due(replace(OVER, unasked=True))
    assert step.name is StepName.ORDER_PURGE


def test_what_one_person_has_asked_for_waits_for_the_second_whatever_the_plan_says() -> None:
    [step] = due(replace(OVER, unasked=True, requested=True))
    assert step.name is StepName.AWAIT_DECISION


@pytest.mark.parametrize("left", [0.0, 100.0])
@pytest.mark.parametrize("unasked", [True, False])
def test_nothing_is_ordered_while_its_customer_has_a_subscription(left: float, unasked: bool) -> None:
    kept = replace(OVER, left=left, unasked=unasked, kept_for="cus_1 has sub_2")
    [step] = due(kept)
    assert (step.name, step.reason) == (StepName.HEED_RETURN, "cus_1 has sub_2")
    assert due(replace(kept, noted=True)) == [], "a person was told"
    [withdrawn] = due(replace(kept, noted=True, requested=True))
    assert withdrawn.name is StepName.HEED_RETURN, "what was asked for is withdrawn"


def test_a_return_that_is_over_is_noted_before_anything_is_due() -> None:
    [step] = due(replace(OVER, noted=True, unasked=True))
    assert step.name is StepName.HEED_RETURN


def test_a_plan_that_asks_for_another_kind_of_cluster_calls_for_a_move() -> None:
    [step] = called_for(AWAY)
    assert (step.name, step.target) == (StepName.BEGIN_TRANSFER, "dedicated")
    assert step.reason == "plan team is dedicated, its cluster is shared"
    assert called_for(replace(AWAY, home=Isolation.DEDICATED)) == []


@pytest.mark.parametrize("lifecycle", [Lifecycle.SUSPENDED, Lifecycle.CLOSED])
def test_who_leaves_has_its_decisions_last(lifecycle: Lifecycle) -> None:
    steps = plan_tenant(replace(ACTIVE, lifecycle=lifecycle, retention=OVER), RECONCILED)
    assert [step.name for step in steps] == [StepName.CLOSE_LOGINS, StepName.AWAIT_DECISION]


@pytest.mark.parametrize(
    ("last", "runbook"),
    [
        (LastTransfer(TransferPhase.CONFIRMED, "team", by_hand=True, declined=False), None),
        (LastTransfer(TransferPhase.ABORTED, "team", by_hand=True, declined=True), None),
        (LastTransfer(TransferPhase.ABORTED, "team", by_hand=False, declined=True), "move-between-clusters"),
        (LastTransfer(TransferPhase.ABORTED, "starter", by_hand=False, declined=True), ""),
        (LastTransfer(TransferPhase.CONFIRMED, "starter", by_hand=True, declined=False), ""),
        (LastTransfer(TransferPhase.CONFIRMED, "team", by_hand=False, declined=False), ""),
    ],
)
def test_a_persons_word_about_a_move_holds_for_the_plan_it_was_said_under(
    last: LastTransfer, runbook: str | None
) -> None:
    """None: it stays where it is. A runbook: a person is asked. "": it moves."""
    steps = called_for(replace(AWAY, last=last))
    if runbook is None:
        assert steps == []
        return
    [step] = steps
    assert (step.name is StepName.AWAIT_DECISION, step.runbook) == (runbook != "", runbook)


@pytest.mark.parametrize("kind", [TransferKind.MOVE, TransferKind.RESTORE])
def test_one_that_is_not_over_stands_in_the_way_of_another(kind: TransferKind) -> None:
    step = called_for(AWAY, TransferGoal(TransferPhase.REVERSIBLE, 1, kind=kind))[-1]
    assert (step.name, step.runbook) == (StepName.AWAIT_DECISION, "move-between-clusters")
    assert step.reason.endswith(f", and its last {kind.value} is reversible")


def test_tables_that_differ_after_a_move_are_a_persons_to_judge() -> None:
    tables = tuple(f"t{n}" for n in range(12))
    at_home = replace(AWAY, home=Isolation.DEDICATED)
    step = called_for(at_home, TransferGoal(TransferPhase.REVERSIBLE, 1, differing=tables, unproven=True))[-1]
    assert (step.name, step.runbook) == (StepName.AWAIT_DECISION, "move-mismatch")
    assert step.reason.endswith("t8, t9 were not the same")
    confirmed = TransferGoal(TransferPhase.CONFIRMED, 1, differing=tables)
    assert all(step.name is not StepName.AWAIT_DECISION for step in called_for(at_home, confirmed))


def test_a_source_that_was_never_compared_waits_for_a_person_when_its_time_is_over() -> None:
    at_home = replace(AWAY, home=Isolation.DEDICATED)
    cut_off = TransferGoal(TransferPhase.REVERSIBLE, 1, unproven=True)
    for lifecycle in (Lifecycle.ACTIVE, Lifecycle.CLOSED):
        goal = replace(ACTIVE, lifecycle=lifecycle, residence=at_home, transfer=cut_off)
        step = plan_tenant(goal, replace(RECONCILED, transfer=TransferStatus()))[-1]
        assert (step.name, step.runbook) == (StepName.AWAIT_DECISION, "move-mismatch")
        assert step.reason == "its move was cut off before the two ends were compared"
    assert called_for(at_home, replace(cut_off, unproven=False)) == []
    assert all(
        s.name is not StepName.AWAIT_DECISION
        for s in called_for(at_home, replace(cut_off, phase=TransferPhase.CONFIRMED))
    )
