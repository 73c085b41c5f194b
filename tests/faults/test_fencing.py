"""One lock, many workers that are killed, stopped past their lease and split off: no two write under it (I3).

Every accepted write leaves its fencing token. Since a take-over waits for the transaction of the holder
before, the tokens can only rise in the order of the writes; one that falls was written by somebody who had
lost the lock.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

import pytest

from controlplane.domain.errors import LeaseLost
from controlplane.domain.job import JobKind, Lane
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.store import job
from controlplane.store.registry import Connection, Registry, RegistryUnavailable, one
from tests.harness.faults.tcp import GOOD, Line, TcpProxy

WRITES = 10_000
WORKERS = 4
LEASE = 0.3
ONE = "t-aaaaaaaaaaaa"


def work(url: str, number: int) -> None:
    """Hold the lock as long as it goes and write under it; never give it back."""
    with Registry(url, size=1, wait=1.0, statement_timeout=5.0) as registry:
        turn = 0
        while True:
            turn += 1
            holder = f"{number}/{os.getpid()}/{turn}"
            with suppress(RegistryUnavailable, LeaseLost):
                with registry.connection() as conn:
                    held = job.take_over(conn, Lane.QUICK, holder=holder, seconds=LEASE) or job.claim(
                        conn, Lane.QUICK, holder=holder, seconds=LEASE
                    )
                if held is None:
                    time.sleep(0.05)
                    continue
                while True:
                    with registry.connection() as conn, conn.transaction():
                        job.guard(conn, held)
                        conn.execute("INSERT INTO written (token) VALUES (%s)", [held.fencing_token])
                    if random.random() < 0.05:
                        with registry.connection() as conn:
                            job.beat(
                                conn,
                                holder,
                                [held.fencing_token],
                                lanes=[Lane.QUICK],
                                version="1",
                                seconds=LEASE,
                            )


@pytest.mark.soak
@pytest.mark.fault(36)
@pytest.mark.timeout(900)
def test_no_two_write_under_one_lock(postgres_server: PostgresServer, database_url: str) -> None:
    rng, spawn = random.Random(0), get_context("spawn")
    lines = [TcpProxy(postgres_server.port, seed=n) for n in range(WORKERS)]
    for line in lines:
        line.__enter__()
    urls = [database_url.replace(f":{postgres_server.port}/", f":{line.port}/") for line in lines]

    def start(n: int) -> BaseProcess:
        process = spawn.Process(target=work, args=(urls[n], n), daemon=True)
        process.start()
        return process

    with Registry(database_url) as registry, registry.connection() as conn:
        conn.execute("CREATE TABLE written (id bigserial PRIMARY KEY, token bigint NOT NULL)")
        job.ensure(conn, JobKind.TENANT, ONE, reason="x", actor="test")
        workers = [start(n) for n in range(WORKERS)]
        done, faults = 0, {"killed": 0, "stopped": 0, "split off": 0}
        try:
            while done < WRITES or min(faults.values()) < 10:
                time.sleep(rng.uniform(0.2, 0.6))
                victim = holding(conn)
                if victim is None:
                    continue
                fault = rng.choice(list(faults))
                faults[fault] += 1
                if fault == "killed":
                    workers[victim].kill()
                    workers[victim].join()
                    workers[victim] = start(victim)
                elif fault == "stopped":
                    os.kill(int(workers[victim].pid or 0), signal.SIGSTOP)
                    time.sleep(3 * LEASE)
                    os.kill(int(workers[victim].pid or 0), signal.SIGCONT)
                else:
                    lines[victim].line = Line(silent=True)
                    time.sleep(3 * LEASE)
                    lines[victim].line = GOOD
                    lines[victim].reset_all()
                done = one(conn.execute("SELECT count(*) AS n FROM written").fetchone())["n"]
        finally:
            for worker in workers:
                worker.kill()
            for line in lines:
                line.__exit__()
        tokens = [row["token"] for row in conn.execute("SELECT token FROM written ORDER BY id").fetchall()]
    fallen = [(a, b) for a, b in pairwise(tokens) if b < a]
    assert fallen == []
    assert len(set(tokens)) > 20, faults


def holding(conn: Connection) -> int | None:
    """The number of the worker whose lease has not run out."""
    row = conn.execute("SELECT holder FROM job WHERE lease_until > clock_timestamp()").fetchone()
    return None if row is None else int(row["holder"].partition("/")[0])
