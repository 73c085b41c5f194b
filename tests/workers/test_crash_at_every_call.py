"""Kill the worker before and after every outside call of provisioning, and of a warm cluster's end; each
time the next one finishes.

The calls are not listed here: a first run records them, so a new step or a new call joins by being made.
Each run is a process of its own that ends by `os._exit(137)` in the middle of the call, with a registry
and a world of its own; its successor is given nothing but these two.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.domain.catalogue import PoolLimits
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from localcloud.postgres import PostgresServer
from tests.workers.house import House

KILLED = 137
CALLS = (
    "billing.subscription",
    "config_cache.publish",
    "databases.create.inside",
    "databases.harden_cluster",
    "databases.prove",
    "databases.set_password",
    "hostnames.create",
    "secrets.write",
    "terraform.lock",
)
CALLS_OF_AN_END = (
    "clusters.describe",
    "terraform.destroy:module.cluster.aws_kms_key.this",
    "terraform.destroy:module.cluster.aws_rds_cluster.this",
    'terraform.destroy:module.cluster.aws_rds_cluster_instance.this["1"]',
)
"""Some of those that a run must have made, so that an empty recording can't pass."""


def _work(url: str, world: str, crash_at: int | None, record: str | None) -> None:
    """A worker's life: until nothing is left to do, or until the crash point of this number."""
    numbers = itertools.count()
    points: list[str] = []

    def crash(point: str) -> None:
        points.append(point)
        if next(numbers) == crash_at:
            os._exit(KILLED)

    house = _house(url, world, crash=crash)
    house.work()
    house.close()
    if record is not None:
        Path(record).write_text("\n".join(points))


def _house(
    url: str, world: Path | str, *, warm_slots: int = 0, crash: Callable[[str], None] | None = None
) -> House:
    """A surplus of its warm pool goes at once."""
    house = House(url, world, crash=crash)
    plans = dict(house.ctx.catalogue.plans)
    plans["dedicated"] = replace(plans["dedicated"], warm_slots=warm_slots)
    limits = PoolLimits(retire_after_hours=0)
    house.ctx = replace(house.ctx, catalogue=replace(house.ctx.catalogue, plans=plans, pool=limits))
    return house


@pytest.fixture
def process() -> Callable[..., int]:
    """Run `_work` in a process of its own; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.workers.test_crash_at_every_call"])

    def run(*args: object) -> int:
        child = context.Process(target=_work, args=args)
        child.start()
        child.join(60)
        assert child.exitcode is not None, "the worker hangs"
        return child.exitcode

    return run


def _customer_pays(url: str, world: Path) -> House:
    house = _house(url, world)
    subscription = house.subscribe(1, plan="dedicated", metadata={"custom_domain": "www.customer.dev"})
    house.hear(subscription, "customer.subscription.created")
    return house


def _nobody_needs_the_warm_cluster(url: str, world: Path) -> House:
    made = _house(url, world, warm_slots=1)
    made.work()
    made.close()
    return _house(url, world)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("begin", "calls", "at_least"),
    [(_customer_pays, CALLS, 80), (_nobody_needs_the_warm_cluster, CALLS_OF_AN_END, 10)],
)
def test_every_crash_point_converges_without_orphan_or_duplicate(
    postgres_server: PostgresServer,
    tmp_path: Path,
    process: Callable[..., int],
    begin: Callable[[str, Path], House],
    calls: tuple[str, ...],
    at_least: int,
) -> None:
    recording = tmp_path / "points"
    failures: list[str] = []
    points: list[str] = []
    for number in itertools.count(-1):
        name = f"crash_{uuid.uuid4().hex}"
        url, world = postgres_server.create_database(name), tmp_path / f"world-{number}.sqlite"
        with Registry(url) as registry, registry.connection() as conn:
            schema_version.upgrade(conn)
        house = begin(url, world)
        if number < 0:
            assert process(url, str(world), None, str(recording)) == 0
            points = recording.read_text().split("\n")
        else:
            if process(url, str(world), number, None) != KILLED:
                failures.append(f"{number} {points[number]}: the run did not come this far")
            elif process(url, str(world), None, None) != 0:
                failures.append(
                    f"{number} {points[number]}: the successor did not finish {house.open_work()}"
                )
        failures += [
            f"{number} {points[number] if number >= 0 else 'undisturbed'}: {violation}"
            for violation in house.violations()
        ]
        house.close()
        postgres_server.drop_database(name)
        if number == len(points) - 1:
            break
    assert {f"{call}:{side}" for call in calls for side in ("before", "after")} <= set(points)
    assert len(points) >= at_least
    assert failures == []
