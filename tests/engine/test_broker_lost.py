"""The broker only wakes workers up: whatever happens to it, every tenant that was paid for is provisioned."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from controlplane.domain.job import JobKind, Lane
from controlplane.domain.placement import tenant_id_for
from controlplane.localcloud.servers.process import Child, spawn
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store.registry import Registry
from controlplane.wake_up import FULL, WakeUp, publisher
from tests.harness.engine import Harness
from tests.processes import is_running

ROOT = Path(__file__).parents[2]
TENANTS = 20
WITHIN = 120.0
POOL = 2  # processes of a worker


@pytest.fixture
def celery(
    registry: Registry, database_url: str, broker: ValkeyServer, tmp_path: Path
) -> Iterator[Callable[..., Child]]:
    environment = {
        **os.environ,
        "CONTROLPLANE_REGISTRY_URL": database_url,
        "CONTROLPLANE_BROKER_URL": broker.url,
        "HARNESS_WORLD": str(tmp_path / "world.sqlite"),
        "HARNESS_LATENCY": "0.05",
    }
    children: list[Child] = []

    def start(name: str, *arguments: str) -> Child:
        child = spawn(
            name,
            [sys.executable, "-m", "celery", "-A", "tests.harness.celery_app", *arguments],
            log=tmp_path / f"{name}.log",
            env=environment,
            cwd=ROOT,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def harness(registry: Registry, database_url: str, tmp_path: Path) -> Iterator[Harness]:
    opened = Harness(database_url, tmp_path / "world.sqlite")
    yield opened
    opened.close()


QUIET = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")


def _start(celery: Callable[..., Child], *lanes: Lane) -> Child:
    """A worker of these lanes, of both where none is named."""
    queues = ",".join(lanes or Lane)
    return celery(f"worker-{queues}", "worker", "--concurrency", str(POOL), "--queues", queues, *QUIET)


def _until_all_ready(harness: Harness, subscriptions: list[str], meanwhile: Callable[[], None]) -> None:
    ids = [tenant_id_for(subscription) for subscription in subscriptions]
    deadline = time.monotonic() + WITHIN
    while True:
        with harness.ctx.registry.connection() as conn:
            row = conn.execute(
                "SELECT count(*) AS n FROM tenant WHERE id = ANY(%s) AND observed_generation = generation",
                [ids],
            ).fetchone()
        if row is not None and row["n"] == len(ids):
            return
        assert time.monotonic() < deadline, f"{row} of {len(ids)} are ready: {harness.open_work()}"
        meanwhile()
        time.sleep(0.2)


@pytest.mark.timeout(300)
def test_twenty_tenants_while_redis_is_flushed_again_and_again(
    celery: Callable[..., Child], harness: Harness, broker: ValkeyServer
) -> None:
    _start(celery)
    subscriptions = [harness.subscribe(number) for number in range(TENANTS)]
    for subscription in subscriptions:
        harness.hear(subscription)
    flushes = []

    def flush() -> None:
        broker.flush()
        flushes.append(time.monotonic())

    _until_all_ready(harness, subscriptions, flush)
    assert len(flushes) > 3
    harness.work()
    assert harness.violations() == []


@pytest.mark.timeout(300)
def test_a_broker_that_is_killed_and_comes_back_empty(
    celery: Callable[..., Child], harness: Harness, broker: ValkeyServer
) -> None:
    _start(celery)
    subscriptions = [harness.subscribe(number) for number in range(5)]
    for subscription in subscriptions:
        harness.hear(subscription)
    rounds = iter(range(1_000_000))

    def kill_once() -> None:
        if next(rounds) == 8:
            broker.kill()
            time.sleep(3)
            broker.start()

    _until_all_ready(harness, subscriptions, kill_once)
    harness.work()
    assert harness.violations() == []


@pytest.mark.timeout(300)
def test_queues_that_nobody_listens_to_do_not_grow(
    celery: Callable[..., Child], harness: Harness, broker: ValkeyServer
) -> None:
    """First there is no worker, then one of the quick lane, which fills the other's queue, then both."""
    subscriptions = [harness.subscribe(number) for number in range(5)]
    for subscription in subscriptions:
        harness.hear(subscription)
    with redis.Redis(port=broker.port) as client, Celery(broker=broker.url, set_as_current=False) as app:
        wake_up = WakeUp(publisher(app), gap=0)

        def lengths() -> dict[Lane, int]:
            return {lane: int(client.llen(lane.value)) for lane in Lane}

        for number in range(FULL + 50):
            for lane in Lane:
                wake_up(lane)
            assert set(lengths().values()) == {min(number + 1, FULL)}
        _start(celery, Lane.QUICK)
        _until(lambda: lengths()[Lane.QUICK] == 0, "whoever listens empties the queue")
        _until(lambda: _tenants(harness) == len(subscriptions), "the events are handled")
        assert _kinds_done_in(harness, Lane.LONG) == set()
        for _ in range(FULL):
            wake_up(Lane.LONG)
        assert FULL <= lengths()[Lane.LONG] <= FULL + POOL  # each process may have looked a moment before
        _start(celery, Lane.LONG)
        _until_all_ready(harness, subscriptions, lambda: None)
        _until(lambda: set(lengths().values()) == {0}, "both queues are emptied")
    harness.work()
    assert harness.violations() == []


def _tenants(harness: Harness) -> int:
    with harness.ctx.registry.connection() as conn:
        return conn.execute("SELECT FROM tenant").rowcount


def _kinds_done_in(harness: Harness, lane: Lane) -> set[JobKind]:
    """Of the jobs that have gone over to the lane or begin there, those that somebody has taken there."""
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT kind FROM job WHERE lane = %s AND (state = 'running' OR attempts > 0)", [lane]
        ).fetchall()
    return {JobKind(row["kind"]) for row in rows}


@pytest.mark.timeout(300)
def test_whoever_reaches_the_broker_controls_no_worker(
    celery: Callable[..., Child], harness: Harness, broker: ValkeyServer
) -> None:
    """Celery's remote control would answer, cancel what is consumed and shut the worker down."""
    _start(celery)
    _hear_and_wait(harness, 1)
    attacker = Celery(broker=broker.url)
    assert attacker.control.ping(timeout=5) == []
    for lane in Lane:
        attacker.control.cancel_consumer(lane.value)
    attacker.control.shutdown()
    _hear_and_wait(harness, 2)


def _hear_and_wait(harness: Harness, number: int) -> None:
    subscription = harness.subscribe(number)
    harness.hear(subscription)
    _until_all_ready(harness, [subscription], lambda: None)


def _until(what: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + WITHIN
    while not what():
        assert time.monotonic() < deadline, name
        time.sleep(0.1)


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(300)
def test_pool_processes_end_with_the_worker_that_is_killed(
    celery: Callable[..., Child], harness: Harness
) -> None:
    worker = _start(celery)
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    _until_all_ready(harness, [subscription], lambda: None)
    children = _children_of(worker.pid)
    assert len(children) == POOL
    os.kill(worker.pid, signal.SIGKILL)
    deadline = time.monotonic() + WITHIN
    while alive := [pid for pid in children if is_running(pid)]:
        assert time.monotonic() < deadline, f"{alive} outlived the worker"
        time.sleep(0.1)
