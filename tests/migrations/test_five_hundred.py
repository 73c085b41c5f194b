"""The two promises at their full size: 500 databases, one of them bad; 500 databases under kill -9."""

from __future__ import annotations

import pytest

from controlplane.services import rollouts
from tests.migrations.conftest import MakeFleet
from tests.migrations.fleet import counting
from tests.migrations.test_killed_workers import LEASE, kill_through, slow

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]
MANY = 500


def test_one_bad_database_of_five_hundred(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(MANY)
    base = {"0001_base.sql": "CREATE TABLE ran (number int); CREATE TABLE notes (body text)"}
    fleet.bring_all_to(fleet.release(base))
    bad = fleet.tenants[321]
    with fleet.superuser(bad.database) as conn:
        conn.execute("INSERT INTO app.notes VALUES ('poison')")
    number = fleet.release(
        base
        | {
            "0002_more.sql": "INSERT INTO ran VALUES (2);\nALTER TABLE notes ADD stars int;\n"
            "INSERT INTO ran SELECT 1 / (body <> 'poison')::int FROM notes"
        }
    )
    rollout_id = fleet.start(number, waves=["customer-1", "10%", "100%"])
    halted = fleet.work(rollout_id)
    assert halted.rollout.state == "halted"
    assert halted.waves[0].counts.done == 1
    assert halted.counts.failed == 1
    (failure,) = halted.failures
    assert (failure.tenants, failure.example) == (1, bad.tenant_id)
    assert failure.error == "22012 division by zero"
    assert failure.statement == "INSERT INTO ran SELECT 1 / (body <> 'poison')::int FROM notes"
    with fleet.superuser(bad.database) as conn:
        conn.execute("DELETE FROM app.notes")
    with fleet.registry.connection() as conn:
        rollouts.retry(conn, rollout_id, None, actor="test")
    done = fleet.work(rollout_id)
    assert (done.rollout.state, done.counts.done) == ("done", MANY)
    assert fleet.violations([2]) == []
    print(f"\nhalted at {halted.counts}, resumed to {done.counts}")


def test_five_hundred_under_kill_9(make_fleet: MakeFleet, database_url: str) -> None:
    fleet = make_fleet(MANY, lease_seconds=LEASE)
    rollout_id = fleet.start(
        fleet.release(slow(counting(2, 3))), waves=["1%", "100%"], concurrency=8, per_cluster=8, attempts=20
    )
    kills = kill_through(fleet, database_url, rollout_id, seconds=2400)
    detail = fleet.show(rollout_id)
    assert (detail.rollout.state, detail.counts.done) == ("done", MANY)
    assert kills >= 10
    assert fleet.violations([2, 3]) == []
    assert {tuple(fleet.recorded(placed)) for placed in fleet.tenants} == {("0001", "0002", "0003")}
    print(f"\n{kills} workers killed, {detail.counts}")
