"""A rollout and the snapshots that a plan asks for first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from controlplane.domain.catalogue import Catalogue
from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.domain.job import JobKind, Lane
from controlplane.domain.rollout import Spec
from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.localcloud.fakes.snapshots import SNAPSHOT, FakeSnapshots
from controlplane.localcloud.fakes.world import World
from controlplane.services import rollouts
from controlplane.workers.engine.run import drain
from controlplane.workers.jobs import rollouts as executor
from controlplane.workers.jobs.handlers import HANDLERS
from tests.migrations.conftest import MakeFleet
from tests.migrations.fleet import Fleet, counting


@dataclasses.dataclass
class Careful:
    """A fleet whose tenants of plan "shared" are migrated behind a snapshot only."""

    fleet: Fleet
    account: FakeAccount
    provider: FakeSnapshots

    def look(self) -> int:
        """Do what is due about snapshots; how many there were."""
        return drain(self.fleet.ctx, HANDLERS, Lane.QUICK, kinds=[JobKind.SNAPSHOT])

    def work(self, rollout_id: int, *, rounds: int = 50) -> rollouts.RolloutDetail:
        """As the fleet's own, with a look at its snapshots in between."""
        for _ in range(rounds):
            executor.work(self.fleet.ctx, rollout_id)
            self.look()
            detail = self.fleet.show(rollout_id)
            if detail.rollout.state != "running":
                return detail
            self.pass_time()
        raise AssertionError(f"not over: {self.fleet.show(rollout_id)}")

    def pass_time(self) -> None:
        """Whatever waits for minutes is due now, dead workers' leases have run out."""
        with self.fleet.registry.connection() as conn:
            conn.execute("UPDATE job SET lease_until = '-infinity' WHERE state = 'running'")
            conn.execute(
                "UPDATE job SET due_at = least(due_at, now()) WHERE due_at < now() + interval '1 hour'"
            )

    def age(self, **interval: int) -> None:
        """So much time has passed since snapshots were requested and rollouts ended."""
        ((unit, amount),) = interval.items()
        times = (("rollout_snapshot", "requested_at"), ("rollout", "finished_at"), ("job", "due_at"))
        with self.fleet.registry.connection() as conn:
            for table, column in times:
                conn.execute(f"UPDATE {table} SET {column} = {column} - interval '{amount} {unit}'".encode())
        self.pass_time()


MakeCareful = Callable[..., Careful]


@pytest.fixture
def make_careful(make_fleet: MakeFleet) -> MakeCareful:
    def make(
        count: int, *, clusters: int = 1, observations: int = 2, crash: Callable[[str], None] | None = None
    ) -> Careful:
        fleet = make_fleet(count, clusters=clusters)
        world = World(crash=crash)
        account, provider = FakeAccount(world), FakeSnapshots(world, polls=observations)
        for number in range(clusters):
            account.make("cluster", fleet.cluster(number), status="available")
        usual = fleet.ctx.catalogue
        plans = {
            name: dataclasses.replace(plan, snapshot_before_migration=name == "shared")
            for name, plan in usual.plans.items()
        }
        fleet.ctx = dataclasses.replace(
            fleet.ctx,
            catalogue=Catalogue(usual.version, plans),
            providers=dataclasses.replace(fleet.ctx.providers, snapshots=provider),
        )
        return Careful(fleet, account, provider)

    return make


def test_nobody_is_migrated_before_the_snapshot_of_its_cluster_is_there(make_careful: MakeCareful) -> None:
    careful = make_careful(4, clusters=2)
    fleet = careful.fleet
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["customer-1", "100%"], concurrency=4)
    executor.work(fleet.ctx, rollout_id)
    (wanted,) = fleet.show(rollout_id).snapshots
    assert (wanted.cluster_id, wanted.state) == (fleet.cluster(1), "making")  # the canary's alone
    assert careful.account.names(SNAPSHOT) == []
    assert careful.look() == 1
    assert careful.account.names(SNAPSHOT) == [f"{fleet.cluster(1)}-rollout-{rollout_id}-1"]
    executor.work(fleet.ctx, rollout_id)
    assert fleet.show(rollout_id).counts.pending == 4  # it is being made

    detail = careful.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done) == ("done", 4)
    assert fleet.violations([2]) == []
    assert {row.state for row in detail.snapshots} == {"available"}
    assert len(careful.account.names(SNAPSHOT)) == 2  # one for all tenants of a cluster
    assert careful.account.duplicates() == []
    with fleet.registry.connection() as conn:
        early = conn.execute(
            "SELECT FROM rollout_member t JOIN rollout_snapshot s USING (rollout_id, cluster_id)"
            " WHERE t.started_at < s.available_at"
        ).fetchall()
    assert early == []


def test_plans_that_ask_for_none_have_none(make_careful: MakeCareful) -> None:
    careful = make_careful(2)
    fleet = careful.fleet
    with fleet.registry.connection() as conn:
        conn.execute("UPDATE tenant SET spec = jsonb_set(spec, '{plan}', '\"dedicated\"')")
    detail = fleet.work(fleet.start(fleet.release(counting(2)), waves=["100%"]))
    assert (detail.rollout.state, detail.snapshots) == ("done", [])


