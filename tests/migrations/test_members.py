"""Members of a rollout are jobs: any slot tries them again or takes them over, one heartbeat holds them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controlplane.domain.hold import HoldKind
from controlplane.domain.job import Job, JobKind, Lane
from controlplane.domain.placement import Placement
from controlplane.domain.release import Release
from controlplane.services import rollouts
from controlplane.store import hold, job
from controlplane.store.registry import RegistryUnavailable
from controlplane.workers.engine.run import drain
from controlplane.workers.jobs import rollouts as executor
from controlplane.workers.jobs.handlers import HANDLERS
from controlplane.workers.providers.ports import Bounds, ClusterEndpoint, FileRun
from tests.harness.queue import run_out
from tests.migrations.conftest import MakeFleet
from tests.migrations.fleet import Fleet, counting

BASE = {"0001_base.sql": "CREATE TABLE notes (body text); CREATE TABLE ran (number int)"}
MORE = BASE | {"0002_more.sql": "ALTER TABLE notes ADD stars int;\nINSERT INTO ran VALUES (2)"}


def any_slot(fleet: Fleet) -> int:
    """What a slot of the long lane does that is at no rollout, look by look until there is nothing."""
    done = drain(fleet.ctx, HANDLERS, Lane.LONG, kinds=[JobKind.MEMBER])
    return done and done + any_slot(fleet)


def died(fleet: Fleet, rollout_id: int, count: int) -> list[Job]:
    """A process that began so many members, and died."""
    with fleet.registry.connection() as conn:
        taken = rollouts.take(conn, rollout_id, holder="dead", seconds=30, room=count, release="")
        run_out(conn)
    assert len(taken.begun) == count
    return [held for held, _ in taken.begun]


def waiting(fleet: Fleet) -> list[tuple[int, str | None]]:
    """(attempts, error) of the members that are to be tried again."""
    with fleet.registry.connection() as conn:
        rows = conn.execute(
            "SELECT attempts, error FROM job WHERE kind = 'member' AND state = 'waiting'"
        ).fetchall()
    return [(row["attempts"], row["error"]) for row in rows]


def jobs(fleet: Fleet) -> int:
    with fleet.registry.connection() as conn:
        return len(conn.execute("SELECT FROM job WHERE kind = 'member'").fetchall())


def due(fleet: Fleet) -> None:
    with fleet.registry.connection() as conn:
        conn.execute("UPDATE job SET due_at = now() WHERE state = 'waiting'")


@contextmanager
def locked(fleet: Fleet, member: int) -> Iterator[None]:
    with fleet.superuser(fleet.tenants[member].database) as conn, conn.transaction():
        conn.execute("LOCK TABLE app.notes")
        yield


def troubled(make_fleet: MakeFleet, count: int = 2, **spec: object) -> tuple[Fleet, int]:
    """A rollout in which the first one's table was locked, so that it waits for another attempt."""
    fleet = make_fleet(count)
    fleet.bring_all_to(fleet.release(BASE))
    rollout_id = fleet.start(fleet.release(MORE), waves=["customer-1", "100%"], lock_timeout=0.1, **spec)
    with locked(fleet, 0):
        executor.work(fleet.ctx, rollout_id)
    [(attempts, error)] = waiting(fleet)
    assert (attempts, "55P03" in str(error)) == (1, True)
    assert fleet.show(rollout_id).counts.pending == count
    return fleet, rollout_id


def test_any_slot_tries_one_again_and_the_rollout_goes_on_behind_it(make_fleet: MakeFleet) -> None:
    fleet, rollout_id = troubled(make_fleet)
    assert any_slot(fleet) == 0  # not yet
    due(fleet)
    assert any_slot(fleet) == 1
    assert fleet.show(rollout_id).counts.done == 1
    assert fleet.work(rollout_id).rollout.state == "done"
    assert fleet.violations([2]) == []
    assert jobs(fleet) == 0


def test_one_is_given_up_after_as_many_attempts_as_the_rollout_allows(make_fleet: MakeFleet) -> None:
    fleet, rollout_id = troubled(make_fleet, attempts=2)
    due(fleet)
    with locked(fleet, 0):
        assert any_slot(fleet) == 1
    detail = fleet.show(rollout_id)
    assert (detail.rollout.state, detail.counts.failed, jobs(fleet)) == ("halted", 1, 0)
    assert "55P03" in str(detail.failures[0].error)


def test_a_pause_takes_what_waits_for_another_attempt_out_too(make_fleet: MakeFleet) -> None:
    fleet, rollout_id = troubled(make_fleet)
    with fleet.registry.connection() as conn:
        rollouts.pause(conn, rollout_id, actor="test", reason="lunch")
    due(fleet)
    assert any_slot(fleet) == 1
    assert (fleet.show(rollout_id).counts.pending, jobs(fleet)) == (2, 0)
    assert set(fleet.releases().values()) == {"0001"}
    with fleet.registry.connection() as conn:
        rollouts.resume(conn, rollout_id, actor="test", reason="back")
    assert fleet.work(rollout_id).counts.done == 2


def test_an_attempt_is_a_start_by_the_rollouts_pace(make_fleet: MakeFleet) -> None:
    fleet, rollout_id = troubled(make_fleet, pace=60)
    due(fleet)
    assert any_slot(fleet) == 1
    [(attempts, _)] = waiting(fleet)
    assert attempts == 1  # that it had to wait is none
    assert fleet.show(rollout_id).counts.done == 0
    with fleet.registry.connection() as conn:
        conn.execute("UPDATE rollout SET not_before = now()")
    due(fleet)
    assert any_slot(fleet) == 1
    assert fleet.show(rollout_id).counts.done == 1


