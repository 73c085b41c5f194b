"""What may be asked for, where the tenant lived then, and the order of a restore's steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.domain.catalogue import Isolation
from controlplane.domain.cluster import ClusterLifecycle, ClusterSpec, Origin
from controlplane.domain.errors import Invalid
from controlplane.domain.move import MoveGoal, MovePhase
from controlplane.domain.planner import plan_tenant
from controlplane.domain.restore import RestoreRequest, home_at, plan_restore, validate_request
from controlplane.domain.status import CredentialStatus, DatabaseStatus, RestoreStatus
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle
from tests.domain.test_planner import ACTIVE, READY, RECONCILED

S = StepName
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
BEGUN = RestoreStatus(made=False, ready=False, opened=False, copied=False, gone=True)
MADE = replace(BEGUN, made=True, gone=False)
OPENED = replace(MADE, ready=True, opened=True)
COPIED = replace(OPENED, copied=True)
PREPARING = MoveGoal(MovePhase.PREPARING, 2)
MAKING = [Step(S.MIGRATE_SCHEMA, "", placement=2), Step(S.VERIFY_ACCESS, "", placement=2)]
SPEC = ClusterSpec(ClusterLifecycle.ACTIVE, Isolation.SHARED, "17.5", 0.0, 8.0, 600, 7, 3)


def names(steps: list[Step]) -> list[StepName]:
    return [step.name for step in steps]


@pytest.mark.parametrize(
    ("move", "status", "left"),
    [
        (MoveGoal(MovePhase.PREPARING, None), BEGUN, [S.RESTORE_CLUSTER]),
        (MoveGoal(MovePhase.PREPARING, None), MADE, [S.PLACE_MOVE]),
        (PREPARING, MADE, [S.AWAIT_RESTORED]),
        (PREPARING, replace(MADE, ready=True), [S.OPEN_RESTORED]),
        (PREPARING, OPENED, [S.MIGRATE_SCHEMA, S.COPY_RESTORED, S.CUT_RESTORED]),
        (PREPARING, replace(OPENED, ready=False), [S.MIGRATE_SCHEMA, S.COPY_RESTORED, S.CUT_RESTORED]),
        (PREPARING, COPIED, [S.MIGRATE_SCHEMA, S.VERIFY_ACCESS, S.CUT_RESTORED]),
        (replace(PREPARING, phase=MovePhase.PAUSED), COPIED, [S.CUT_RESTORED]),
        (replace(PREPARING, phase=MovePhase.MOVED), COPIED, []),
        (replace(PREPARING, phase=MovePhase.MOVED, overdue=True), COPIED, [S.CONFIRM_MOVE]),
        (
            replace(PREPARING, phase=MovePhase.CONFIRMED),
            COPIED,
            [S.AWAIT_RESTORED_END, S.REMOVE_PLACEMENT],
        ),
        (replace(PREPARING, phase=MovePhase.CONFIRMED), replace(COPIED, gone=True), [S.REMOVE_PLACEMENT]),
        (MoveGoal(MovePhase.ABANDONED, None), BEGUN, [S.REMOVE_PLACEMENT]),
        (MoveGoal(MovePhase.DONE, 1), COPIED, []),
    ],
)
def test_what_is_left(move: MoveGoal, status: RestoreStatus, left: list[StepName]) -> None:
    assert names(plan_restore(move, status, MAKING)) == left


def test_the_tenant_is_served_before_its_restore_goes_on_and_not_touched_in_the_pause() -> None:
    goal = replace(ACTIVE, move=PREPARING, secondary=replace(ACTIVE, release="0001"))
    status = replace(RECONCILED, restore=OPENED, secondary=READY)
    steps = plan_tenant(replace(goal, access_proof="newer"), status)
    assert steps[0].name is S.VERIFY_ACCESS
    assert steps[0].placement is None
    assert [s.placement for s in steps[1:]] == [2] * (len(steps) - 1)
    assert [s.reason for s in steps if s.name is S.MIGRATE_SCHEMA] == ["release none → 0001"]
    paused = replace(goal, move=replace(PREPARING, phase=MovePhase.PAUSED), access_proof="newer")
    assert names(plan_tenant(paused, status)) == [S.CUT_RESTORED]


def test_rows_of_an_older_release_are_brought_forward_before_the_cut() -> None:
    goal = replace(ACTIVE, move=PREPARING, secondary=ACTIVE)
    there = replace(
        RECONCILED,
        database=DatabaseStatus(True, True, True, "0001"),
        app=CredentialStatus("v1", "v1"),
        access_proof=None,
    )
    steps = plan_tenant(goal, replace(RECONCILED, restore=COPIED, secondary=there))
    assert names(steps) == [S.MIGRATE_SCHEMA, S.VERIFY_ACCESS, S.CUT_RESTORED]


@pytest.mark.parametrize("lifecycle", [Lifecycle.SUSPENDED, Lifecycle.CLOSED])
def test_who_is_suspended_or_leaves_is_not_restored(lifecycle: Lifecycle) -> None:
    goal = replace(ACTIVE, lifecycle=lifecycle, routes={}, move=PREPARING)
    status = replace(RECONCILED, routes={}, restore=COPIED)
    assert S.GIVE_UP_MOVE in names(plan_tenant(goal, status))
    assert S.CUT_RESTORED not in names(plan_tenant(goal, status))


def test_a_tenant_lived_where_its_moves_say() -> None:
    moves = [(1, NOW - timedelta(hours=2)), (2, NOW - timedelta(hours=1))]
    assert [home_at(3, moves, NOW - timedelta(hours=h)) for h in (3, 2, 1.5, 1, 0)] == [1, 2, 2, 3, 3]
    assert home_at(7, [], NOW) == 7


def test_a_wish_comes_back_from_the_registry_as_it_was() -> None:
    for requested in (
        validate_request("2026-11-24T11:00:00+02:00", None, now=NOW),
        RestoreRequest(snapshot="nightly"),
    ):
        assert RestoreRequest.from_json(requested.to_json()) == requested
    assert str(validate_request("2026-11-24T11:00:00+02:00", None, now=NOW)) == (
        "as it was at 2026-11-24T09:00:00Z"
    )


@pytest.mark.parametrize(
    "name", ["nightly", "a", "rds:c-aaaaaaaaaaaa-2026-11-24-03-07", "awsbackup:job-1a2b", "x" * 255]
)
def test_names_that_rds_gives_are_taken(name: str) -> None:
    assert validate_request(None, name, now=NOW).snapshot == name


@pytest.mark.parametrize(
    "name", ["", "1a", "a-", "a--b", "x" * 256, "rds:", "other:a", "a b", "a\n", "arn:aws:rds:x:1:y:z", 7, []]
)
def test_names_that_rds_does_not_give_are_refused(name: object) -> None:
    with pytest.raises(Invalid, match=r"^snapshot: expected"):
        validate_request(None, name, now=NOW)


def test_this_very_moment_is_refused_and_the_one_before_is_taken() -> None:
    with pytest.raises(Invalid, match=r"it is 2026-11-24T12:00:00Z now"):
        validate_request("2026-11-24T12:00:00Z", None, now=NOW)
    assert validate_request("2026-11-24T11:59:59Z", None, now=NOW).at == NOW - timedelta(seconds=1)


def test_a_restored_cluster_serves_no_plan_and_survives_the_registry() -> None:
    restored = SPEC.restored(Origin("c-aaaaaaaaaaaa", at="2026-11-24T10:00:00Z"))
    assert (restored.instance_count, restored.min_acu, restored.seconds_until_auto_pause) == (1, 0.5, None)
    assert restored.cluster_class != replace(restored, origin=None).cluster_class
    for spec in (SPEC, restored, restored.closed()):
        assert ClusterSpec.from_json(spec.to_json()) == spec
    assert "origin" not in SPEC.to_json()
