"""The registry and the broker misbehave, workers are stopped and asked to go, while customers sign up.

Real Celery processes, real servers of the test's own; the cloud is simulated. However the fault goes, in
the end every customer has what was paid for, once.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from controlplane.domain.job import JobKind
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import job, schema_version
from controlplane.store.registry import RegistryUnavailable
from controlplane.workers.schedule.duties import DUTIES
from tests.faults.fleet import Fleet, children_of, send
from tests.faults.storm import broken, out_of_step
from tests.harness.engine import Harness
from tests.harness.faults.tcp import Line, TcpProxy

TENANTS = 12
WITHIN = 240.0
UNRECONCILED = """
    SELECT count(*) AS n FROM (SELECT FROM stripe_event WHERE state = 'received'
    UNION ALL SELECT FROM job WHERE kind <> ALL(%s)
      AND (state = 'running' OR due_at < clock_timestamp() + interval '10 minutes')) undone
"""


@dataclass
class Scene:
    harness: Harness
    fleet: Fleet
    postgres: PostgresServer
    broker: ValkeyServer

    def undone(self) -> int:
        with self.harness.ctx.registry.connection() as conn:
            row = conn.execute(UNRECONCILED, [list(DUTIES)]).fetchone()
        assert row is not None
        return int(row["n"])

    def sign_up(self, first: int = 0, many: int = TENANTS) -> None:
        for number in range(first, first + many):
            self.harness.hear(self.harness.subscribe(number))

    def until_reconciled(self) -> None:
        """And everything is there, once."""
        self.until_nothing_is_left()
        assert broken(self.harness) == []

    def until_nothing_is_left(self) -> None:
        deadline = time.monotonic() + WITHIN
        while True:
            self.fleet.tend()
            try:
                if not self.undone():
                    break
            except RegistryUnavailable:
                continue
            assert time.monotonic() < deadline, self.harness.open_work()
            time.sleep(0.2)
        self.harness.work()
        assert out_of_step(self.harness) == []

    def apply_all_again(self) -> None:
        """Whatever was confirmed of the stacks is forgotten."""
        with self.harness.ctx.registry.connection() as conn:
            conn.execute("DELETE FROM stack")
            for kind in (JobKind.TENANT, JobKind.CLUSTER):
                ids = [row["id"] for row in conn.execute(f"SELECT id FROM {kind}".encode()).fetchall()]
                job.ensure_all(conn, kind, ids, reason="once more", actor="test")
        self.harness.work()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < deadline, self.harness.open_work()
            time.sleep(0.05)

    def at_work(self) -> list[str]:
        """Who holds a tenant or a cluster."""
        with self.harness.ctx.registry.connection() as conn:
            rows = conn.execute(
                "SELECT holder FROM job WHERE kind IN ('tenant', 'cluster')"
                " AND state = 'running' AND lease_until > clock_timestamp()"
            ).fetchall()
        return [row["holder"] for row in rows]


@pytest.fixture
def postgres(data_root: Path) -> Iterator[PostgresServer]:
    folder = data_root / f"faulty-{uuid.uuid4().hex}"
    with PostgresServer(folder, options={"max_connections": "40"}) as server:
        yield server


@pytest.fixture
def valkey(data_root: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(data_root / f"faulty-{uuid.uuid4().hex}") as server:
        yield server


@pytest.fixture
def scene(postgres: PostgresServer, valkey: ValkeyServer, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Open it with settings for the workers; `through` stands between them and the registry."""
    url = postgres.create_database("registry")
    harness = Harness(url, tmp_path / "world.sqlite")
    with harness.ctx.registry.connection() as conn:
        schema_version.upgrade(conn)
    with ExitStack() as stack:

        def start(*, through: TcpProxy | None = None, **settings: str) -> Scene:
            theirs = url if through is None else url.replace(f":{postgres.port}/", f":{through.port}/")
            fleet = Fleet(tmp_path, registry_url=theirs, broker_url=valkey.url, workers=1, settings=settings)
            stack.enter_context(fleet)
            return Scene(harness, fleet, postgres, valkey)

        yield start
    harness.close()


pytestmark = pytest.mark.timeout(600)


@pytest.mark.fault(28)
def test_a_registry_that_crashes_every_few_seconds(scene: Callable[..., Scene]) -> None:
    there = scene()
    there.sign_up()
    for _ in range(4):
        time.sleep(5)
        there.postgres.kill()
        there.postgres.start()
    there.until_reconciled()


@pytest.mark.soak
@pytest.mark.fault(29)
def test_every_session_terminated_every_second(scene: Callable[..., Scene]) -> None:
    there = scene()
    there.sign_up()
    with psycopg.connect(there.postgres.url("postgres"), autocommit=True) as conn:
        for _ in range(20):
            time.sleep(1)
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = 'registry' AND pid <> pg_backend_pid()"
            )
    there.until_reconciled()


