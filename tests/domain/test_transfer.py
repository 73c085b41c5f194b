"""The steps that are left of each kind of transfer; what may be asked for, where the tenant lived then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.domain.catalogue import Catalogue, Isolation, Plan
from controlplane.domain.cluster import ClusterLifecycle, ClusterSpec, Origin
from controlplane.domain.errors import Invalid, Refused
from controlplane.domain.planner import TransferGoal, plan_tenant
from controlplane.domain.planner.transfer import plan_transfer
from controlplane.domain.status import CredentialStatus, DatabaseStatus, TransferStatus
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import (
    RestoreRequest,
    TransferKind,
    TransferPhase,
    home_at,
    plan_for_destination,
    validate_destination,
    validate_request,
)
from tests.domain.test_planner import ACTIVE, READY, RECONCILED

S, P = StepName, TransferPhase
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
BEGUN = TransferStatus()
MADE = replace(BEGUN, made=True, gone=False)
OPENED = replace(MADE, ready=True, opened=True)
KEPT = replace(BEGUN, streaming=True)
FILLED = replace(KEPT, copied=True)
RESTORE = TransferGoal(P.PREPARING, "p-2", kind=TransferKind.RESTORE)
MOVE = TransferGoal(P.PREPARING, "p-2")
CLONE = TransferGoal(P.PREPARING, "p-1", kind=TransferKind.CLONE)
MAKING = [Step(S.MIGRATE_SCHEMA, "", placement="p-2"), Step(S.VERIFY_ACCESS, "", placement="p-2")]
SPEC = ClusterSpec(ClusterLifecycle.ACTIVE, Isolation.SHARED, "17.5", 0.0, 8.0, 600, 7, 3)


def names(steps: list[Step]) -> list[StepName]:
    return [step.name for step in steps]


def left(transfer: TransferGoal, status: TransferStatus) -> list[StepName]:
    goal = replace(ACTIVE, transfer=transfer)
    return names(plan_transfer(goal, replace(RECONCILED, transfer=status), MAKING))


@pytest.mark.parametrize(
    ("transfer", "status", "expected"),
    [
        (replace(RESTORE, other=None), BEGUN, [S.RESTORE_CLUSTER]),
        (replace(RESTORE, other=None), MADE, [S.PLACE_TRANSFER]),
        (RESTORE, MADE, [S.AWAIT_RESTORED]),
        (RESTORE, replace(MADE, ready=True), [S.OPEN_RESTORED]),
        (RESTORE, OPENED, [S.MIGRATE_SCHEMA, S.COPY_ROWS, S.CUT_OVER]),
        (RESTORE, replace(OPENED, ready=False), [S.MIGRATE_SCHEMA, S.COPY_ROWS, S.CUT_OVER]),
        (replace(RESTORE, phase=P.COPYING), OPENED, [S.MIGRATE_SCHEMA, S.COPY_ROWS, S.CUT_OVER]),
        (replace(RESTORE, phase=P.FOLLOWING), OPENED, [S.MIGRATE_SCHEMA, S.VERIFY_ACCESS, S.CUT_OVER]),
        (replace(RESTORE, phase=P.CUT), OPENED, [S.CUT_OVER]),
        (replace(RESTORE, phase=P.REVERSIBLE), OPENED, []),
        (replace(RESTORE, phase=P.REVERSIBLE, overdue=True), OPENED, [S.CONFIRM_TRANSFER]),
        (replace(RESTORE, phase=P.CONFIRMED), OPENED, [S.AWAIT_RESTORED_END, S.REMOVE_PLACEMENT]),
        (replace(RESTORE, phase=P.CONFIRMED), replace(OPENED, gone=True), [S.REMOVE_PLACEMENT]),
        (replace(RESTORE, phase=P.ABORTED, other=None), BEGUN, [S.REMOVE_PLACEMENT]),
    ],
)
def test_what_is_left_of_a_restore(
    transfer: TransferGoal, status: TransferStatus, expected: list[StepName]
) -> None:
    assert left(transfer, status) == expected


@pytest.mark.parametrize(
    ("transfer", "status", "expected"),
    [
        (replace(MOVE, other=None), BEGUN, [S.PLACE_TRANSFER]),
        (MOVE, BEGUN, [*names(MAKING), S.BEGIN_COPY, S.COPY_ROWS, S.CUT_OVER]),
        (MOVE, KEPT, [*names(MAKING), S.COPY_ROWS, S.CUT_OVER]),
        (replace(MOVE, phase=P.COPYING), FILLED, [*names(MAKING), S.COPY_ROWS, S.CUT_OVER]),
        (replace(MOVE, phase=P.FOLLOWING), FILLED, [*names(MAKING), S.CUT_OVER]),
        (replace(MOVE, phase=P.FOLLOWING), KEPT, [*names(MAKING), S.COPY_ROWS, S.CUT_OVER]),
        (
            replace(MOVE, phase=P.FOLLOWING),
            BEGUN,
            [*names(MAKING), S.BEGIN_COPY, S.COPY_ROWS, S.CUT_OVER],
        ),
        (replace(MOVE, phase=P.CUT), FILLED, [S.CUT_OVER]),
        (replace(MOVE, phase=P.REVERSIBLE), FILLED, [S.END_COPY]),
        (replace(MOVE, phase=P.REVERSIBLE, overdue=True), KEPT, [S.END_COPY, S.CONFIRM_TRANSFER]),
        (replace(MOVE, phase=P.CONFIRMED), BEGUN, [S.REMOVE_PLACEMENT]),
        (replace(MOVE, phase=P.ABORTED), KEPT, [S.END_COPY, S.REMOVE_PLACEMENT]),
        (replace(MOVE, phase=P.COPYING, pointless=True), KEPT, [S.ABORT_TRANSFER]),
    ],
)
def test_what_is_left_of_a_move(
    transfer: TransferGoal, status: TransferStatus, expected: list[StepName]
) -> None:
    assert left(transfer, status) == expected


def test_a_clone_is_placed_before_it_is_made_and_filled_before_it_is_served() -> None:
    status = replace(READY, transfer=BEGUN)
    unplaced = plan_tenant(replace(ACTIVE, transfer=replace(CLONE, other=None)), status)
    assert names(unplaced) == [S.PLACE_TRANSFER]
    for phase in (P.PREPARING, P.COPYING):
        steps = names(plan_tenant(replace(ACTIVE, transfer=replace(CLONE, phase=phase)), status))
        assert steps.index(S.VERIFY_ACCESS) < steps.index(S.COPY_ROWS) < steps.index(S.PUBLISH)
        assert S.CUT_OVER not in steps


def test_the_tenant_is_served_before_its_restore_goes_on_and_not_touched_in_the_pause() -> None:
    goal = replace(ACTIVE, transfer=RESTORE, secondary=replace(ACTIVE, release="0001"))
    status = replace(RECONCILED, transfer=OPENED, secondary=READY)
    steps = plan_tenant(replace(goal, access_proof="newer"), status)
    assert steps[0].name is S.VERIFY_ACCESS
    assert steps[0].placement is None
    assert [s.placement for s in steps[1:]] == ["p-2"] * (len(steps) - 1)
    assert [s.reason for s in steps if s.name is S.MIGRATE_SCHEMA] == ["release none → 0001"]
    paused = replace(goal, transfer=replace(RESTORE, phase=P.CUT), access_proof="newer")
    assert names(plan_tenant(paused, status)) == [S.CUT_OVER]


def test_rows_of_an_older_release_are_brought_forward_before_the_cut() -> None:
    goal = replace(ACTIVE, transfer=replace(RESTORE, phase=P.FOLLOWING), secondary=ACTIVE)
    there = replace(
        RECONCILED,
        database=DatabaseStatus(True, True, True, "0001"),
        app=CredentialStatus("v1", "v1"),
        access_proof=None,
    )
    steps = plan_tenant(goal, replace(RECONCILED, transfer=OPENED, secondary=there))
    assert names(steps) == [S.MIGRATE_SCHEMA, S.VERIFY_ACCESS, S.CUT_OVER]


@pytest.mark.parametrize("lifecycle", [Lifecycle.SUSPENDED, Lifecycle.CLOSED])
@pytest.mark.parametrize("transfer", [RESTORE, MOVE, CLONE])
@pytest.mark.parametrize("phase", [P.PREPARING, P.COPYING, P.FOLLOWING, P.CUT])
def test_who_is_suspended_or_leaves_stays_where_its_data_is(
    lifecycle: Lifecycle, transfer: TransferGoal, phase: TransferPhase
) -> None:
    goal = replace(ACTIVE, lifecycle=lifecycle, routes={}, transfer=replace(transfer, phase=phase))
    steps = names(plan_tenant(goal, replace(RECONCILED, routes={}, transfer=OPENED)))
    assert S.ABORT_TRANSFER in steps
    assert {S.CUT_OVER, S.COPY_ROWS}.isdisjoint(steps)


def test_a_tenant_lived_where_its_transfers_say() -> None:
    left = [("p-1", NOW - timedelta(hours=2)), ("p-2", NOW - timedelta(hours=1))]
    assert [home_at("p-3", left, NOW - timedelta(hours=h)) for h in (3, 2, 1.5, 1, 0)] == [
        "p-1",
        "p-2",
        "p-2",
        "p-3",
        "p-3",
    ]
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


@pytest.mark.parametrize("to", ["dedicated", "shared", "c-abcdefghij23"])
def test_where_a_tenant_may_be_moved(to: str) -> None:
    assert validate_destination(to) == to


@pytest.mark.parametrize("to", ["", "Dedicated", "c-short", "c-abcdefghij23\n", None, 7, ["shared"]])
def test_where_it_may_not(to: object) -> None:
    with pytest.raises(Invalid, match=r"^to: expected dedicated, shared or a cluster's id"):
        validate_destination(to)


def test_the_plan_of_another_kind_of_cluster_is_the_smallest_that_there_is() -> None:
    shared = plan("shared", Isolation.SHARED, 8)
    small, large = (plan(name, Isolation.DEDICATED, acu) for name, acu in (("small", 4), ("a-large", 16)))
    catalogue = Catalogue(1, {found.name: found for found in (shared, large, small)})
    assert plan_for_destination(catalogue, shared, Isolation.DEDICATED) is small
    assert plan_for_destination(catalogue, large, Isolation.DEDICATED) is large, "its own, where that fits"
    assert plan_for_destination(catalogue, large, Isolation.SHARED) is shared
    with pytest.raises(Refused, match="no plan of the catalogue is dedicated"):
        plan_for_destination(Catalogue(1, {"shared": shared}), shared, Isolation.DEDICATED)


def plan(name: str, isolation: Isolation, max_acu: float) -> Plan:
    return Plan(
        name,
        isolation,
        min_acu=0.5,
        max_acu=max_acu,
        backup_retention_days=7,
        pool_size=5,
        connection_limit=20,
        retention_days=30,
    )


@pytest.mark.parametrize(
    "at",
    ["yesterday", "2026-11-24T10:00:00", "2026-11-24T10:00:00.5Z", "", 7, datetime(2026, 11, 24, tzinfo=UTC)],
)
def test_a_moment_names_its_zone_and_no_part_of_a_second(at: object) -> None:
    with pytest.raises(Invalid, match=r"^at: expected a moment in the past") as refused:
        validate_request(at, None, now=NOW)
    told = "a datetime" if isinstance(at, datetime) else repr(at)
    assert str(refused.value).endswith(f"got {told}")


def test_a_tenant_without_a_transfer_or_one_that_nobody_has_looked_at_has_no_step_of_it() -> None:
    assert plan_transfer(replace(ACTIVE, transfer=MOVE), RECONCILED, MAKING) == []
    assert plan_transfer(ACTIVE, replace(RECONCILED, transfer=FILLED), MAKING) == []
