"""Signed webhooks while clients hold connections and say nothing: is one answered in time?

    python -m benchmarks.silent [--quick] [--write]

The web process as it ships (two processes of 16 threads) on one real PostgreSQL and Valkey. Another process
holds silent connections from twenty addresses and opens fifty more a second, whatever is closed on it. Events
go in one after the other meanwhile. Beside it the same events without anybody else, in the same run.

Ends with 1 where the slowest answer beside the largest crowd took longer than the goal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import httpx

from benchmarks import page
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import free_port, make_data_root
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from tests.web.site import ENVIRONMENT, event, signed

CROWDS = (0, 200, 1000)
NEW_A_SECOND = 50
ADDRESSES = 20
GOAL = 0.5  # seconds


@contextlib.contextmanager
def web(root: Path) -> Iterator[int]:
    """The port of the web process."""
    with PostgresServer(root / "pg") as postgres, ValkeyServer(root / "valkey") as broker:
        url = postgres.create_database("registry")
        with Registry(url) as registry, registry.connection() as conn:
            schema_version.upgrade(conn)
        env = ENVIRONMENT | {
            "CONTROLPLANE_REGISTRY_URL": url,
            "CONTROLPLANE_BROKER_URL": broker.url,
            "PATH": os.environ["PATH"],
        }
        port = free_port()
        command = [sys.executable, "-m", "controlplane.cli.main", "web", "--bind", f"127.0.0.1:{port}"]
        with (root / "web.log").open("wb") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while not ready(port):
                if time.monotonic() > end:
                    raise SystemExit((root / "web.log").read_text())
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def hold(port: int, size: int, until: float) -> None:
    """Hold the newest `size` connections, and open NEW_A_SECOND until then (monotonic seconds)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 4 * max(CROWDS)), limit))
    held: deque[socket.socket] = deque()

    def one_more(number: int) -> None:
        address = f"127.0.1.{1 + number % ADDRESSES}"
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(address, 0)))

    for number in range(size):
        one_more(number)
    number, due = size, time.monotonic()
    while size and time.monotonic() < until:
        one_more(number)
        number, due = number + 1, due + 1 / NEW_A_SECOND
        while len(held) > size:
            held.popleft().close()
        time.sleep(max(0.0, due - time.monotonic()))


def measure(port: int, crowd: int, events: int) -> list[float]:
    """Seconds that each event took, the slowest last."""
    seconds = []
    until = time.monotonic() + 20 + events
    attacker = get_context("spawn").Process(target=hold, args=(port, crowd, until), daemon=True)
    attacker.start()
    time.sleep(8 if crowd else 1)  # until all are open
    for number in range(events):
        body = event(f"evt_{crowd}_{number}")
        began = time.monotonic()
        answer = httpx.post(
            f"http://127.0.0.1:{port}/webhooks/stripe", content=body, headers=signed(body), timeout=60
        )
        seconds.append(time.monotonic() - began)
        if answer.status_code != 200:
            raise SystemExit(f"expected 200 beside {crowd} silent connections, got {answer.status_code}")
        time.sleep(0.1)
    attacker.terminate()
    attacker.join()
    return sorted(seconds)


def row(crowd: int, took: list[float]) -> str:
    cells = (statistics.median(took), took[int(len(took) * 0.95)], took[-1])
    return f"| {crowd:,} | " + " | ".join(f"{seconds * 1000:.0f} ms" for seconds in cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 events each instead of 100")
    parser.add_argument("--write", action="store_true", help="keep the figures in RESULTS.md")
    options = parser.parse_args()
    before, events = page.load(), 20 if options.quick else 100
    root = make_data_root("bench-silent-")
    try:
        with web(root) as port:
            found = {crowd: measure(port, crowd, events) for crowd in CROWDS}
    finally:
        shutil.rmtree(root)
    met = found[CROWDS[-1]][-1] < GOAL
    lines = [
        "## Silent connections",
        "",
        f"{events} signed webhooks, one after the other, each on a connection of its own.",
        "",
        f"| silent connections held, and {NEW_A_SECOND} new ones a second | median | p95 | slowest |",
        "| ---: | ---: | ---: | ---: |",
        *(row(crowd, took) for crowd, took in found.items()),
        "",
        f"Goal: the slowest beside {CROWDS[-1]:,} under {GOAL * 1000:.0f} ms: {'yes' if met else 'no'}.",
    ]
    text = "\n".join(lines) + f"\n\n{page.stamp(before)}"
    sys.stdout.write(text + "\n")
    if options.write:
        page.write("silent-connections", text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
