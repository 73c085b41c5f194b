"""The registry's hot paths, by how much waits in it and how much it has kept.

    python -m benchmarks.core [--quick] [--write]

One real PostgreSQL with `synchronous_commit` on (and fsync off: the disk is not what is measured), 100,000
tenants on 4,000 clusters and 500,000 finished jobs. Claim and finish are measured at five backlogs, and once
more while somebody keeps a snapshot for a minute, which is what kills such a queue. The webhook is measured
under gunicorn beside its floor in the same run: bare Flask, the stripe library's verification and one insert
with its commit; both are taken in turns, since the machine does other things.

Ends with 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psycopg
import stripe
from flask import Flask, Response, jsonify, request
from procrastinate.schema import SchemaManager
from psycopg_pool import ConnectionPool

from benchmarks import page
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.cluster import ClusterSpec
from controlplane.domain.job import JobKind, Lane
from controlplane.domain.pool import Quota
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import free_port, make_data_root
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.services import pool, timers
from controlplane.services.clusters import ENGINE_VERSION
from controlplane.services.tenants import place
from controlplane.store import job, schema_version
from controlplane.store.registry import Connection, Registry, one
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Heartbeat, Hold
from controlplane.workers.engine.run import Handler, drain
from tests.web.site import ENVIRONMENT, event, signed

BACKLOGS = (0, 1_000, 10_000, 100_000, 1_000_000)
CONNECTIONS = 16
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


@dataclass(frozen=True)
class Goal:
    what: str
    measured: str
    wanted: str
    met: bool


@dataclass
class Report:
    lines: list[str] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def say(self, line: str = "") -> None:
        self.lines.append(line)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def timed(act: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


# ---------------------------------------------------------------------------------- the registry


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
            f"INSERT INTO placement (tenant_id, number, cluster_id, state)"
            f" SELECT 't-' || {name}, 1, 'c-' || {name.replace('to_hex(n)', 'to_hex(1 + n %% %(c)s)')},"
            f" 'current' FROM generate_series(1, %(n)s) n",
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


def queue(report: Report, url: str, sizes: tuple[int, ...], tries: int, peers: dict[int, float]) -> None:
    report.say("| jobs that wait | claim + finish, p50 | p99 | procrastinate's, p50 |")
    report.say("| ---: | ---: | ---: | ---: |")
    medians: dict[int, float] = {}
    with Registry(url, statement_timeout=900) as registry, registry.connection() as conn:
        for size in sizes:
            backlog(conn, size)
            took = [cycle(conn, n) for n in range(tries)]
            medians[size] = statistics.median(took)
            report.say(
                f"| {size:,} | {medians[size]:.2f} ms | {quantile(took, 0.99):.2f} ms"
                f" | {peers[size]:.2f} ms |"
            )
        backlog(conn, min(10_000, sizes[-1]))
        with psycopg.connect(url) as old:  # a dump, say, or somebody's forgotten psql
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT count(*) FROM job")
            began, took = time.monotonic(), []
            while time.monotonic() - began < (5 if tries < 200 else 60):
                took.append(cycle(conn, len(took)))
            tail = took[-200:]
        report.say(
            f"| {min(10_000, sizes[-1]):,}, beside a snapshot of {time.monotonic() - began:.0f} s"
            f" ({len(took):,} claims under it) | {statistics.median(tail):.2f} ms |"
            f" {quantile(tail, 0.99):.2f} ms | |"
        )
        conn.execute("DELETE FROM job")
    growth = max(medians.values()) / medians[sizes[0]]
    report.goals += [
        Goal("claim + finish at the worst backlog", f"{max(medians.values()):.2f} ms", "p50 < 5 ms",
             max(medians.values()) < 5),
        Goal(f"the worst backlog ÷ {sizes[0]}", f"{growth:.1f} ×", "≤ 2 ×", growth <= 2),
    ]  # fmt: skip


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
    report.say(f"A customer placed: p50 {p50:.2f} ms, p99 {quantile(took, 0.99):.2f} ms.")
    report.goals.append(Goal("a customer placed", f"{p50:.2f} ms", "p50 < 10 ms", p50 < 10))


def sweeping(report: Report, url: str) -> None:
    """What the clock does every few seconds, where nothing is due."""
    with Registry(url) as registry, registry.connection() as conn:
        pool.tend(conn, CATALOGUE, lambda _row: "", Quota())

        def sweep() -> None:
            with conn.transaction():
                timers.run(conn, limit=500)
            pool.observe(conn, CATALOGUE, lambda _row: "")

        took = [timed(sweep) for _ in range(20)]
    p50 = statistics.median(took)
    report.say(f"One sweep: p50 {p50:.1f} ms, the slowest of 20 {max(took):.1f} ms.")
    report.goals.append(Goal("one sweep", f"{p50:.1f} ms", "p50 < 100 ms", p50 < 100))


# ------------------------------------------------------------------------------------- the start


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


def starting(report: Report, url: str, *, routine: int, paid: int) -> None:
    """From the moment that a paying customer's job is asked for to its start, by two workers that nobody
    wakes up, while every long slot is taken and routine waits."""
    with Registry(url, statement_timeout=900) as registry, registry.connection() as conn:
        backlog(conn, routine)
        for number in range(8):
            job.ensure(conn, JobKind.CLUSTER, f"long{number}", reason="x", actor="billing")
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.core", "--worker", url],
                cwd=Path(__file__).parents[1],
                start_new_session=True,
            )
            for _ in range(2)
        ]
        try:
            busy = "SELECT count(*) AS n FROM job WHERE lane = 'long' AND state = 'running'"
            while one(conn.execute(busy).fetchone())["n"] < 4:
                time.sleep(0.1)
            for number in range(paid):
                job.ensure(conn, JobKind.TENANT, f"start{number}", reason="paid", actor="billing")
                time.sleep(0.05)
            started = "SELECT extract(epoch FROM started_at - created_at) * 1000 AS ms FROM job_history"
            started += " WHERE subject LIKE 'start%'"
            until = time.monotonic() + 60
            while len(rows := conn.execute(started.encode()).fetchall()) < paid:
                if time.monotonic() > until:
                    raise SystemExit(f"{paid - len(rows)} of {paid} have not begun")
                time.sleep(0.1)
            left = one(conn.execute("SELECT count(*) AS n FROM job WHERE priority = 3").fetchone())["n"]
        finally:
            for child in workers:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        conn.execute("DELETE FROM job")
    took = [float(row["ms"]) for row in rows]
    p99 = quantile(took, 0.99)
    report.say(
        f"A paying customer's job begins after {statistics.median(took):.1f} ms (p50), {p99:.0f} ms (p99):"
        f" {paid} of them, four slots held by jobs of ten minutes, {left:,} of {routine:,} routine jobs"
        " waiting still at the end."
    )
    report.goals.append(Goal("a paying customer's job begins", f"{p99:.0f} ms", "p99 < 1,000 ms", p99 < 1000))


# ----------------------------------------------------------------------------------- the webhook


def floor_app() -> Flask:
    """Verified by the library and inserted, and nothing else."""
    app = Flask("floor")
    secret = ENVIRONMENT["CONTROLPLANE_STRIPE_WEBHOOK_SECRETS"].split(",")[0]
    connections = ConnectionPool(os.environ["BENCH_URL"], min_size=1, max_size=8, open=True)

    @app.post("/webhooks/stripe")
    def webhook() -> Response:
        raw = request.get_data()
        stripe.WebhookSignature.verify_header(  # type: ignore[no-untyped-call]
            raw.decode(), request.headers["Stripe-Signature"], secret, 300
        )
        found = json.loads(raw)
        with connections.connection() as conn:
            conn.execute(
                "INSERT INTO floor (id, body) VALUES (%s, %s) ON CONFLICT DO NOTHING", [found["id"], raw]
            )
        return jsonify({"event": found["id"]})

    return app


def bare_app() -> Flask:
    app = Flask("bare")

    @app.post("/webhooks/stripe")
    def webhook() -> Response:
        request.get_data()
        return jsonify({"event": "x"})

    return app


@contextmanager
def served(app: str, root: Path, env: dict[str, str]) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "python:controlplane.web.gunicorn"]
    command += ["--workers", "2", "--threads", "16", "--bind", f"127.0.0.1:{port}", app]
    with (root / "web.log").open("ab") as log:
        child = subprocess.Popen(
            command,
            env={**env, "PATH": os.environ["PATH"]},
            cwd=Path(__file__).parents[1],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > until or child.poll() is not None:
                    raise SystemExit((root / "web.log").read_text()) from None
                time.sleep(0.1)
        time.sleep(2)
        yield port
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(30)


def posts(prefix: str, count: int) -> list[bytes]:
    """Whole requests, made ahead, so that the client costs as little as it can."""
    made = []
    for number in range(count):
        about = {"id": f"sub_{prefix}{number}", "object": "subscription", "customer": f"cus_{prefix}{number}"}
        body = event(f"evt_{prefix}{number}", data={"object": about})
        lines = ["POST /webhooks/stripe HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in signed(body).items()]
        made.append("\r\n".join([*lines, "", ""]).encode() + body)
    return made


def send(port: int, requests: list[bytes], *, rate: float | None = None) -> tuple[list[float], float]:
    """Over CONNECTIONS kept connections: (milliseconds of each, seconds for all). `rate`: so many a second,
    whether those before are answered or not; a request's time counts from when it was due."""
    took: list[float] = []
    began = time.monotonic()

    def client(mine: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            for number in range(mine, len(requests), CONNECTIONS):
                due = time.monotonic() if rate is None else began + number / rate
                time.sleep(max(0.0, due - time.monotonic()))
                sock.sendall(requests[number])
                answer = sock.recv(65536)
                while b"\r\n\r\n" not in answer or not answer.rstrip().endswith(b"}"):
                    more = sock.recv(65536)
                    if not more:
                        raise ConnectionError(f"closed after {answer!r}")
                    answer += more
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise SystemExit(f"expected 200, got {answer[:200]!r}")
                took.append((time.monotonic() - due) * 1000)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(took) != len(requests):
        raise SystemExit(f"expected {len(requests)} answers, got {len(took)}")
    return took, time.monotonic() - began


def webhook(report: Report, root: Path, url: str, broker: str, *, rounds: int, count: int) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE TABLE floor (id text PRIMARY KEY, body bytea NOT NULL)")
    env = ENVIRONMENT | {"CONTROLPLANE_REGISTRY_URL": url, "CONTROLPLANE_BROKER_URL": broker}
    apps = {
        "bare Flask": ("benchmarks.core:bare_app()", env),
        "floor": ("benchmarks.core:floor_app()", env | {"BENCH_URL": url}),
        "ours": ("controlplane.wsgi:app", env),
    }
    rates: dict[str, list[float]] = {name: [] for name in apps}
    for turn in range(rounds):
        for name in (*apps, *reversed(apps)):
            app, surroundings = apps[name]
            with served(app, root, surroundings) as port:
                prefix = f"{turn}{len(rates[name])}{name[:1]}"
                send(port, posts(f"w{prefix}", 200))
                _, seconds = send(port, posts(prefix, count))
            rates[name].append(count / seconds)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    with served(*apps["ours"][:1], root, env) as port:
        steady, _ = send(port, posts("steady", 2_000), rate=200)
        _, burst = send(port, posts("burst", 10_000))
    report.say(f"| the webhook, {CONNECTIONS} connections | requests a second | ÷ floor |")
    report.say("| --- | ---: | ---: |")
    for name, found in middle.items():
        report.say(f"| {name} | {found:.0f} | {found / middle['floor'] * 100:.0f} % |")
    share, p99 = middle["ours"] / middle["floor"], quantile(steady, 0.99)
    report.goals += [
        Goal("the webhook ÷ its floor", f"{share * 100:.0f} %", "≥ 60 %", share >= 0.6),
        Goal("p99 at 200 a second, open loop", f"{p99:.0f} ms", "< 50 ms", p99 < 50),
        Goal("10,000 at once, all answered 200", f"{burst:.1f} s", "≤ 15 s", burst <= 15),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="smaller sizes: a minute or two")
    parser.add_argument("--write", action="store_true", help="keep the figures in RESULTS.md")
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
    before, report = page.load(), Report()
    root = make_data_root("bench-core-")
    quick = options.quick
    try:
        with PostgresServer(root / "pg") as server, ValkeyServer(root / "valkey") as broker:
            url = server.create_database("registry")
            with Registry(url, statement_timeout=900) as registry, registry.connection() as conn:
                schema_version.upgrade(conn)
                conn.execute("ALTER DATABASE registry SET synchronous_commit = on")
                sizes = {"tenants": 100_000, "clusters": 4_000, "finished": 500_000}
                fill(conn, **{name: n // 20 if quick else n for name, n in sizes.items()})
            report.say("## The registry's hot paths")
            report.say()
            backlogs, tries = BACKLOGS[:3] if quick else BACKLOGS, 100 if quick else 1_000
            queue(report, url, backlogs, tries, peer(server.create_database("peer"), backlogs, tries // 5))
            report.say()
            placing(report, url, 50 if quick else 500)
            sweeping(report, url)
            starting(report, url, routine=10_000 if quick else 100_000, paid=100 if quick else 400)
            report.say()
            webhook(report, root, url, broker.url, rounds=1 if quick else 3, count=500 if quick else 4_000)
    finally:
        shutil.rmtree(root)
    report.say()
    report.say("| goal | measured | wanted | met |")
    report.say("| --- | --- | --- | --- |")
    for goal in report.goals:
        met = "yes" if goal.met else "no"
        report.say(f"| {goal.what} | {goal.measured} | {goal.wanted} | {met} |")
    text = "\n".join(report.lines) + f"\n\n{page.stamp(before)} synchronous_commit on, fsync off."
    if options.write:
        page.write("core", text)
    return 0 if all(goal.met for goal in report.goals) else 1


if __name__ == "__main__":
    sys.exit(main())
