"""What the workers do by the clock: periodic looks that leave no trace where nothing was to be done."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.errors import Retryable
from controlplane.domain.operation import PERIODIC_LOOK, ResourceKind
from controlplane.domain.placement import tenant_id_for
from controlplane.services import timers
from controlplane.store import operation
from tests.workers.house import House

# ------------------------------------------------------------------------------- periodic looks


def subscribed(house: House) -> str:
    subscription = house.subscribe(1)
    house.hear(subscription)
    house.work()
    return tenant_id_for(subscription)


def look(house: House) -> None:
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp(), observed_at = NULL")


def rows(house: House, statement: str) -> list[dict[str, Any]]:
    with house.ctx.registry.connection() as conn:
        return conn.execute(statement.encode()).fetchall()


OPERATIONS = "SELECT id, reason, state, attempts FROM operation ORDER BY id"


def test_a_look_that_changed_nothing_is_not_kept(house: House) -> None:
    subscribed(house)
    before = rows(house, OPERATIONS)
    for _ in range(5):
        look(house)
        house.work()
    assert rows(house, OPERATIONS) == before
    [seen] = rows(house, "SELECT observed_at, next_look_at FROM tenant")
    assert seen["observed_at"] is not None
    assert seen["next_look_at"] is not None
    assert house.violations() == []


def test_a_look_that_mended_something_is_history(house: House) -> None:
    subscribed(house)
    known = len(rows(house, OPERATIONS))
    house.cache.flush()
    look(house)
    house.work()
    [kept] = rows(house, OPERATIONS)[known:]
    assert (kept["reason"], kept["state"]) == (PERIODIC_LOOK, "done")
    assert rows(house, f"SELECT name FROM step WHERE operation_id = {kept['id']}")


def test_a_look_that_somebody_asked_for_meanwhile_is_theirs(house: House) -> None:
    tenant_id = subscribed(house)
    look(house)
    with house.ctx.registry.connection() as conn:
        timers.run(conn, limit=10)
        asked = operation.request(
            conn, ResourceKind.TENANT, tenant_id, reason="a customer called", actor="support"
        )
    house.work()
    assert [row["state"] for row in rows(house, OPERATIONS) if row["id"] == asked] == ["done"]


def test_a_look_that_failed_at_first_is_history(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribed(house)
    known = len(rows(house, OPERATIONS))
    look(house)
    read, failed = house.cache.read, []

    def once(host: str) -> Any:
        if not failed:
            failed.append(host)
            raise Retryable("the cache does not answer")
        return read(host)

    monkeypatch.setattr(house.cache, "read", once)
    house.work()
    assert failed
    [kept] = rows(house, OPERATIONS)[known:]
    assert (kept["reason"], kept["state"], kept["attempts"]) == (PERIODIC_LOOK, "done", 2)