@pytest.mark.parametrize(
    ("act", "expected"), [(rollouts.pause, (0, 2, 0)), (rollouts.abort, (0, 0, 2)), (None, (2, 0, 0))]
)
def test_what_a_dead_process_had_begun_is_done_while_its_rollout_runs_and_not_else(
    make_fleet: MakeFleet, act: object, expected: tuple[int, int, int]
) -> None:
    fleet = make_fleet(2)
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"])
    died(fleet, rollout_id, 2)
    if act is not None:
        with fleet.registry.connection() as conn:
            act(conn, rollout_id, actor="test", reason="an incident")  # type: ignore[operator]
    assert any_slot(fleet) == 2
    counts = fleet.show(rollout_id).counts
    assert (counts.done, counts.pending, counts.stale) == expected
    assert (counts.running, jobs(fleet)) == (0, 0)


def test_members_of_a_dead_process_do_not_wait_for_one_another(make_fleet: MakeFleet) -> None:
    """A share takes as many of them as it has threads."""
    fleet = make_fleet(4)
    together = Together(fleet, parties=4)
    fleet.ctx = with_databases(fleet, together)
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"], concurrency=4)
    died(fleet, rollout_id, 4)
    executor.work(fleet.ctx, rollout_id)
    assert not together.barrier.broken
    assert fleet.show(rollout_id).counts.done == 4
    assert fleet.violations([2]) == []


def test_a_member_is_held_by_the_heartbeat_for_as_long_as_it_takes(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2, lease_seconds=1.0)
    slow = counting(2)
    slow["0002_step.sql"] += ";\nSELECT pg_sleep(2.5)"
    rollout_id = fleet.start(fleet.release(slow), waves=["100%"], concurrency=2)
    share = threading.Thread(target=executor.work, args=(fleet.ctx, rollout_id))
    share.start()
    taken = 0
    while share.is_alive():
        taken += any_slot(fleet)
        share.join(0.1)
    assert taken == 0
    assert fleet.show(rollout_id).counts.done == 2


def test_a_freeze_that_interrupts_keeps_what_is_not_begun_from_beginning(make_fleet: MakeFleet) -> None:
    """One that a process holds and has not got to is left where it is, until the freeze is lifted."""
    fleet = make_fleet(1)
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"])
    tenant = fleet.tenants[0].tenant_id
    with fleet.registry.connection() as conn:
        died(fleet, rollout_id, 1)
        hold.begin(
            conn, HoldKind.FREEZE, tenant, seconds=60, actor="test", reason="an incident", interrupts=True
        )
        row = conn.execute("SELECT fencing_token FROM job WHERE kind = 'member'").fetchone()
        assert row is not None
        kept = job.beat(conn, "dead", [row["fencing_token"]], lanes=[Lane.LONG], version="", seconds=30)
        assert kept == set()
        assert any_slot(fleet) == 0
        hold.lift(conn, HoldKind.FREEZE, tenant, actor="test")
    assert any_slot(fleet) == 1
    assert fleet.show(rollout_id).counts.done == 1


def test_a_rollout_goes_on_without_who_is_frozen_and_waits_for_them_before_its_next_wave(
    make_fleet: MakeFleet,
) -> None:
    fleet = make_fleet(4)
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["75%", "100%"])
    with fleet.registry.connection() as conn:
        detail = {"seconds": 60, "actor": "test", "reason": "an incident", "interrupts": False}
        first = rollouts.members_page(conn, rollout_id, after=None, limit=9, state=None)
        frozen = next(row.tenant_id for row in first if row.wave == 0)
        hold.begin(conn, HoldKind.FREEZE, frozen, **detail)  # type: ignore[arg-type]
        executor.work(fleet.ctx, rollout_id)
        shown = fleet.show(rollout_id)
        assert (shown.rollout.state, shown.rollout.wave) == ("running", 0)
        assert (shown.counts.done, shown.counts.pending) == (2, 2)
        hold.lift(conn, HoldKind.FREEZE, frozen, actor="test")
    assert fleet.work(rollout_id).counts.done == 4


def test_a_share_that_can_not_go_on_renews_nothing(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or nobody would ever take over what it had begun."""
    fleet = make_fleet(2, lease_seconds=1.0)
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"], concurrency=2)
    take, turns = rollouts.take, iter([False, True])

    def unreachable(*args: object, **options: object) -> rollouts.Taken:
        if next(turns, False):
            raise RegistryUnavailable("gone")
        return take(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rollouts, "take", unreachable)
    with pytest.raises(RegistryUnavailable):
        executor.work(fleet.ctx, rollout_id)
    with fleet.registry.connection() as conn:
        run_out(conn)
    fleet.ctx.heartbeat._beat()  # what its thread would do in a moment
    assert any_slot(fleet) == 2
    assert fleet.show(rollout_id).counts.done == 2


class Together:
    """`ports.Databases`, in which nobody is migrated before so many are at it at once."""

    def __init__(self, fleet: Fleet, parties: int) -> None:
        self.barrier = threading.Barrier(parties, timeout=30)
        self._real = fleet.ctx.providers.databases

    def bring_to(
        self, at: ClusterEndpoint, placement: Placement, wanted: Release, bounds: Bounds
    ) -> list[FileRun]:
        self.barrier.wait()
        return self._real.bring_to(at, placement, wanted, bounds)


def with_databases(fleet: Fleet, databases: Together) -> executor.Context:
    providers = dataclasses.replace(fleet.ctx.providers, databases=databases)  # type: ignore[arg-type]
    return dataclasses.replace(fleet.ctx, providers=providers)
