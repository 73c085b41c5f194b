"""The broker is a doorbell: whatever happens to it, every tenant that was paid for is provisioned."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.domain.placement import tenant_id_for
from controlplane.store.registry import Registry
from localcloud.process import Child, spawn
from localcloud.valkey import ValkeyServer
from tests.processes import is_running
from tests.workers.house import House

ROOT = Path(__file__).parents[2]
TENANTS = 20
WITHIN = 120.0


@pytest.fixture
def celery(
    registry: Registry, database_url: str, broker: ValkeyServer, tmp_path: Path
) -> Iterator[Callable[..., Child]]:
    environment = {
        **os.environ,
        "CONTROLPLANE_REGISTRY_URL": database_url,
        "CONTROLPLANE_BROKER_URL": broker.url,
        "CONTROLPLANE_SWEEP_INTERVAL": "1",
        "HOUSE_WORLD": str(tmp_path / "world.sqlite"),
        "HOUSE_LATENCY": "0.05",
    }
    children: list[Child] = []

    def start(name: str, *arguments: str) -> Child:
        child = spawn(
            name,
            [sys.executable, "-m", "celery", "-A", "tests.workers.celery_house", *arguments],
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
def house(registry: Registry, database_url: str, tmp_path: Path) -> Iterator[House]:
    opened = House(database_url, tmp_path / "world.sqlite")
    yield opened
    opened.close()


def _start(celery: Callable[..., Child], tmp_path: Path) -> None:
    queues = ("--queues", "events,controlplane", "--loglevel", "WARNING")
    celery("worker", "worker", "--concurrency", "2", *queues, "--without-gossip", "--without-mingle")
    celery("beat", "beat", "--schedule", str(tmp_path / "beat"), "--loglevel", "WARNING")


def _until_all_ready(house: House, subscriptions: list[str], meanwhile: Callable[[], None]) -> None:
    ids = [tenant_id_for(subscription) for subscription in subscriptions]
    deadline = time.monotonic() + WITHIN
    while True:
        with house.ctx.registry.connection() as conn:
            row = conn.execute(
                "SELECT count(*) AS n FROM tenant WHERE id = ANY(%s) AND settled_generation = generation",
                [ids],
            ).fetchone()
        if row is not None and row["n"] == len(ids):
            return
        assert time.monotonic() < deadline, f"{row} of {len(ids)} are ready: {house.open_work()}"
        meanwhile()
        time.sleep(0.2)


@pytest.mark.timeout(300)
def test_twenty_tenants_while_redis_is_flushed_again_and_again(
    celery: Callable[..., Child], house: House, broker: ValkeyServer, tmp_path: Path
) -> None:
    _start(celery, tmp_path)
    subscriptions = [house.subscribe(number) for number in range(TENANTS)]
    for subscription in subscriptions:
        house.hear(subscription)
    flushes = []

    def flush() -> None:
        broker.flush()
        flushes.append(time.monotonic())

    _until_all_ready(house, subscriptions, flush)
    assert len(flushes) > 3
    house.work()
    assert house.violations() == []


@pytest.mark.timeout(300)
def test_a_broker_that_is_killed_and_comes_back_empty(
    celery: Callable[..., Child], house: House, broker: ValkeyServer, tmp_path: Path
) -> None:
    _start(celery, tmp_path)
    subscriptions = [house.subscribe(number) for number in range(5)]
    for subscription in subscriptions:
        house.hear(subscription)
    rounds = iter(range(1_000_000))

    def kill_once() -> None:
        if next(rounds) == 8:
            broker.kill()
            time.sleep(3)
            broker.start()

    _until_all_ready(house, subscriptions, kill_once)
    house.work()
    assert house.violations() == []


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(300)
def test_pool_processes_end_with_the_worker_that_is_killed(
    celery: Callable[..., Child], house: House, tmp_path: Path
) -> None:
    worker = celery("worker", "worker", "--concurrency", "2", "--queues", "events,controlplane")
    subscription = house.subscribe(1)
    house.hear(subscription)
    celery("beat", "beat", "--schedule", str(tmp_path / "beat"), "--loglevel", "WARNING")
    _until_all_ready(house, [subscription], lambda: None)
    children = _children_of(worker.pid)
    assert len(children) == 2
    os.kill(worker.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive := [pid for pid in children if is_running(pid)]:
        assert time.monotonic() < deadline, f"{alive} outlived the worker"
        time.sleep(0.1)
