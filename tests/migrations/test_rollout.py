"""Rollouts over real databases: order, budget, resume, new tenants."""

from __future__ import annotations

import dataclasses

import pytest

from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.placement import Placement
from controlplane.domain.release import Release
from controlplane.services import rollouts
from controlplane.store import release
from controlplane.workers.jobs import rollouts as executor
from controlplane.workers.providers.ports import Bounds, ClusterEndpoint, FileRun
from tests.migrations.conftest import MakeFleet
from tests.migrations.fleet import Fleet, counting

WAVES = ["customer-2", "50%", "100%"]
BREAKS_FOR_ONE = (
    "CREATE TABLE more (n int);\nINSERT INTO more SELECT 1 / (body <> 'poison')::int FROM app.notes"
)


def steer(fleet: Fleet, act: object, rollout_id: int, *args: object, **options: object) -> None:
    with fleet.registry.connection() as conn:
        act(conn, rollout_id, *args, actor="test", **options)  # type: ignore[operator]


def test_every_tenant_gets_every_file_once_and_the_registry_knows(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(6, clusters=2)
    number = fleet.release(counting(2, 3))
    detail = fleet.work(fleet.start(number, waves=WAVES))
    assert (detail.rollout.state, detail.counts.done, detail.counts.total) == ("done", 6, 6)
    assert [wave.counts.done for wave in detail.waves] == [1, 2, 3]
    assert fleet.violations([2, 3]) == []
    assert set(fleet.releases().values()) == {"0003"}
    with fleet.registry.connection() as conn:
        asked = conn.execute("SELECT DISTINCT reason FROM operation WHERE state = 'waiting'").fetchall()
    assert [row["reason"] for row in asked] == ["release 0003"]


def test_nobody_of_a_wave_begins_before_the_wave_before_it_has_ended(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(6)
    detail = fleet.work(fleet.start(fleet.release(counting(2)), waves=WAVES, concurrency=4))
    for earlier, later in zip(detail.waves, detail.waves[1:], strict=False):
        assert earlier.finished_at is not None
        assert later.started_at is not None
        assert earlier.finished_at <= later.started_at


def test_a_failing_canary_halts_it_at_one(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(5)
    files = counting(2) | {"0003_bad.sql": "SELECT 1;\nSELECT nowhere FROM nothing"}
    detail = fleet.work(fleet.start(fleet.release(files), waves=WAVES, failures=3))
    assert detail.rollout.state == "halted"
    assert detail.rollout.reason is not None
    assert "1 of the canary wave failed" in detail.rollout.reason
    assert (detail.counts.failed, detail.counts.pending, detail.counts.done) == (1, 4, 0)
    (failure,) = detail.failures
    assert (failure.file, failure.statement) == ("0003_bad.sql", "SELECT nowhere FROM nothing")
    assert failure.error == '42P01 relation "nothing" does not exist'


def test_one_bad_database_halts_within_the_budget_and_is_resumed_to_the_end(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(8)
    base = {"0001_base.sql": "CREATE TABLE ran (number int); CREATE TABLE notes (body text)"}
    fleet.bring_all_to(fleet.release(base))
    bad = fleet.tenants[4]
    with fleet.superuser(bad.database) as conn:
        conn.execute("INSERT INTO app.notes VALUES ('poison')")
    number = fleet.release(base | {"0002_more.sql": BREAKS_FOR_ONE + ";\nINSERT INTO ran VALUES (2)"})
    rollout_id = fleet.start(number, waves=["customer-1", "100%"], concurrency=1)
    detail = fleet.work(rollout_id)
    assert detail.rollout.state == "halted"
    assert detail.counts.failed == 1
    (failure,) = detail.failures
    assert failure.error == "22012 division by zero"
    assert failure.statement == "INSERT INTO more SELECT 1 / (body <> 'poison')::int FROM app.notes"
    with pytest.raises(Conflict, match="retry or skip them first"):
        steer(fleet, rollouts.resume, rollout_id, reason="try")
    with fleet.superuser(bad.database) as conn:
        conn.execute("DELETE FROM app.notes")
    steer(fleet, rollouts.retry, rollout_id, None)
    detail = fleet.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done) == ("done", 8)
    assert fleet.violations([2]) == []


def test_a_failure_within_the_budget_stops_nobody_and_is_told_at_the_end(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(4)
    base = {"0001_base.sql": "CREATE TABLE notes (body text)"}
    fleet.bring_all_to(fleet.release(base))
    with fleet.superuser(fleet.tenants[1].database) as conn:
        conn.execute("INSERT INTO app.notes VALUES ('poison')")
    number = fleet.release(base | {"0002_more.sql": BREAKS_FOR_ONE})
    rollout_id = fleet.start(number, waves=["customer-1", "100%"], failures=1)
    detail = fleet.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done, detail.counts.failed) == ("halted", 3, 1)
    steer(fleet, rollouts.skip, rollout_id, ["customer-2"], reason="leaves us anyway")
    detail = fleet.work(rollout_id)
    assert (detail.rollout.state, detail.counts.skipped) == ("done", 1)
    assert sorted(filter(None, fleet.releases().values())) == ["0001", "0002", "0002", "0002"]


def test_a_locked_table_is_waited_for_and_tried_again(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(1)
    base = {"0001_base.sql": "CREATE TABLE notes (body text)"}
    fleet.bring_all_to(fleet.release(base))
    number = fleet.release(base | {"0002_more.sql": "ALTER TABLE notes ADD stars int"})
    rollout_id = fleet.start(number, waves=["100%"], lock_timeout=0.2)
    with fleet.superuser(fleet.tenants[0].database) as conn, conn.transaction():
        conn.execute("LOCK TABLE app.notes")
        executor.work(fleet.ctx, rollout_id)
        with fleet.registry.connection() as registry:
            (member,) = rollouts.members_page(registry, rollout_id, after=None, limit=9, state=None)
    assert member.state == "pending"
    assert member.error is not None
    assert "55P03" in member.error
    assert fleet.work(rollout_id).rollout.state == "done"


def test_trouble_that_does_not_pass_ends_as_a_failure(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(1)
    number = fleet.release(counting(2))
    fleet.server.drop_database(fleet.tenants[0].database)
    detail = fleet.work(fleet.start(number, waves=["100%"], attempts=2))
    assert detail.rollout.state == "halted"
    assert "does not exist" in str(detail.failures[0].error)


def test_an_aborted_rollout_leaves_the_rest_stale_and_the_next_takes_them_along(
    make_fleet: MakeFleet,
) -> None:
    fleet = make_fleet(4)
    number = fleet.release(counting(2))
    rollout_id = fleet.start(number, waves=["customer-1", "100%"], wave_pause=3600)
    executor.work(fleet.ctx, rollout_id)
    with pytest.raises(Conflict, match="another rollout is open"):
        fleet.start(number)
    steer(fleet, rollouts.abort, rollout_id, reason="not today")
    detail = fleet.show(rollout_id)
    assert (detail.rollout.state, detail.counts.stale, detail.counts.done) == ("aborted", 3, 1)
    with pytest.raises(Conflict, match="is aborted"):
        steer(fleet, rollouts.resume, rollout_id, reason="after all")
    again = fleet.work(fleet.start(number, waves=["100%"]))
    assert (again.rollout.state, again.counts.total) == ("done", 3)
    assert fleet.violations([2]) == []


def test_a_pause_starts_nobody(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2)
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"])
    steer(fleet, rollouts.pause, rollout_id, reason="lunch")
    assert fleet.work(rollout_id).counts.pending == 2
    steer(fleet, rollouts.resume, rollout_id, reason="back")
    assert fleet.work(rollout_id).counts.done == 2


def test_outside_its_hours_it_waits(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(1)
    number = fleet.release(counting(2))
    with fleet.registry.connection() as conn:
        now = conn.execute("SELECT now() AT TIME ZONE 'UTC' + interval '2 days' AS t").fetchone()
    day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[now["t"].weekday()]  # type: ignore[index]
    rollout_id = fleet.start(number, waves=["100%"], windows=[f"{day} 03:00-04:00 UTC"])
    assert executor.work(fleet.ctx, rollout_id) == 0
    detail = fleet.show(rollout_id)
    assert detail.counts.pending == 1
    assert (detail.rollout.not_before.hour, detail.rollout.not_before.minute) == (3, 0)


def test_who_was_never_born_is_born_on_the_new_release_once_the_canary_is_through(
    make_fleet: MakeFleet,
) -> None:
    fleet = make_fleet(2)
    number = fleet.release(counting(2))
    rollout_id = fleet.start(number, waves=["customer-1", "100%"], wave_pause=3600)
    with fleet.registry.connection() as conn, conn.transaction():
        assert release.of_new_tenants(conn) == "0002"  # nobody has any other yet
    (waiting,) = fleet.add(1, release="0001", born=False)
    executor.work(fleet.ctx, rollout_id)
    assert fleet.releases()[waiting.tenant_id] == "0002"
    with fleet.registry.connection() as conn, conn.transaction():
        assert release.of_new_tenants(conn) == "0002"


def test_who_was_born_on_the_old_release_in_the_middle_is_taken_along(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3)
    base = {"0001_base.sql": "CREATE TABLE ran (number int)"}
    fleet.bring_all_to(fleet.release(base))
    number = fleet.release(base | {"0002_step.sql": "INSERT INTO ran VALUES (2)"})
    rollout_id = fleet.start(number, waves=["customer-1", "100%"])
    fleet.add(2, release="0001")
    detail = fleet.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done) == ("done", 5)
    assert fleet.violations([2]) == []


def test_a_closed_tenant_is_skipped(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2)
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"])
    with fleet.registry.connection() as conn:
        conn.execute(
            "UPDATE tenant SET spec = jsonb_set(spec, '{lifecycle}', '\"closed\"') WHERE id = %s",
            [fleet.tenants[0].tenant_id],
        )
    detail = fleet.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done, detail.counts.skipped) == ("done", 1, 1)


def test_a_tenant_that_is_purged_before_its_turn_is_skipped_and_says_why(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3)
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["customer-1", "100%"], wave_pause=3600)
    executor.work(fleet.ctx, rollout_id)
    purge(fleet, fleet.tenants[1])
    with fleet.registry.connection() as conn:  # it lost its database some other way, and is not closed
        conn.execute(
            "UPDATE placement SET state = 'purged', released_by = 'test' WHERE tenant_id = %s",
            [fleet.tenants[2].tenant_id],
        )
    detail = fleet.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done, detail.counts.skipped) == ("done", 1, 2)
    assert reasons(fleet, rollout_id) == [
        ("customer-2", "the tenant was closed"),
        ("customer-3", "the tenant has no database"),
    ]


def test_one_whose_migrator_another_run_lets_in_waits_and_has_not_failed(make_fleet: MakeFleet) -> None:
    """As a command of a rehearsal does for its whole length. The rollout gives up after one failure."""
    fleet = make_fleet(1, lock_timeout=0.1)
    (placed,) = fleet.tenants
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"], attempts=1)
    with fleet.superuser() as conn:
        conn.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (placed.database,))
        executor.work(fleet.ctx, rollout_id)
    waiting = fleet.show(rollout_id)
    assert (waiting.rollout.state, waiting.counts.failed, waiting.counts.done) == ("running", 0, 0)
    detail = fleet.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done) == ("done", 1)


