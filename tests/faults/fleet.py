"""A fleet of real worker processes that are killed and take each other's place.

`kill_one` is what the out-of-memory killer does: a pool process, or a whole worker with its pool, gets
SIGKILL in the middle of whatever it does. The victim is stopped first, so that what it held at that
moment can be read off the registry; `Resumed` then watches until somebody has claimed it again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.localcloud.servers.process import Child, spawn
from controlplane.store.registry import Registry

ROOT = Path(__file__).parents[2]


class Fleet:
    """`workers` Celery workers of `pool` processes each, for both lanes. Use as a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        registry_url: str,
        broker_url: str,
        workers: int = 3,
        pool: int = 2,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._pool = pool
        self._environment = {
            **os.environ,
            "CONTROLPLANE_REGISTRY_URL": registry_url,
            "CONTROLPLANE_BROKER_URL": broker_url,
            "FLEET_WORLD": str(folder / "world.sqlite"),
            **(settings or {}),
        }
        self._workers: list[Child] = []
        self._size = workers
        self.started = 0

    def __enter__(self) -> Fleet:
        self.tend()
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._workers:
            child.kill()

    @property
    def workers(self) -> list[Child]:
        return [child for child in self._workers if child.running]

    def tend(self) -> None:
        """Start what has ended, as a platform would."""
        for child in [child for child in self._workers if not child.running]:
            child.kill()  # reaps it
            self._workers.remove(child)
        while len(self._workers) < self._size:
            self.started += 1
            self._workers.append(self._start(f"worker-{self.started}"))

    def grow(self) -> None:
        """One worker more."""
        self._size += 1
        self.tend()

    def kill_one(self, rng: random.Random, registry: Registry) -> list[Cut]:
        """Kill a pool process or a whole worker; the jobs that it held."""
        worker = rng.choice(self._workers)
        pool = children_of(worker.pid)
        victims = [rng.choice(pool)] if pool and rng.random() < 0.5 else [worker.pid, *pool]
        for pid in victims:
            send(pid, signal.SIGSTOP)
        with registry.connection() as conn:
            rows = conn.execute(
                "SELECT id, fencing_token FROM job WHERE state = 'running' AND holder LIKE ANY(%s)",
                [[f"test/{pid}/%" for pid in victims]],
            ).fetchall()
        for pid in victims:
            send(pid, signal.SIGKILL)
        return [Cut(**row, at=time.monotonic()) for row in rows]

    def _start(self, name: str) -> Child:
        queues = ("--queues", "quick,long", "--loglevel", "WARNING")
        options = ["--concurrency", str(self._pool), *queues, "--without-gossip", "--without-mingle"]
        return spawn(
            name,
            [sys.executable, "-m", "celery", "-A", "tests.faults.fleet_app", "worker", *options],
            log=self._folder / f"{name}.log",
            env=self._environment,
            cwd=ROOT,
            death_signal=signal.SIGKILL,
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """A job whose worker died; `at`: when, on the monotonic clock."""

    id: int
    fencing_token: int
    at: float


@dataclass
class Resumed:
    """How long each job whose worker died waited for the next one. `seconds` is in order of resumption;
    `open` have not been taken yet."""

    open: list[Cut] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def look(self, registry: Registry) -> None:
        """Each claim draws a higher fencing token: a job was taken once it has one, in the queue or where it
        is kept when it has ended. One of a kind that is not kept was taken once its row is gone, which only
        whoever holds it removes. One that the dead had let go of with its last commit was not cut off."""
        if not self.open:
            return
        with registry.connection() as conn:
            rows = conn.execute(
                "SELECT id, state, fencing_token FROM job WHERE id = ANY(%(ids)s)"
                " UNION ALL SELECT id, state, fencing_token FROM job_history WHERE id = ANY(%(ids)s)",
                {"ids": [cut.id for cut in self.open]},
            ).fetchall()
        now = time.monotonic()
        there = {row["id"]: row for row in rows}
        still = list[Cut]()
        for cut in self.open:
            row = there.get(cut.id)
            if row is None or row["fencing_token"] > cut.fencing_token:
                self.seconds.append(now - cut.at)
            elif row["state"] == "running":
                still.append(cut)
        self.open = still


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself, which the platform allows it to


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
