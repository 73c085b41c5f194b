"""The queue as one worker meets it: claim a job, take one over, beat, and a lease that runs out."""

from __future__ import annotations

from typing import Any

from controlplane.domain.job import Job, Lane
from controlplane.store import job
from controlplane.store.registry import Connection, Registry


def run_out(conn: Connection) -> None:
    """The time of every lease is over."""
    conn.execute("UPDATE job SET lease_until = '-infinity' WHERE state = 'running'")


def claim(registry: Registry, holder: str = "w1", lane: Lane = Lane.QUICK, **asked: Any) -> Job | None:
    with registry.connection() as conn:
        return job.claim(conn, lane, holder=holder, seconds=30, **asked)


def claimed(registry: Registry, holder: str = "w1", lane: Lane = Lane.QUICK, **asked: Any) -> Job:
    held = claim(registry, holder, lane, **asked)
    assert held is not None
    return held


def taken_over(registry: Registry, holder: str = "w2", lane: Lane = Lane.QUICK) -> Job | None:
    with registry.connection() as conn:
        return job.take_over(conn, lane, holder=holder, seconds=30)


def beat(conn: Connection, held: Job) -> set[int]:
    return job.beat(conn, held.holder, [held.fencing_token], lanes=[Lane.QUICK], version="1", seconds=30)
