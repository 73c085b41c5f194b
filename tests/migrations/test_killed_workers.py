"""kill -9 of worker processes in the middle of a rollout: nothing runs twice, nobody is left out.

The proof is in the tenants' databases: each migration adds a row to a counter table without any
precaution, so one that ran twice has left two.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.migrations.conftest import MakeFleet
from tests.migrations.fleet import Fleet, counting

LEASE = 2.0
WORKERS = 2


def _start(fleet_url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.migrations.worker", fleet_url, str(LEASE)])


def kill_through(
    fleet: Fleet,
    url: str,
    rollout_id: int,
    *,
    seconds: float,
    between: tuple[float, float] = (0.3, 1.5),
    seed: int = 7,
) -> int:
    """Workers that are killed at random moments, each after some progress, until the rollout is over; how
    many were killed.
    `between`: seconds from one kill to the next, at least and at most."""
    chance = random.Random(seed)
    workers = [_start(url) for _ in range(WORKERS)]
    kills, until, through = 0, time.monotonic() + seconds, 0
    try:
        while fleet.show(rollout_id).rollout.state == "running":
            assert time.monotonic() < until, fleet.show(rollout_id)
            time.sleep(chance.uniform(*between))
            done = fleet.show(rollout_id).counts.done
            if done > through:  # or on a busy machine nobody would live to the end of its imports
                through = done
                victim = chance.randrange(WORKERS)
                if workers[victim].poll() is None:
                    workers[victim].send_signal(signal.SIGKILL)
                    kills += 1
                workers[victim].wait()
                workers[victim] = _start(url)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return kills


def slow(files: dict[str, str]) -> dict[str, str]:
    """The same with a pause in each transaction, so that a kill falls into one."""
    return {name: f"{text};\nSELECT pg_sleep(0.4)" for name, text in files.items()}


@pytest.mark.timeout(280)
def test_killed_workers_leave_nobody_out_and_repeat_nothing(make_fleet: MakeFleet, database_url: str) -> None:
    fleet = make_fleet(20, lease_seconds=LEASE)
    number = fleet.release(slow(counting(2, 3)))
    rollout_id = fleet.start(number, waves=["100%"], concurrency=2, attempts=20)
    kills = kill_through(fleet, database_url, rollout_id, seconds=240)
    detail = fleet.show(rollout_id)
    assert (detail.rollout.state, detail.counts.done) == ("done", 20)
    assert kills >= 2
    assert fleet.violations([2, 3]) == []
    assert {tuple(fleet.recorded(placed)) for placed in fleet.tenants} == {("0001", "0002", "0003")}