def test_room_for_one_is_asked_before_it_is_begun(make_careful: MakeCareful) -> None:
    careful = make_careful(1)
    careful.fleet.ctx.providers.quotas.set(snapshots=0)  # type: ignore[attr-defined]
    halted = careful.work(careful.fleet.start(careful.fleet.release(counting(2))))
    (failure,) = halted.failures
    assert "quota of snapshots leaves 0, needed: 1 (runbook aws-quota)" in failure.error
    assert careful.account.names(SNAPSHOT) == []


def test_one_that_can_not_be_made_halts_it_and_a_retry_asks_for_another(make_careful: MakeCareful) -> None:
    careful = make_careful(3)
    fleet = careful.fleet
    careful.provider.fail(NeedsHuman("AWS answered SnapshotQuotaExceeded", runbook="aws-quota"))
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["customer-1", "100%"])
    halted = careful.work(rollout_id)
    assert halted.rollout.state == "halted"
    (failure,) = halted.failures
    said = (
        f"no snapshot of cluster {fleet.cluster(0)}: AWS answered SnapshotQuotaExceeded (runbook aws-quota)"
    )
    assert (failure.tenants, failure.error) == (3, said)
    assert all(fleet.recorded(placed) == [] for placed in fleet.tenants)
    careful.provider.fail(None)
    with fleet.registry.connection() as conn:
        rollouts.retry(conn, rollout_id, None, actor="test")
    done = careful.work(rollout_id)
    assert (done.rollout.state, done.counts.done) == ("done", 3)
    assert [(row.number, row.state) for row in done.snapshots] == [(1, "failed"), (2, "available")]


def test_trouble_that_may_pass_is_waited_out_and_no_longer_than_the_bound(make_careful: MakeCareful) -> None:
    careful = make_careful(1)
    fleet = careful.fleet
    careful.provider.fail(Retryable("AWS answered Throttling"))
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"], snapshot_timeout=600)
    executor.work(fleet.ctx, rollout_id)
    careful.look()
    (making,) = fleet.show(rollout_id).snapshots
    assert (making.state, making.error) == ("making", "AWS answered Throttling")
    careful.age(minutes=11)
    careful.look()
    halted = fleet.show(rollout_id)
    assert halted.rollout.state == "halted"
    assert "not available in time (AWS answered Throttling)" in str(halted.failures[0].error)


class Killed(BaseException):
    """As `kill -9` is: nobody catches it."""


def test_a_worker_that_dies_behind_the_call_leaves_a_snapshot_that_is_adopted(
    make_careful: MakeCareful,
) -> None:
    deaths = ["snapshots.ensure:before", "snapshots.ensure:after"]

    def die(point: str) -> None:
        if deaths and point == deaths[0]:
            raise Killed(deaths.pop(0))

    careful = make_careful(1, crash=die)
    fleet = careful.fleet
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"])
    executor.work(fleet.ctx, rollout_id)
    for _ in range(2):
        with pytest.raises(Killed):
            careful.look()
        careful.pass_time()
    assert careful.work(rollout_id).rollout.state == "done"
    assert len(careful.account.names(SNAPSHOT)) == 1
    assert careful.account.duplicates() == []


def test_it_is_kept_and_then_removed(make_careful: MakeCareful) -> None:
    careful = make_careful(2)
    fleet = careful.fleet
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"], snapshot_days=3)
    assert careful.work(rollout_id).rollout.state == "done"
    careful.age(days=2)
    assert careful.look() == 0
    assert len(careful.account.names(SNAPSHOT)) == 1
    careful.age(days=1)
    assert careful.look() == 1
    assert careful.account.names(SNAPSHOT) == []
    assert [row.state for row in fleet.show(rollout_id).snapshots] == ["deleted"]
    with fleet.registry.connection() as conn:
        assert conn.execute("SELECT FROM job WHERE kind = 'snapshot'").fetchall() == []


def test_one_of_an_aborted_rollout_that_was_never_seen_through_goes_too(make_careful: MakeCareful) -> None:
    careful = make_careful(1, observations=100)
    fleet = careful.fleet
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["100%"])
    executor.work(fleet.ctx, rollout_id)
    careful.look()
    with fleet.registry.connection() as conn:
        rollouts.abort(conn, rollout_id, actor="test", reason="not today")
    careful.look()
    assert [row.state for row in fleet.show(rollout_id).snapshots] == ["making"]
    assert len(careful.account.names(SNAPSHOT)) == 1
    careful.age(days=Spec().snapshot_days)
    assert careful.look() == 1
    assert careful.account.names(SNAPSHOT) == []
    assert [row.state for row in fleet.show(rollout_id).snapshots] == ["deleted"]


def test_who_comes_to_the_cluster_after_the_snapshot_gets_one_too(make_careful: MakeCareful) -> None:
    careful = make_careful(2)
    fleet = careful.fleet
    rollout_id = fleet.start(fleet.release(counting(2)), waves=["customer-1", "100%"], wave_pause=3600)
    executor.work(fleet.ctx, rollout_id)
    for _ in range(3):
        careful.look()
        careful.pass_time()
    executor.work(fleet.ctx, rollout_id)
    assert fleet.show(rollout_id).counts.done == 1
    fleet.add(1)
    with fleet.registry.connection() as conn:
        conn.execute("UPDATE rollout SET not_before = clock_timestamp()")
    detail = careful.work(rollout_id)
    assert (detail.rollout.state, detail.counts.done) == ("done", 3)
    assert [(row.number, row.state) for row in detail.snapshots] == [(1, "available"), (2, "available")]
