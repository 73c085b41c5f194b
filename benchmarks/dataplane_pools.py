"""The pools: ten thousand tenants in one budget, what a checkout costs, and one dead database among others.

Ten thousand real databases would fill the disk, so ten stand for all: in each the identity is a view of
the session's application name, which this benchmark's connections set to the tenant they are opened
for. Everything else is as shipped, the checks at every checkout included.
"""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from benchmarks.dataplane_resolver import config
from benchmarks.report import Bar, Report, percentile, side_by_side
from controlplane.localcloud.servers.postgres import PostgresServer
from dataplane.checkout import Limits
from dataplane.connect import Connector, Transport
from dataplane.credentials import Credential
from dataplane.errors import DatabaseError
from dataplane.pools import KeyedPools
from dataplane.tenant_config import DatabaseAddress, TenantConfig

DATABASES = 10
TENANTS = 10_000


class OneLogin:
    """The same trusted login for all."""

    def get(self, of: TenantConfig) -> Credential:
        return Credential("postgres", "unused")

    def refresh(self, of: TenantConfig, refused: Credential) -> Credential:
        return refused

    def forget(self, tenant_id: str) -> None:
        """There is nothing to forget."""


@dataclass(frozen=True, slots=True)
class Marked(Transport):
    def parameters(self, of: TenantConfig, credential: Credential, timeout: float) -> dict[str, Any]:
        plain = Transport.parameters(self, of, credential, timeout)
        return plain | {"application_name": of.tenant_id}


def tenant(number: int, port: int) -> TenantConfig:
    return replace(
        config(number),
        database=DatabaseAddress("127.0.0.1", port, f"bench_{number % DATABASES}", "unused", ""),
    )


def prepare(server: PostgresServer) -> None:
    for number in range(DATABASES):
        server.create_database(f"bench_{number}")
        with psycopg.connect(server.url(f"bench_{number}"), autocommit=True) as conn:
            conn.execute("CREATE SCHEMA platform")
            conn.execute(
                "CREATE VIEW platform.identity AS SELECT name || '-1' AS placement, name AS tenant"
                " FROM current_setting('application_name') AS name"
            )


def new_pools(budget: int, **transport: Any) -> KeyedPools:
    return KeyedPools(
        Connector(OneLogin(), Marked(sslmode="disable", **transport)),
        limits=Limits(budget=budget, waiting=64),
    )


def zipf(seed: int, exponent: float = 1.1) -> Callable[[], int]:
    weights = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(TENANTS)))
    draw = random.Random(seed)
    return lambda: draw.choices(range(TENANTS), cum_weights=weights)[0]


def many_tenants(report: Report, port: int, *, budget: int, seconds: float) -> None:
    pools = new_pools(budget)
    tenants = [tenant(number, port) for number in range(TENANTS)]
    times: list[float] = []
    failures: list[str] = []
    lock = threading.Lock()
    most_threads = before = threading.active_count()

    def work(seed: int) -> None:
        choose, mine = zipf(seed), []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            of = tenants[choose()]
            began = time.perf_counter()
            try:
                with pools.connection(of) as conn:
                    row = conn.execute("SELECT tenant FROM platform.identity").fetchone()
                if row != (of.tenant_id,):
                    failures.append(f"{of.tenant_id} read {row}")
            except (DatabaseError, psycopg.Error) as error:
                failures.append(repr(error))
            mine.append(time.perf_counter() - began)
        with lock:
            times.extend(mine)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    most_threads = threading.active_count()
    for thread in threads:
        thread.join()
    seen = pools.statistics
    pools.close()
    section = f"10,000 tenants, Zipf 1.1, a budget of {budget} connections, 8 threads"
    report.add(
        section,
        "most connections open at a time",
        str(seen.most_shared),
        f"≤ {budget}",
        seen.most_shared <= budget,
    )
    report.add(
        section, "requests, of them wrong or failed", f"{len(times):,}, {len(failures)}", "0", not failures
    )
    report.add(section, "requests a second", f"{len(times) / seconds:,.0f}")
    report.add(
        section,
        "a request with one statement",
        f"p50 {percentile(times, 0.5) * 1e3:.1f} ms, p95 {percentile(times, 0.95) * 1e3:.1f} ms, "
        f"p99 {percentile(times, 0.99) * 1e3:.1f} ms",
    )
    report.add(
        section, "served by a connection that was open", f"{1 - seen.opened / max(1, seen.checked_out):.0%}"
    )
    extra = most_threads - before - len(threads)
    report.add(section, "threads beside those of the requests", str(extra), "≤ 1", extra <= 1)


