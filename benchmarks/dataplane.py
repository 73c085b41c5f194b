"""The data plane's figures, each beside what it is held against, in one run.

    python -m benchmarks.dataplane [--quick] [--write]

PostgreSQL and Valkey are real and started for it. `--write` puts its section into benchmarks/RESULTS.md
and its picture into benchmarks/results/. Ends with 1 where a goal of the project was missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import dataplane_http, dataplane_pools, dataplane_resolver, page
from benchmarks.report import Bar, Report
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import make_data_root
from controlplane.localcloud.servers.valkey import ValkeyServer

RESULTS = Path(__file__).parent / "results"


def run(*, quick: bool = False) -> Report:
    """About two minutes; `quick` a quarter of it, with figures that vary more."""
    report = Report("Data plane")
    load = page.load()
    rounds = 20 if quick else 100
    seconds = 2.0 if quick else 10.0
    root = make_data_root("benchmark-")
    try:
        with (
            ValkeyServer(root / "cache") as cache,
            PostgresServer(root / "postgres", options={"max_connections": "300"}) as server,
        ):
            dataplane_resolver.from_memory(report, rounds=rounds)
            dataplane_resolver.behind(report, cache.url, rounds=10)
            added = dataplane_http.calls(report, rounds=rounds)
            against_django_tenants(report, server, added, rounds=5 if quick else 20)
            dataplane_http.over_http(report, rounds=3 if quick else 9, seconds=1.0 if quick else 2.0)
            dataplane_pools.prepare(server)
            dataplane_pools.many_tenants(report, server.port, budget=200, seconds=seconds)
            dataplane_pools.checkout(report, server.port, rounds=10 if quick else 50)
            dataplane_pools.dead_neighbour(report, server.port, seconds=seconds / 2)
            dataplane_resolver.memory(report)
            dataplane_resolver.invalidations(report, cache.url, changes=100 if quick else 1000)
    finally:
        shutil.rmtree(root)
    report.notes.append(
        f"{page.stamp(load)} Times of calls are the best of rounds that took turns (CPU time where nothing is"
        " waited for); read the ratios."
    )
    return report


def against_django_tenants(report: Report, server: PostgresServer, added: float, *, rounds: int) -> None:
    """`added`: microseconds that our middleware adds to a request, from the same run."""
    tenants = 1000
    url = server.create_database("django_tenants")
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.dataplane_django_tenants", url, str(tenants), str(rounds)],
        cwd=Path(__file__).parent.parent,
        check=True,
        stdout=subprocess.PIPE,
        timeout=300,
    )
    theirs = json.loads(child.stdout)["seconds"] * 1e6
    section = "Which tenant is it: our middleware against django-tenants 4"
    report.add(section, "django-tenants' middleware, connection open", f"{theirs:,.0f} µs")
    report.add(section, "our middleware, whole", f"{added:.1f} µs")
    ratio = theirs / max(added, 0.1)
    report.add(section, "theirs ÷ ours", f"{ratio:,.0f} ×", "≥ 50 ×", ratio >= 50)
    report.bars.append(Bar("django-tenants' middleware", theirs))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dataplane", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="shorter, with figures that vary more")
    parser.add_argument("--write", action="store_true", help="write its section of benchmarks/RESULTS.md")
    options = parser.parse_args(arguments)
    report = run(quick=options.quick)
    print(report.markdown())
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        report.draw(RESULTS / "dataplane.svg")
        picture = "![What a request pays for its tenant](results/dataplane.svg)"
        page.write("data-plane", f"{report.markdown()}\n{picture}")
    for figure in report.failed:
        print(f"missed: {figure.section}: {figure.name}: {figure.value}, goal {figure.goal}", file=sys.stderr)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
