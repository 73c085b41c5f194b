"""How long can a tenant not write while it is moved, and is a row lost or doubled?

A tenant with a database of `--gigabytes` is promoted from a shared to a dedicated cluster (two PostgreSQL
servers of this machine) by the engine that ships, while threads write through the data plane's pools at
`--rate` transactions a second. Each row is written once and noted by its writer as confirmed, or as doubtful
where the commit got no answer; afterwards every note is held against the rows of the new database.

    make bench-moves ARGS="--gigabytes 0.1"      a short one
    make bench-moves ARGS=--write                1 GB under 200 writes a second, kept in RESULTS.md
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import page
from controlplane.actions import action
from controlplane.domain.placement import Placement
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import make_data_root
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import schema_version, transfer
from controlplane.store.registry import Registry
from controlplane.store.transfer import TransferRow
from dataplane.settings import DataPlane
from tests.harness.databases import Server, run_server
from tests.harness.engine import Harness
from tests.harness.moves import (
    Journal,
    audit,
    moving_harness,
)

GOAL = 2.0  # seconds without a write
ROW = 1000  # bytes of a row of the ballast
QUIET = {"log_statement": "none", "max_wal_size": "4GB", "wal_level": "logical"}


@dataclass(frozen=True)
class Result:
    size: int
    transfer: TransferRow
    seconds: float
    journal: Journal
    lost: list[str]
    wrong: list[str]

    @property
    def figures(self) -> list[tuple[str, str, str, str]]:
        """(figure, measured, goal, met)"""
        pause, found = self.transfer.pause_seconds, self.transfer
        gap = self.journal.longest_gap
        differing = found.differing if found.compared is not None else ["nothing was compared"]
        rows = sum(table["rows"] for table in found.compared or ())
        return [
            ("the tenant's database", f"{self.size / 1e9:.2f} GB", "", ""),
            ("asked for, until it is compared and over", f"{self.seconds:.0f} s", "", ""),
            ("writes confirmed meanwhile", f"{len(self.journal.confirmed):,}", "", ""),
            ("writes refused", f"{self.journal.errors.total()}", "", ""),
            ("commits without an answer", f"{len(self.journal.doubtful)}", "", ""),
            (
                "no write was taken for, by the registry",
                f"{pause:.3f} s" if pause is not None else "?",
                f"under {GOAL:g} s",
                _met(pause is not None and pause < GOAL),
            ),
            (
                "longest gap between two confirmed writes, by the writers",
                f"{gap:.3f} s",
                f"under {GOAL:g} s",
                _met(gap < GOAL),
            ),
            ("confirmed rows that are lost", f"{len(self.lost)}", "0", _met(not self.lost)),
            (
                "rows that are doubled or were never written",
                f"{len(self.wrong)}",
                "0",
                _met(not self.wrong),
            ),
            (
                f"tables that differ, by count and checksum of {rows:,} rows, {found.checked} the cut",
                f"{len(differing)}",
                "0",
                _met(not differing),
            ),
        ]


def _met(good: bool) -> str:
    return "yes" if good else "no"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=200.0, help="transactions a second")
    parser.add_argument("--write", action="store_true", help="keep the figures in RESULTS.md")
    options = parser.parse_args()
    before = page.load()
    result = run(options.gigabytes, options.rate)
    table = ["| figure | measured | goal | met |", "| --- | --- | --- | --- |"]
    table += [f"| {' | '.join(row)} |" for row in result.figures]
    text = "\n".join(
        [
            "## Moves",
            "",
            f"A tenant promoted under {options.rate:.0f} transactions a second (insert and update).",
            "",
            *table,
            "",
            page.stamp(before),
        ]
    )
    sys.stdout.write(text + "\n")
    if options.write:
        page.write("moves", text)
    return 0 if all(met != "no" for *_, met in result.figures) else 1


def run(gigabytes: float, rate: float) -> Result:
    with world() as (harness, dataplane, servers):
        placed = harness.placement("sub_00000001")
        size = fill(servers[0], placed, gigabytes)
        with Journal(dataplane, rate) as journal:
            time.sleep(2)
            with harness.ctx.registry.connection() as conn:
                action.run(
                    conn, "move", placed.tenant_id, to="dedicated", actor="benchmark", reason="measure"
                )
            began = time.monotonic()
            worker = threading.Thread(target=harness.work)
            worker.start()
            worker.join()
            seconds = time.monotonic() - began
            time.sleep(2)
        after = harness.placement("sub_00000001")
        with servers[1].superuser(after.database) as conn:
            rows = conn.execute("SELECT body FROM app.note WHERE body NOT LIKE 'ballast%'").fetchall()
        lost, wrong = audit(journal, [body for (body,) in rows])
        with harness.ctx.registry.connection() as conn:
            found = transfer.latest(conn, placed.tenant_id)
    if found is None or after.id == placed.id:
        raise SystemExit("the tenant has not moved")
    return Result(size, found, seconds, journal, lost, wrong)


@contextmanager
def world() -> Iterator[tuple[Harness, DataPlane, tuple[Server, Server]]]:
    root = make_data_root("bench-moves-")
    folder = Path(tempfile.mkdtemp(prefix="bench-moves-"))
    try:
        with (
            PostgresServer(root / "registry") as registry,
            ValkeyServer(root / "cache") as cache,
            run_server(options=QUIET) as first,
            run_server(options=QUIET) as second,
        ):
            url = registry.create_database("registry")
            with Registry(url) as opened, opened.connection() as conn:
                schema_version.upgrade(conn)
            servers = (first, second)
            with moving_harness(url, cache.url, servers, folder) as (harness, dataplane):
                yield harness, dataplane, servers
    finally:
        shutil.rmtree(root)
        shutil.rmtree(folder)


def fill(server: Server, placed: Placement, gigabytes: float) -> int:
    """Ballast beside the rows that are written; the database's size in bytes."""
    with server.superuser(placed.database) as conn:
        conn.execute(
            "INSERT INTO app.note (body)"
            " SELECT 'ballast ' || n || repeat(md5(n::text), 30) FROM generate_series(1, %s) AS n",
            [round(gigabytes * 1e9 / (ROW + 100))],
        )
        conn.execute("VACUUM ANALYZE app.note")
        row = conn.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    sys.exit(main())
