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
import shutil
import sys

from benchmarks import core_queue, page
from benchmarks.core_webhook import webhook
from benchmarks.report import Report
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import make_data_root
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import schema_version
from controlplane.store.registry import Registry

BACKLOGS = (0, 1_000, 10_000, 100_000, 1_000_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="smaller sizes: a minute or two")
    parser.add_argument("--write", action="store_true", help="keep the figures in RESULTS.md")
    options = parser.parse_args()
    if options.worker:
        core_queue.worker(options.worker)
    before, report, quick = page.load(), Report("The registry's hot paths"), options.quick
    root = make_data_root("bench-core-")
    try:
        with PostgresServer(root / "pg") as server, ValkeyServer(root / "valkey") as broker:
            url = server.create_database("registry")
            with Registry(url, statement_timeout=900) as registry, registry.connection() as conn:
                schema_version.upgrade(conn)
                sizes = {"tenants": 100_000, "clusters": 4_000, "finished": 500_000}
                core_queue.fill(conn, **{name: n // 20 if quick else n for name, n in sizes.items()})
            backlogs, tries = BACKLOGS[:3] if quick else BACKLOGS, 100 if quick else 1_000
            peers = core_queue.peer(server.create_database("peer"), backlogs, tries // 5)
            core_queue.queue(report, url, backlogs, tries, peers, held=5 if quick else 60)
            core_queue.placing(report, url, 50 if quick else 500)
            core_queue.sweeping(report, url)
            paid = 100 if quick else 400
            core_queue.starting(report, root, url, routine=10_000 if quick else 100_000, paid=paid)
            webhook(report, root, url, broker.url, rounds=1 if quick else 3, count=500 if quick else 4_000)
    finally:
        shutil.rmtree(root)
    text = f"{report.markdown()}\n{page.stamp(before)} synchronous_commit on, fsync off."
    sys.stdout.write(text + "\n")
    if options.write:
        page.write("core", text)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