def test_one_that_is_purged_in_the_middle_of_its_migration_is_no_failure(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2)
    gone = fleet.tenants[1]
    fleet.ctx = dataclasses.replace(
        fleet.ctx,
        providers=dataclasses.replace(
            fleet.ctx.providers,
            databases=PurgedUnderneath(fleet, gone),  # type: ignore[arg-type]
        ),
    )
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["customer-1", "100%"], attempts=1)
    detail = fleet.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done, detail.counts.skipped) == ("done", 1, 1)
    ((slug, reason),) = reasons(fleet, rollout_id)
    assert slug == "customer-2"
    assert reason.startswith("the tenant was closed; ")
    assert "does not exist" in reason


class PurgedUnderneath:
    """`ports.Databases`, in which a tenant is purged at the moment its migration begins."""

    def __init__(self, fleet: Fleet, gone: Placement) -> None:
        self._fleet, self._gone = fleet, gone
        self._real = fleet.ctx.providers.databases

    def bring_to(
        self, at: ClusterEndpoint, placement: Placement, wanted: Release, bounds: Bounds
    ) -> list[FileRun]:
        if placement.id == self._gone.id:
            purge(self._fleet, self._gone)
        return self._real.bring_to(at, placement, wanted, bounds)


def purge(fleet: Fleet, placed: Placement) -> None:
    with fleet.registry.connection() as conn:
        conn.execute(
            "UPDATE tenant SET spec = jsonb_set(spec, '{lifecycle}', '\"closed\"') WHERE id = %s",
            [placed.tenant_id],
        )
        conn.execute(
            "UPDATE placement SET state = 'purged', released_by = 'test' WHERE tenant_id = %s",
            [placed.tenant_id],
        )
    fleet.server.drop_database(placed.database)


def reasons(fleet: Fleet, rollout_id: int) -> list[tuple[str, str]]:
    """Of the skipped, by slug."""
    with fleet.registry.connection() as conn:
        rows = rollouts.members_page(conn, rollout_id, after=None, limit=9, state="skipped")
    return sorted((row.slug, str(row.error)) for row in rows)


def test_a_rollout_of_what_nobody_registered_is_refused(make_fleet: MakeFleet) -> None:
    with pytest.raises(NotFound, match="release 0009"):
        make_fleet(0).start("0009")
