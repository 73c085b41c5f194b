"""Everybody who asked for an operation stands on it: the first gives the reason, none is lost."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import Retryable
from controlplane.domain.job import JobKind
from controlplane.domain.placement import tenant_id_for
from controlplane.store import event, operation
from controlplane.workers.schedule import duties
from tests.harness.engine import Harness
from tests.harness.work import do_one, work_once

SUBSCRIPTION = "sub_00000001"
TENANT = tenant_id_for(SUBSCRIPTION)


def paid(harness: Harness) -> None:
    harness.hear(harness.subscribe(1), event_id="evt_paid")
    harness.work()


def newest(harness: Harness) -> Any:
    with harness.ctx.registry.connection() as conn:
        return operation.page(conn, before=None, limit=1, resource_id=TENANT, state=None)[0]


def rotate(harness: Harness, actor: str = "api:support", reason: str = "leaked") -> int:
    with harness.ctx.registry.connection() as conn:
        return run(conn, "rotate", TENANT, actor=actor, reason=reason).operation_id


def reasons(row: Any) -> list[tuple[str, str]]:
    return [(cause["actor"], cause["reason"]) for cause in row.causes]


def more_seats(harness: Harness, event_id: str, quantity: int = 7) -> None:
    harness.subscribe(1, quantity=quantity)
    harness.hear(SUBSCRIPTION, event_id=event_id)
    do_one(harness.ctx, JobKind.INTAKE, "cus_00000001")
    with harness.ctx.registry.connection() as conn:
        assert event.get(conn, event_id).state == "applied"


def test_what_a_billing_event_asked_for_names_the_event(harness: Harness) -> None:
    paid(harness)
    [cause] = newest(harness).causes
    assert (cause["actor"], cause["event"], cause["request"]) == ("billing", "evt_paid", None)
    assert cause["at"].endswith("Z")
    with harness.ctx.registry.connection() as conn:
        cluster = conn.execute("SELECT causes FROM operation WHERE kind = 'cluster'").fetchone()
    assert cluster is not None
    assert [found["event"] for found in cluster["causes"]] == ["evt_paid"]


def test_a_second_request_keeps_the_first_and_its_event(harness: Harness) -> None:
    paid(harness)
    more_seats(harness, "evt_seats")
    rotate(harness)
    row = newest(harness)
    assert (row.actor, row.reason) == ("billing", "customer.subscription.updated evt_seats")
    assert reasons(row) == [(row.actor, row.reason), ("api:support", "leaked")]
    assert [cause["event"] for cause in row.causes] == ["evt_seats", None]
    assert row.cause_count == 2


def test_a_periodic_look_is_no_cause_and_gives_way_to_one(harness: Harness) -> None:
    paid(harness)
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
    assert duties.run_timers(harness.ctx) == 1
    row = newest(harness)
    assert (row.reason, row.causes, row.cause_count) == ("periodic observation", [], 0)
    rotate(harness)
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
    assert duties.run_timers(harness.ctx) == 1
    row = newest(harness)
    assert (row.reason, row.actor, row.cause_count) == ("leaked", "api:support", 1)


def test_they_are_bounded_and_counted(harness: Harness) -> None:
    paid(harness)
    for number in range(60):
        rotate(harness, reason=f"number {number}")
    row = newest(harness)
    assert (row.cause_count, len(row.causes), row.reason) == (60, 50, "number 0")
    assert [cause["reason"] for cause in row.causes] == [
        "number 0",
        *(f"number {number}" for number in range(11, 60)),
    ]


def test_one_that_failed_takes_over_the_causes_of_one_that_came_meanwhile(harness: Harness) -> None:
    paid(harness)
    first = rotate(harness, reason="leaked")

    meanwhile: list[int] = []

    def fails(point: str) -> None:
        if point == "secrets.describe:before":
            harness.world._crash = lambda _point: None
            more_seats(harness, "evt_meanwhile")
            meanwhile.append(newest(harness).id)
            raise Retryable("Secrets Manager is away")

    harness.world._crash = fails
    do_one(harness.ctx, JobKind.TENANT, TENANT)
    row = newest(harness)
    assert (row.id, row.state, row.error) == (first, "waiting", "Secrets Manager is away")
    assert row.attempts == 0
    assert meanwhile[0] != first
    with harness.ctx.registry.connection() as conn:
        assert operation.get(conn, meanwhile[0]) == row
    assert reasons(row) == [
        ("api:support", "leaked"),
        ("billing", "customer.subscription.updated evt_meanwhile"),
    ]
    assert (row.reason, row.actor, row.cause_count) == ("leaked", "api:support", 2)
    harness.work()
    assert harness.violations() == []


@pytest.mark.parametrize("attempts", [1, 3])
def test_one_that_failed_and_waits_again_keeps_its_own(harness: Harness, attempts: int) -> None:
    paid(harness)
    rotate(harness)
    harness.world._crash = _away
    for _ in range(attempts):
        harness.pass_time()
        work_once(harness.ctx)
    rotate(harness, actor="api:anna", reason="again")
    assert reasons(newest(harness)) == [("api:support", "leaked"), ("api:anna", "again")]
    harness.world._crash = lambda _point: None


def _away(point: str) -> None:
    if point == "secrets.describe:before":
        raise Retryable("Secrets Manager is away")
