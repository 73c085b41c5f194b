"""Everybody who asked for an operation stands on it: the first gives the reason, none is lost."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.errors import Retryable
from controlplane.domain.placement import tenant_id_for
from controlplane.services import tenants
from controlplane.store import operation
from tests.engine.house import House
from workers.jobs.intake import handle_event
from workers.runtime import polling

SUBSCRIPTION = "sub_00000001"
TENANT = tenant_id_for(SUBSCRIPTION)


def paid(house: House) -> None:
    house.hear(house.subscribe(1), event_id="evt_paid")
    house.work()


def newest(house: House) -> Any:
    with house.ctx.registry.connection() as conn:
        return operation.page(conn, before=None, limit=1, resource_id=TENANT, state=None)[0]


def rotate(house: House, actor: str = "api:support", reason: str = "leaked") -> int:
    with house.ctx.registry.connection() as conn:
        return tenants.rotate(conn, TENANT, actor=actor, reason=reason)


def reasons(row: Any) -> list[tuple[str, str]]:
    return [(cause["actor"], cause["reason"]) for cause in row.causes]


def more_seats(house: House, event_id: str, quantity: int = 7) -> None:
    house.subscribe(1, quantity=quantity)
    house.hear(SUBSCRIPTION, event_id=event_id)
    assert handle_event(house.ctx, event_id) == "applied"


def test_what_a_billing_event_asked_for_names_the_event(house: House) -> None:
    paid(house)
    [cause] = newest(house).causes
    assert (cause["actor"], cause["event"], cause["request"]) == ("billing", "evt_paid", None)
    assert cause["at"].endswith("Z")
    with house.ctx.registry.connection() as conn:
        cluster = conn.execute("SELECT causes FROM operation WHERE kind = 'cluster'").fetchone()
    assert cluster is not None
    assert [found["event"] for found in cluster["causes"]] == ["evt_paid"]


def test_a_second_request_keeps_the_first_and_its_event(house: House) -> None:
    paid(house)
    more_seats(house, "evt_seats")
    rotate(house)
    row = newest(house)
    assert (row.actor, row.reason) == ("billing", "customer.subscription.updated evt_seats")
    assert reasons(row) == [(row.actor, row.reason), ("api:support", "leaked")]
    assert [cause["event"] for cause in row.causes] == ["evt_seats", None]
    assert row.cause_count == 2


def test_a_periodic_look_is_no_cause_and_gives_way_to_one(house: House) -> None:
    paid(house)
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")
        conn.execute("UPDATE lease SET until = 'infinity'")
    polling.work_once(house.ctx)
    row = newest(house)
    assert (row.reason, row.causes, row.cause_count) == ("periodic look", [], 0)
    rotate(house)
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")
    polling.work_once(house.ctx)
    row = newest(house)
    assert (row.reason, row.actor, row.cause_count) == ("leaked", "api:support", 1)


def test_they_are_bounded_and_counted(house: House) -> None:
    paid(house)
    for number in range(60):
        rotate(house, reason=f"number {number}")
    row = newest(house)
    assert (row.cause_count, len(row.causes), row.reason) == (60, 50, "number 0")
    assert [cause["reason"] for cause in row.causes] == [
        "number 0",
        *(f"number {number}" for number in range(11, 60)),
    ]


def test_one_that_is_superseded_hands_its_causes_on(house: House) -> None:
    paid(house)
    first = rotate(house, reason="leaked")

    def fails(point: str) -> None:
        if point == "secrets.describe:before":
            house.world._crash = lambda _point: None
            more_seats(house, "evt_meanwhile")
            raise Retryable("Secrets Manager is away")

    house.world._crash = fails
    polling.work_once(house.ctx)
    with house.ctx.registry.connection() as conn:
        assert operation.get(conn, first).state == "superseded"
    row = newest(house)
    assert row.id != first
    assert reasons(row) == [
        ("api:support", "leaked"),
        ("billing", "customer.subscription.updated evt_meanwhile"),
    ]
    assert (row.reason, row.actor, row.cause_count) == ("leaked", "api:support", 2)
    house.work()
    assert house.violations() == []


@pytest.mark.parametrize("attempts", [1, 3])
def test_one_that_failed_and_waits_again_keeps_its_own(house: House, attempts: int) -> None:
    paid(house)
    rotate(house)
    house.world._crash = _away
    for _ in range(attempts):
        house.pass_time()
        polling.work_once(house.ctx)
    rotate(house, actor="api:anna", reason="again")
    assert reasons(newest(house)) == [("api:support", "leaked"), ("api:anna", "again")]
    house.world._crash = lambda _point: None


def _away(point: str) -> None:
    if point == "secrets.describe:before":
        raise Retryable("Secrets Manager is away")
