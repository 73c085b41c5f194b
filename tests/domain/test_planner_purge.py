"""The order of a purge that was approved: a copy before anything goes, the slot, then the certificate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.planner import PurgeGoal, plan_tenant
from controlplane.domain.status import DatabaseStatus, PurgeStatus
from controlplane.domain.steps import StepName
from controlplane.domain.tenant import Lifecycle
from tests.domain.test_planner import ACTIVE, RECONCILED, names

S = StepName
SHARED, ALONE = PurgeGoal(7, cluster_goes=False), PurgeGoal(7, cluster_goes=True)
GOAL = replace(ACTIVE, lifecycle=Lifecycle.CLOSED, routes={}, announcement={}, purge=SHARED)
CLOSED = DatabaseStatus(True, True, False, "0002", roles=True)
WHOLE = PurgeStatus(
    placed=True, releasing=False, copied=False, cluster_gone=False, purged=False, copy_overdue=False
)


def left(goal: PurgeGoal, purging: PurgeStatus, database: DatabaseStatus | None = CLOSED) -> list[str]:
    status = replace(RECONCILED, routes={}, database=database, purging=purging)
    return names(plan_tenant(replace(GOAL, purge=goal), status))


def test_a_copy_first_then_everything_then_the_certificate() -> None:
    assert left(SHARED, WHOLE) == [
        "keep_copy:dump",
        "drop_database",
        "release_placement",
        "await_secret_end",
        "certify",
    ]


def test_a_cluster_of_its_own_goes_whole_and_its_copy_is_a_snapshot() -> None:
    assert left(ALONE, WHOLE) == [
        "keep_copy:snapshot",
        "release_placement",
        "await_secret_end",
        "await_cluster_end",
        "certify",
    ]
    assert left(ALONE, replace(WHOLE, cluster_gone=True))[-2:] == ["await_secret_end", "certify"]
    assert left(SHARED, replace(WHOLE, cluster_gone=True)) == left(SHARED, WHOLE)


@pytest.mark.parametrize(
    ("database", "begins"),
    [
        (CLOSED, ["drop_database", "release_placement"]),
        (replace(CLOSED, exists=False), ["drop_database", "release_placement"]),
        (replace(CLOSED, roles=False), ["drop_database", "release_placement"]),
        (replace(CLOSED, exists=False, roles=False), ["release_placement", "await_secret_end"]),
        (None, ["release_placement", "await_secret_end"]),
    ],
)
def test_what_is_copied_is_dropped_and_what_was_never_made_is_not(
    database: DatabaseStatus | None, begins: list[str]
) -> None:
    """Roles outlive a database that was dropped."""
    assert left(SHARED, replace(WHOLE, copied=True), database)[:2] == begins
    never_made = database is None or not database.exists
    assert ("keep_copy:dump" in left(SHARED, WHOLE, database)) is not never_made


def test_what_is_gone_is_passed_over() -> None:
    copied = replace(WHOLE, copied=True)
    assert left(SHARED, copied, None) == ["release_placement", "await_secret_end", "certify"]
    assert left(SHARED, replace(copied, placed=False), None) == ["certify"]
    assert left(SHARED, replace(copied, placed=False, releasing=True), None) == [
        "await_secret_end",
        "certify",
    ]


def test_after_the_certificate_only_the_copy_is_left_for_its_time() -> None:
    over = replace(WHOLE, placed=False, copied=True, purged=True)
    assert left(SHARED, over, None) == []
    assert left(SHARED, replace(over, copy_overdue=True), None) == ["delete_copy"]


@pytest.mark.parametrize("lifecycle", [Lifecycle.ACTIVE, Lifecycle.SUSPENDED])
def test_only_a_closed_tenant_is_purged(lifecycle: Lifecycle) -> None:
    goal = replace(GOAL, lifecycle=lifecycle)
    found = plan_tenant(goal, replace(RECONCILED, routes={}, purging=WHOLE))
    assert not {step.name for step in found} & {S.KEEP_COPY, S.DROP_DATABASE, S.RELEASE_PLACEMENT, S.CERTIFY}


def test_nothing_goes_without_an_order_or_before_it_was_looked_at() -> None:
    retiring = replace(RECONCILED.app, retire_in=-1.0)
    status = replace(RECONCILED, routes={}, database=CLOSED, app=retiring)
    assert names(plan_tenant(replace(GOAL, purge=None), replace(status, purging=WHOLE))) == ["retire_login"]
    assert names(plan_tenant(GOAL, status)) == ["retire_login"], "nobody has looked what there is"