def checkout(report: Report, port: int, *, rounds: int) -> None:
    """What asserting and resetting cost: against a connection of one's own and a psycopg_pool."""
    of = tenant(0, port)
    pools = new_pools(4)
    options = f"host=127.0.0.1 port={port} user=postgres dbname=bench_0 application_name={of.tenant_id}"

    def ours() -> None:
        with pools.connection(of) as conn:
            conn.execute("SELECT 1")

    with (
        psycopg.connect(options, prepare_threshold=None) as own,
        ConnectionPool(options, min_size=1, max_size=4, kwargs={"prepare_threshold": None}) as theirs,
        ConnectionPool(
            options,
            min_size=1,
            max_size=4,
            kwargs={"prepare_threshold": None},
            check=ConnectionPool.check_connection,
            reset=_discard,
        ) as checked,
    ):

        def bare() -> None:
            own.execute("SELECT 1")
            own.commit()

        def plain_pool() -> None:
            with theirs.connection() as conn:
                conn.execute("SELECT 1")

        def checked_pool() -> None:
            with checked.connection() as conn:
                conn.execute("SELECT 1")

        seconds = side_by_side([bare, plain_pool, checked_pool, ours], number=100, rounds=rounds)
    pools.close()
    names = (
        "a connection of one's own, one transaction of one statement",
        "psycopg_pool, neither checked nor reset",
        "psycopg_pool with its check and DISCARD ALL",
        "keyed pools: identity asserted, reset",
    )
    section = "A checkout with one statement, the tenant's connection open already"
    for name, value in zip(names, seconds, strict=True):
        report.add(section, name, f"{value * 1e6:.0f} µs")
    report.bars += [
        Bar("psycopg_pool + check + DISCARD ALL", seconds[2] * 1e6),
        Bar("keyed pool, asserted and reset", seconds[3] * 1e6, ours=True),
    ]


def _discard(conn: psycopg.Connection[Any]) -> None:
    conn.autocommit = True
    conn.execute("DISCARD ALL")
    conn.autocommit = False


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        yield sock.getsockname()[1]


def dead_neighbour(report: Report, port: int, *, seconds: float) -> None:
    pools = new_pools(20, timeout=2.0)
    others = [tenant(number, port) for number in range(1, 9)]
    stop = threading.Event()
    answers: list[float] = []

    def p99(length: float) -> float:
        times: list[float] = []
        lock = threading.Lock()

        def work(seed: int) -> None:
            draw, mine = random.Random(seed), []
            until = time.monotonic() + length
            while time.monotonic() < until:
                began = time.perf_counter()
                with pools.connection(draw.choice(others)) as conn:
                    conn.execute("SELECT 1")
                mine.append(time.perf_counter() - began)
                time.sleep(0.002)
            with lock:
                times.extend(mine)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return percentile(times, 0.99)

    with black_hole() as hole:
        dead = tenant(0, hole)

        def hammer() -> None:
            while not stop.is_set():
                began = time.perf_counter()
                try:
                    pools.checkout(dead)
                except DatabaseError:
                    answers.append(time.perf_counter() - began)
                stop.wait(0.05)

        p99(0.5)
        alone, beside = [], []
        for _ in range(3):  # by turns, so that what else runs here strikes both
            alone.append(p99(seconds))
            stop.clear()
            hammers = [threading.Thread(target=hammer) for _ in range(10)]
            for thread in hammers:
                thread.start()
            beside.append(p99(seconds))
            stop.set()
            for thread in hammers:
                thread.join()
    pools.close()
    ratio = min(beside) / min(alone)
    section = "One tenant's database is a black hole, and ten clients keep asking for it"
    report.add(
        section,
        "the others' p99 without and with it",
        f"{min(alone) * 1e3:.1f} ms, {min(beside) * 1e3:.1f} ms ({ratio:.2f} ×)",
        "≤ 1.2 ×",
        ratio <= 1.2,
    )
    report.add(
        section,
        "the dead one's requests are answered after (median)",
        f"{percentile(answers, 0.5) * 1e3:.1f} ms",
    )
