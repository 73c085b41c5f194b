"""Ten thousand events about a thousand tenants, while workers are killed and every server fails once.

Real Celery processes, a real PostgreSQL and a real Valkey of the test's own; the cloud is simulated. A
worker or a pool process is killed every five seconds; the broker is flushed, killed and brought back
empty; the registry's server is killed in the middle. At the end every tenant is where Stripe says, no
event is lost and nothing in the cloud is missing, doubled or left over. The sizes can be set:
FAULTS_EVENTS, FAULTS_TENANTS, FAULTS_SECONDS (of the storm) and FAULTS_SEED.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from controlplane.domain.job import Lane
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import schema_version
from controlplane.store.registry import Registry, RegistryUnavailable
from controlplane.workers.schedule.duties import DUTIES
from tests.faults.fleet import Fleet, Resumed, percentile
from tests.faults.storm import Storm, broken, out_of_step
from tests.harness.engine import Harness

EVENTS = int(os.environ.get("FAULTS_EVENTS", "10000"))
TENANTS = int(os.environ.get("FAULTS_TENANTS", "1000"))
SECONDS = float(os.environ.get("FAULTS_SECONDS", "300"))
SEED = int(os.environ.get("FAULTS_SEED", "1"))
KILL_EVERY = 5.0
AWAY = 4.0
RECONCILED_WITHIN = 900.0
OPEN = """
    SELECT (SELECT count(*) FROM stripe_event WHERE state = 'received') AS events,
           (SELECT count(*) FROM job WHERE kind <> ALL(%s)
             AND (state = 'running' OR due_at < clock_timestamp() + interval '1 minute')) AS jobs
"""


@pytest.fixture
def postgres(data_root: Path) -> Iterator[PostgresServer]:
    with PostgresServer(data_root / "ten-thousand", options={"max_connections": "100"}) as server:
        yield server


@dataclass
class Returned:
    """When a server came back, on the registry's clock, and how long it then took until work went on.

    `fresh`: only what came in later counts. For the broker, since without it the work in hand goes on."""

    name: str
    at: float
    fresh: bool
    seconds: float | None = None


@dataclass
class Run:
    harness: Harness
    fleet: Fleet
    storm: Storm
    postgres: PostgresServer
    broker: ValkeyServer
    rng: random.Random
    resumed: Resumed = field(default_factory=Resumed)
    returned: list[Returned] = field(default_factory=list)
    kills: int = 0
    most_wake_ups: int = 0
    deadly: bool = True

    @property
    def registry(self) -> Registry:
        return self.harness.ctx.registry

    def kill(self) -> None:
        self.resumed.open += self.fleet.kill_one(self.rng, self.registry)
        self.kills += 1

    def crash_postgres(self) -> None:
        self.postgres.kill()
        self._be_away(AWAY)
        self.postgres.start()
        self.returned.append(Returned("PostgreSQL killed", time.time(), fresh=False))

    def flush(self) -> None:
        self.broker.flush()
        self.returned.append(Returned("FLUSHALL", time.time(), fresh=True))

    def kill_broker(self) -> None:
        self.broker.kill()
        self._be_away(AWAY)
        self.broker.start()
        self.returned.append(Returned("Redis killed", time.time(), fresh=True))

    def _be_away(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.storm.step(until=until)
            time.sleep(0.05)

    def look(self) -> None:
        """Read off what has been resumed and what goes on again."""
        self.resumed.look(self.registry)
        self.most_wake_ups = max(self.most_wake_ups, self.wake_ups())
        for fault in [fault for fault in self.returned if fault.seconds is None]:
            with self.registry.connection() as conn:
                row = conn.execute(
                    "SELECT extract(epoch FROM min(handled_at))::float AS at FROM stripe_event"
                    " WHERE handled_at >= to_timestamp(%(at)s)"
                    " AND (NOT %(fresh)s OR received_at >= to_timestamp(%(at)s))",
                    {"at": fault.at, "fresh": fault.fresh},
                ).fetchone()
            if row is not None and row["at"] is not None:
                fault.seconds = row["at"] - fault.at

    def wake_ups(self) -> int:
        """Messages that wait in the broker's queues."""
        with redis.Redis(port=self.broker.port, socket_timeout=10) as client:
            return sum(int(client.llen(queue)) for queue in Lane)

    def left(self) -> dict[str, int]:
        with self.registry.connection() as conn:
            row = conn.execute(OPEN, [list(DUTIES)]).fetchone()
        assert row is not None
        return row


