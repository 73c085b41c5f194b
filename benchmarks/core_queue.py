"""Claims at any backlog, placing, a sweep, and how soon a paying customer's job begins."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psycopg
from procrastinate.schema import SchemaManager

from benchmarks.report import Report, percentile
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.cluster import ClusterSpec
from controlplane.domain.job import JobKind, Lane
from controlplane.domain.pool import Quota
from controlplane.localcloud.servers.process import spawn
from controlplane.services import pool, timers
from controlplane.services.clusters import ENGINE_VERSION
from controlplane.services.tenants import place
from controlplane.store import job
from controlplane.store.registry import Connection, Registry, one
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Heartbeat, Hold
from controlplane.workers.engine.run import Handler, drain

ROOT = Path(__file__).parents[1]
SECTION = "The queue"
CATALOGUE = parse_catalogue(
    """
version = 1
[pool]
max_clusters = 10000
[plans.shared]
isolation = "shared"
lookup_keys = ["shared"]
min_acu = 0.5
max_acu = 8
backup_retention_days = 7
slots = 26
pool_size = 5
connection_limit = 20
custom_domains = 1
retention_days = 30
""",
    source="benchmark",
)
SHARED = CATALOGUE.plan("shared")


def timed(act: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def fill(conn: Connection, *, tenants: int, clusters: int, finished: int) -> None:
    wanted = ClusterSpec.for_plan(SHARED, engine_version=ENGINE_VERSION)
    spec = json.dumps(wanted.to_json())
    name = "translate(lpad(to_hex(n), 12, '0'), '0189', 'ghij')"
    statements: list[tuple[str, dict[str, object]]] = [
        (
            f"INSERT INTO cluster (id, cluster_class, slots, spec, ready_at, endpoint)"
            f" SELECT 'c-' || {name}, %(class)s, 26, %(spec)s, now(), '{{}}'"
            f" FROM generate_series(1, %(n)s) n",
            {"n": clusters, "spec": spec, "class": wanted.cluster_class},
        ),
        (
            f"INSERT INTO tenant (id, slug, display_name, customer_id, spec, next_observation_at)"
            f" SELECT 't-' || {name}, 's' || n, 'T', 'cus_' || n, '{{\"lifecycle\": \"active\"}}',"
            f" now() + interval '1 hour' FROM generate_series(1, %(n)s) n",
            {"n": tenants},
        ),
        (
            f"INSERT INTO placement (id, tenant_id, cluster_id, state, username)"
            f" SELECT 'p-' || {name}, 't-' || {name},"
            f" 'c-' || {name.replace('to_hex(n)', 'to_hex(1 + n %% %(c)s)')},"
            f" 'current', 'x' FROM generate_series(1, %(n)s) n",
            {"n": tenants, "c": clusters},
        ),
        (
            "INSERT INTO job_history (id, kind, subject, state, attempts, fencing_token, causes, cause_count,"
            " created_at, started_at, finished_at)"
            " SELECT n, 'tenant', 't-' || n %% 100000, 'done', 1, n, '[]', 1, now(), now(), now()"
            " FROM generate_series(1, %(n)s) n",
            {"n": finished},
        ),
        ("SELECT setval('job_id_seq', %(n)s)", {"n": finished + 1}),
        ("ANALYZE", {}),
    ]
    for statement, values in statements:
        conn.execute(statement.encode(), values or None)


def backlog(conn: Connection, count: int) -> None:
    """So many routine jobs that have been due for a while, in both lanes."""
    conn.execute("DELETE FROM job")
    conn.execute(
        "INSERT INTO job (kind, subject, lock, lane, priority, due_at)"
        " SELECT 'tenant', 'b' || n, 'b' || n, 'quick', 3, now() - interval '1 hour' - interval '1 ms' * n"
        " FROM generate_series(1, %s) n",
        [count],
    )
    conn.execute("VACUUM ANALYZE job")


def cycle(conn: Connection, number: int) -> float:
    """A paid job asked for, claimed and finished: the milliseconds of the last two."""
    job.ensure(conn, JobKind.TENANT, f"paid{number}", reason="paid", actor="billing")
    began = time.perf_counter()
    held = job.claim(conn, Lane.QUICK, holder="bench", seconds=30)
    if held is None or held.subject != f"paid{number}":
        raise SystemExit(f"expected the paid job before {held}")
    job.finish(conn, held, recorded=False)
    return (time.perf_counter() - began) * 1000


def peer(url: str, sizes: tuple[int, ...], tries: int) -> dict[int, float]:
    """The same of procrastinate, by its own functions: milliseconds, p50, at each backlog. Each job has a
    lock of its own, as ours have, and what is asked for is more urgent than what waits."""
    found: dict[int, float] = {}
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SchemaManager.get_schema().encode())
        insert = "INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock)"
        for size in sizes:
            conn.execute("TRUNCATE procrastinate_jobs CASCADE")
            fill = f"{insert} SELECT 'q', 't', 0, 'b' || n FROM generate_series(1, %s) n"
            conn.execute(fill.encode(), [size])
            conn.execute("VACUUM ANALYZE procrastinate_jobs")
            took = []
            for number in range(tries):
                conn.execute(f"{insert} VALUES ('q', 't', 10, %s)".encode(), [f"paid{number}"])
                began = time.perf_counter()
                row = conn.execute("SELECT id, lock FROM procrastinate_fetch_job_v2(NULL, NULL)").fetchone()
                if row is None or row[1] != f"paid{number}":
                    raise SystemExit(f"expected the paid job before {row}")
                conn.execute("SELECT procrastinate_finish_job_v1(%s, 'succeeded', true)", [row[0]])
                took.append((time.perf_counter() - began) * 1000)
            found[size] = statistics.median(took)
    return found


def queue(
    report: Report, url: str, sizes: tuple[int, ...], tries: int, peers: dict[int, float], *, held: float
) -> None:
    """`held`: seconds for which somebody keeps a snapshot."""
    medians: dict[int, float] = {}
    with Registry(url, statement_timeout=900) as registry, registry.connection() as conn:
        for size in sizes:
            backlog(conn, size)
            took = [cycle(conn, n) for n in range(tries)]
            medians[size] = statistics.median(took)
            value = f"{medians[size]:.2f} ms, p99 {percentile(took, 0.99):.2f} ms"
            report.add(SECTION, f"claim + finish, {size:,} jobs wait", value)
            report.add(SECTION, f"procrastinate's, {size:,} jobs wait", f"{peers[size]:.2f} ms")
        backlog(conn, min(10_000, sizes[-1]))
        with psycopg.connect(url) as old:  # a dump, say, or somebody's forgotten psql
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT count(*) FROM job")
            began, took = time.monotonic(), []
            while time.monotonic() - began < held:
                took.append(cycle(conn, len(took)))
        report.add(
            SECTION,
            f"claim + finish after {len(took):,} claims under a snapshot of {held:g} s",
            f"{statistics.median(took[-200:]):.2f} ms, p99 {percentile(took[-200:], 0.99):.2f} ms",
        )
        conn.execute("DELETE FROM job")
    worst = max(medians.values())
    growth = worst / medians[sizes[0]]
    report.add(SECTION, "at the worst backlog, p50", f"{worst:.2f} ms", "under 5 ms", worst < 5)
    report.add(SECTION, f"the worst backlog ÷ {sizes[0]}", f"{growth:.1f} ×", "≤ 2 ×", growth <= 2)


def placing(report: Report, url: str, tries: int) -> None:
    with Registry(url) as registry, registry.connection() as conn:
        took = []
        for number in range(tries):
            with conn.transaction():
                tenant_id = f"t-zz{number:010d}".translate(str.maketrans("0189", "ghij"))
                conn.execute(
                    "INSERT INTO tenant (id, slug, display_name, customer_id, spec)"
                    " VALUES (%s, %s, 'T', 'c', '{}')",
                    [tenant_id, f"z{number}"],
                )
                took.append(timed(partial(place, conn, tenant_id, SHARED, actor="billing")))
        made = one(conn.execute("SELECT count(*) AS n FROM cluster WHERE ready_at IS NULL").fetchone())
        if made["n"]:
            raise SystemExit(f"expected room for all, {made['n']} clusters were recorded")
    p50 = statistics.median(took)
    value = f"{p50:.2f} ms, p99 {percentile(took, 0.99):.2f} ms"
    report.add(SECTION, "a customer placed, p50", value, "under 10 ms", p50 < 10)


def sweeping(report: Report, url: str) -> None:
    """What the clock does every few seconds, where nothing is due."""
    with Registry(url) as registry, registry.connection() as conn:
        pool.tend(conn, CATALOGUE, lambda _row: "", Quota())

        def sweep() -> None:
            with conn.transaction():
                timers.run(conn, CATALOGUE, zone="core.example.net", limit=500)
            pool.observe(conn, CATALOGUE, lambda _row: "")

        took = [timed(sweep) for _ in range(20)]
    p50 = statistics.median(took)
    value = f"{p50:.1f} ms, the slowest of 20 {max(took):.1f} ms"
    report.add(SECTION, "one sweep, p50", value, "under 100 ms", p50 < 100)


def worker(url: str) -> None:
    """Two slots of each lane. A job of the long lane takes ten minutes, one of the quick lane 5 ms."""

    def long(_ctx: Context, _hold: Hold) -> None:
        time.sleep(600)

    def quick(_ctx: Context, hold: Hold) -> None:
        time.sleep(0.005)
        with hold.recording() as conn:
            hold.finish(conn, recorded=bool(hold.job.causes))

    with Registry(url, size=8) as registry:
        holder = f"bench/{os.getpid()}"
        ctx = SimpleNamespace(
            registry=registry,
            holder=holder,
            platform=SimpleNamespace(lease=10.0),
            heartbeat=Heartbeat(registry, holder, seconds=10.0, every=3.0),
            notify=lambda _lane: None,
        )
        handlers = {JobKind.TENANT: Handler(quick), JobKind.CLUSTER: Handler(long)}

        def slot(lane: Lane) -> None:
            while True:
                drain(cast("Context", ctx), handlers, lane)
                time.sleep(1.0)

        threads = [threading.Thread(target=slot, args=(lane,)) for lane in (*Lane, *Lane)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def starting(report: Report, root: Path, url: str, *, routine: int, paid: int) -> None:
    """From the moment that a paying customer's job is asked for to its start, by two workers that nobody
    wakes up, while every long slot is taken and routine waits."""
    with Registry(url, statement_timeout=900) as registry, registry.connection() as conn:
        backlog(conn, routine)
        for number in range(8):
            job.ensure(conn, JobKind.CLUSTER, f"long{number}", reason="x", actor="billing")
        command = [sys.executable, "-m", "benchmarks.core", "--worker", url]
        workers = [spawn("worker", command, log=root / "workers.log", cwd=ROOT) for _ in range(2)]
        try:
            busy = "SELECT count(*) AS n FROM job WHERE lane = 'long' AND state = 'running'"
            workers[0].wait_until(lambda: one(conn.execute(busy).fetchone())["n"] == 4)
            for number in range(paid):
                job.ensure(conn, JobKind.TENANT, f"start{number}", reason="paid", actor="billing")
                time.sleep(0.05)
            begun = "SELECT extract(epoch FROM started_at - created_at) * 1000 AS ms FROM job_history"
            begun += " WHERE subject LIKE 'start%'"
            workers[0].wait_until(lambda: len(conn.execute(begun.encode()).fetchall()) == paid)
            took = [float(row["ms"]) for row in conn.execute(begun.encode())]
            left = one(conn.execute("SELECT count(*) AS n FROM job WHERE priority = 3").fetchone())["n"]
        finally:
            for child in workers:
                child.kill()
        conn.execute("DELETE FROM job")
    p99 = percentile(took, 0.99)
    what = "a paying customer's job begins, p99, while four slots hold jobs of ten minutes"
    value = f"{p99:.0f} ms, p50 {statistics.median(took):.1f} ms; {left:,} of {routine:,} routine jobs left"
    report.add(SECTION, what, value, "under 1,000 ms", p99 < 1000)