@pytest.mark.soak
@pytest.mark.fault(30)
def test_no_connection_left(scene: Callable[..., Scene]) -> None:
    """Somebody else takes all that the server has, for longer than a lease."""
    there = scene()
    there.sign_up()
    there.until(lambda: bool(there.at_work()))
    with ExitStack() as hogs:
        with pytest.raises(psycopg.OperationalError, match=r"too many clients|are reserved"):
            _take_all(there.postgres.url("registry"), hogs)
        time.sleep(20)
    there.until_reconciled()


def _take_all(url: str, hogs: ExitStack) -> None:
    while True:
        hogs.enter_context(psycopg.connect(url, connect_timeout=5))


@pytest.mark.fault(31)
def test_connections_to_the_registry_are_cut_in_the_middle(
    scene: Callable[..., Scene], postgres: PostgresServer
) -> None:
    """Each after some hundred or thousand bytes of answers: some of them after a commit."""
    with TcpProxy(postgres.port) as line:
        there = scene(through=line)
        line.line = Line(cut_after=6_000)
        there.sign_up()
        there.until(lambda: line.cut > 5)
        line.line = Line()
        there.until_reconciled()


@pytest.mark.soak
@pytest.mark.fault(26)
def test_a_broker_that_is_full(scene: Callable[..., Scene]) -> None:
    there = scene()
    with redis.Redis(port=there.broker.port, socket_timeout=10) as client:
        client.config_set("maxmemory", 1)
        there.sign_up()
        time.sleep(10)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.lpush("x", "y")
        client.config_set("maxmemory", 0)
    there.until_reconciled()


@pytest.mark.soak
@pytest.mark.fault(27)
def test_a_broker_that_falls_silent(scene: Callable[..., Scene]) -> None:
    there = scene()
    there.sign_up(0, 4)
    there.until(lambda: bool(there.at_work()))
    send(there.broker.pid, signal.SIGSTOP)
    there.sign_up(4, TENANTS - 4)
    time.sleep(20)
    send(there.broker.pid, signal.SIGCONT)
    there.until_reconciled()


@pytest.mark.fault(22)
def test_a_worker_stopped_past_its_lease(scene: Callable[..., Scene]) -> None:
    """The whole worker stops in the middle of what it does; another one takes over; it wakes up.

    Its Terraform may then save a state that is older than its successor's: nothing is lost by it, since the
    next apply adopts what the state does not name.
    """
    there = scene(CONTROLPLANE_LEASE_SECONDS="10", CONTROLPLANE_HEARTBEAT_SECONDS="2", FLEET_LATENCY="1")
    there.sign_up(0, 4)
    there.until(lambda: bool(there.at_work()))
    stopped = there.fleet.workers[0]
    pids = [stopped.pid, *children_of(stopped.pid)]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    held = there.at_work()
    there.fleet.grow()
    there.until(lambda: not set(held) & set(there.at_work()))
    there.until(lambda: there.undone() == 0)
    for pid in pids:
        send(pid, signal.SIGCONT)
    time.sleep(3)
    there.until_nothing_is_left()
    unknown = [found for found in broken(there.harness) if not found.endswith("in no Terraform state")]
    assert unknown == []
    there.apply_all_again()
    assert broken(there.harness) == []


@pytest.mark.soak
@pytest.mark.fault(35)
def test_a_deployment_in_the_middle_of_an_apply_cuts_nothing_off(scene: Callable[..., Scene]) -> None:
    """Nor does the worker begin anything more: the rest is left to its successor."""
    there = scene(FLEET_LATENCY="1")
    there.sign_up(0, 8)
    for _ in range(3):
        there.until(lambda: bool(there.at_work()))
        going = there.fleet.workers[0]
        going.send(signal.SIGTERM)
        there.until(lambda going=going: not going.running)  # type: ignore[misc]
        assert there.undone() > 0
        there.fleet.tend()
    there.until_reconciled()
    with there.harness.ctx.registry.connection() as conn:
        assert conn.execute("SELECT FROM step WHERE state = 'abandoned'").fetchall() == []


@pytest.mark.soak
@pytest.mark.fault(32)
@pytest.mark.parametrize("skew", [-600, 600])
def test_a_worker_whose_clock_is_ten_minutes_off(scene: Callable[..., Scene], skew: int) -> None:
    """It is the only one, so that nobody else can make up for it."""
    there = scene(FLEET_SKEW=str(skew))
    there.sign_up()
    there.until_reconciled()