@pytest.mark.soak
@pytest.mark.fault(21, 24, 25)
@pytest.mark.timeout(2400)
def test_every_tenant_ends_where_stripe_says(
    postgres: PostgresServer,
    broker: ValkeyServer,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    url = postgres.create_database("registry")
    harness = Harness(url, tmp_path / "world.sqlite")
    with harness.ctx.registry.connection() as conn:
        schema_version.upgrade(conn)
    storm = Storm(
        harness,
        registry_url=url,
        broker_url=broker.url,
        tenants=TENANTS,
        events=EVENTS,
        seconds=SECONDS,
        seed=SEED,
    )
    with Fleet(tmp_path, registry_url=url, broker_url=broker.url) as fleet:
        run = Run(harness, fleet, storm, postgres, broker, random.Random(SEED))
        began = time.monotonic()
        _storm(run)
        _settle(run)
        took = time.monotonic() - began
    harness.work()
    with harness.ctx.registry.connection() as conn:
        kept = {row["id"] for row in conn.execute("SELECT id FROM stripe_event").fetchall()}
    for name, figure in _figures(run, took).items():
        print(f"{name}: {figure}")
        record_property(name, figure)
    assert storm.sent == kept
    assert out_of_step(harness) == []
    assert broken(harness) == []
    assert run.resumed.open == []
    assert len(run.resumed.seconds) > 0
    harness.close()


@pytest.mark.soak
@pytest.mark.fault(11)
@pytest.mark.timeout(2400)
def test_all_at_once(
    postgres: PostgresServer,
    broker: ValkeyServer,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """The whole storm in one burst, before the first worker is there."""
    url = postgres.create_database("burst")
    harness = Harness(url, tmp_path / "world.sqlite")
    with harness.ctx.registry.connection() as conn:
        schema_version.upgrade(conn)
    few = max(1, TENANTS // 10)
    places = {"registry_url": url, "broker_url": broker.url}
    storm = Storm(harness, **places, tenants=few, events=EVENTS, seconds=0, seed=SEED)
    began = time.monotonic()
    while not storm.over:
        storm.step()
    taken = time.monotonic() - began
    with Fleet(tmp_path, registry_url=url, broker_url=broker.url) as fleet:
        run = Run(harness, fleet, storm, postgres, broker, random.Random(SEED), deadly=False)
        _settle(run)
        took = time.monotonic() - began
    harness.work()
    figure = (
        f"{storm.deliveries} deliveries answered in {taken:.0f} s, all of it done after {took:.0f} s,"
        f" {run.most_wake_ups} wake-ups waiting at most"
    )
    print(f"{EVENTS} events at once: {figure}")
    record_property(f"{EVENTS} events at once", figure)
    assert storm.refused == 0
    assert out_of_step(harness) == []
    assert broken(harness) == []
    harness.close()


def _storm(run: Run) -> None:
    plan = [
        (0.25 * SECONDS, run.flush),
        (0.45 * SECONDS, run.crash_postgres),
        (0.70 * SECONDS, run.kill_broker),
    ]
    next_kill = KILL_EVERY
    while not run.storm.over:
        run.storm.step()
        run.fleet.tend()
        try:
            run.look()
            if run.storm.elapsed >= next_kill:
                next_kill = run.storm.elapsed + KILL_EVERY
                run.kill()
        except RegistryUnavailable:
            continue
        if plan and run.storm.elapsed >= plan[0][0]:
            plan.pop(0)[1]()
        time.sleep(0.05)


def _settle(run: Run) -> None:
    """Go on, killing where the run is a deadly one, until nothing is left to do."""
    deadline, next_kill = time.monotonic() + RECONCILED_WITHIN, time.monotonic() + KILL_EVERY
    while any((left := run.left()).values()) or run.resumed.open:
        assert time.monotonic() < deadline, f"{left}: {run.harness.open_work()[:5]}"
        run.fleet.tend()
        run.look()
        if run.deadly and time.monotonic() >= next_kill:
            next_kill = time.monotonic() + KILL_EVERY
            run.kill()
        time.sleep(0.2)


def _figures(run: Run, took: float) -> dict[str, str]:
    waits = run.resumed.seconds
    figures = {
        "events": f"{len(run.storm.sent)} about {TENANTS} tenants in {took:.0f} s,"
        f" {run.storm.deliveries} deliveries, {run.storm.refused} of them refused and made again",
        "workers killed": f"{run.kills}, {len(waits)} jobs cut off",
        "resumed after": f"p50 {percentile(waits, 0.5):.1f} s, p99 {percentile(waits, 0.99):.1f} s,"
        f" most {max(waits):.1f} s",
        "most wake-ups waiting": str(run.most_wake_ups),
    }
    for fault in run.returned:
        figures[f"work goes on after: {fault.name}"] = (
            "never" if fault.seconds is None else f"{fault.seconds:.1f} s"
        )
    return figures
