"""Pruning of old operations, by how many Terraform runs the registry keeps, with and without the index by
which a run's operation is found.

    python -m benchmarks.history [--quick] [--write]

Every size is a registry of its own on one real PostgreSQL, full of operations that are old enough to go,
with ten steps and twenty step events each. Batches of 500 with the index and without it take turns (A B B A),
since the machine does other things. "Without" the runs of the operations that go are looked for in the whole
table.

Some 400 MB of disk, gone at the end. Ends with 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from dataclasses import dataclass

from benchmarks import page
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import make_data_root
from controlplane.store import history, schema_version
from controlplane.store.registry import Connection, Registry

SIZES = (30_000, 300_000, 492_000)
QUICK = (3_000, 30_000)
BATCH = 500
GOAL = 1.0  # seconds for a batch
GROWTH = 3.0  # times from the smallest size to the largest


@dataclass(frozen=True)
class Size:
    """`indexed`, `bare`: seconds for one batch with and without the index."""

    runs: int
    indexed: float
    bare: float


def fill(conn: Connection, *, operations: int, runs: int, tenants: int = 1_000, days: int = 100) -> None:
    """Operations that ended `days` ago, and `runs` Terraform runs shared out among them; then ANALYZE."""
    statements = (
        "INSERT INTO job_history (id, kind, subject, state, attempts, fencing_token, causes, cause_count,"
        "  created_at, started_at, finished_at)"
        " SELECT nextval(pg_get_serial_sequence('job', 'id')), 'tenant', 'tenant-' || 1 + n %% %(tenants)s,"
        "  'done', 1, nextval('fencing_token'),"
        '  \'[{"reason": "an event", "actor": "billing"}]\', 1, ended, ended, ended'
        " FROM generate_series(1, %(operations)s) AS n,"
        "  LATERAL (SELECT clock_timestamp() - make_interval(days => %(days)s, secs => n) AS ended) AS at",
        "INSERT INTO step (operation_id, seq, name, reason, state)"
        " SELECT id, seq, 'publish', 'filled', 'done' FROM job_history, generate_series(1, 10) AS seq",
        "INSERT INTO step_event (operation_id, seq, kind, address, action, message)"
        " SELECT operation_id, seq, 'apply_complete', 'aws_iam_role.app', 'create', 'filled'"
        " FROM step, generate_series(1, 2)",
        "INSERT INTO terraform_run (workspace, operation_id, who, ended_at)"
        " SELECT 'workspace', (SELECT min(id) FROM job_history) + n %% %(operations)s, 'worker', now()"
        " FROM generate_series(1, %(runs)s) AS n",
        "ANALYZE",
    )
    values = {"operations": operations, "runs": runs, "tenants": tenants, "days": days}
    for statement in statements:
        conn.execute(statement.encode(), values if "%(" in statement else None)


def measure(server: PostgresServer, runs: int, operations: int) -> Size:
    url = server.create_database(f"history_{runs}")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with Registry(url, statement_timeout=600) as registry, registry.connection() as conn:
        schema_version.upgrade(conn)
        fill(conn, operations=operations, runs=runs)
        for indexed in (True, False, False, True):
            if not indexed:
                conn.execute("DROP INDEX terraform_run_operation")
            began = time.monotonic()
            gone = history.prune(conn, limit=BATCH)
            seconds[indexed].append(time.monotonic() - began)
            if gone != BATCH:
                raise SystemExit(f"a batch: expected {BATCH} operations to go, got {gone}")
            if not indexed:
                conn.execute("CREATE INDEX terraform_run_operation ON terraform_run (operation_id)")
    server.drop_database(f"history_{runs}")
    return Size(runs, statistics.mean(seconds[True]), statistics.mean(seconds[False]))


def report(sizes: list[Size]) -> tuple[str, bool]:
    """The section, and whether every goal was met."""
    slowest, growth = max(size.indexed for size in sizes), sizes[-1].indexed / sizes[0].indexed
    goals = [
        (f"the slowest batch of {BATCH}", f"{slowest:.2f} s", f"under {GOAL:g} s", slowest < GOAL),
        (
            f"{sizes[-1].runs:,} runs ÷ {sizes[0].runs:,}",
            f"{growth:.1f} ×",
            f"≤ {GROWTH:g} ×",
            growth <= GROWTH,
        ),
    ]
    lines = [
        "## History",
        "",
        f"A batch of {BATCH} operations pruned, each with ten steps and twenty step events.",
        "",
        "| Terraform runs in the registry | before: no index on the operation of a run | with it |",
        "| ---: | ---: | ---: |",
        *(f"| {size.runs:,} | {size.bare:.2f} s | {size.indexed:.2f} s |" for size in sizes),
        "",
        "| goal | measured | wanted | met |",
        "| --- | --- | --- | --- |",
        *(f"| {what} | {got} | {wanted} | {'yes' if met else 'no'} |" for what, got, wanted, met in goals),
    ]
    return "\n".join(lines), all(met for *_, met in goals)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller registries: half a minute")
    parser.add_argument("--write", action="store_true", help="keep the figures in RESULTS.md")
    options = parser.parse_args()
    before = page.load()
    root = make_data_root("bench-history-")
    try:
        with PostgresServer(root / "pg") as server:
            operations = 3_000 if options.quick else 30_000
            sizes = [measure(server, runs, operations) for runs in (QUICK if options.quick else SIZES)]
    finally:
        shutil.rmtree(root)
    table, met = report(sizes)
    text = f"{table}\n\n{page.stamp(before)} fsync off; each figure is the mean of two batches."
    sys.stdout.write(text + "\n")
    if options.write:
        page.write("history", text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
