"""Flask behind the middleware against bare Flask: over HTTP under gunicorn, and the calls by themselves."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder

from benchmarks.dataplane_resolver import Parsing, config
from benchmarks.report import Bar, Report, side_by_side
from benchmarks.serving import served
from dataplane.memory import Policy
from dataplane.resolver import Resolver
from dataplane.wsgi import TenantMiddleware

HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "en-GB,en;q=0.9",
    "Cookie": "__Host-session=eyJ0ZW5hbnQiOiJ0LWFiYyJ9.aAbBcC.0123456789abcdef",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
}


def bare_app() -> Flask:
    app = Flask("bare")

    @app.get("/")
    def index() -> str:
        return "hello"

    return app


def tenant_app() -> Flask:
    app = bare_app()
    resolver = Resolver(cache=Parsing(1000), policy=Policy(ttl=36_000))
    app.wsgi_app = TenantMiddleware(app.wsgi_app, resolver)  # type: ignore[method-assign]
    return app


def calls(report: Report, *, rounds: int) -> float:
    """Microseconds of CPU that the middleware adds to a request, server and application left out."""
    environ = EnvironBuilder(headers={**HEADERS, "Host": config(7).host}).get_environ()
    answer = [b"hello"]

    def nothing(_environ: Any, _start: Any) -> list[bytes]:
        return answer

    resolver = Resolver(cache=Parsing(1000), policy=Policy(ttl=36_000))
    middleware, flask = TenantMiddleware(nothing, resolver), bare_app()

    def alone() -> None:
        list(nothing(dict(environ), print))

    def behind() -> None:
        body: Any = middleware(dict(environ), print)
        list(body)
        body.close()

    def view() -> None:
        body = flask(dict(environ), lambda *_: None)
        list(body)
        body.close()

    works = [alone, behind, view]
    floor, ours, whole = (
        seconds * 1e6 for seconds in side_by_side(works, number=200, rounds=rounds, clock=time.thread_time)
    )
    section = "Flask, behind the middleware and bare"
    report.add(section, "CPU of an empty Flask view, no server", f"{whole - floor:.1f} µs")
    report.add(section, "CPU that the middleware adds", f"{ours - floor:.1f} µs")
    report.bars += [
        Bar("our middleware, whole", ours - floor, ours=True),
        Bar("Flask, empty view", whole - floor),
    ]
    return ours - floor


def requests_per_second(port: int, seconds: float, connections: int = 4) -> float:
    """Over kept connections, one request at a time on each."""
    lines = [
        f"GET / HTTP/1.1\r\nHost: {config(7).host}\r\n",
        *(f"{k}: {v}\r\n" for k, v in HEADERS.items()),
        "\r\n",
    ]
    request = "".join(lines).encode()
    counts: list[int] = []
    until = time.monotonic() + seconds

    def client() -> None:
        done = 0
        with socket.create_connection(("127.0.0.1", port)) as sock:
            while time.monotonic() < until:
                sock.sendall(request)
                answer = sock.recv(4096)
                while not answer.endswith(b"hello"):
                    more = sock.recv(4096)
                    if not more:
                        raise ConnectionError("the server closed the connection")
                    answer += more
                done += 1
        counts.append(done)

    threads = [threading.Thread(target=client) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def over_http(report: Report, *, rounds: int, seconds: float) -> None:
    section = "Flask, behind the middleware and bare"
    ratios, bare_rates, our_rates = [], [], []
    options = ("--log-level", "error", "-k", "gthread", "--threads", "4", "-w", "1")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        log = Path(folder) / "web.log"
        bare, ours = (
            stack.enter_context(served(f"benchmarks.dataplane_http:{factory}()", *options, log=log))
            for factory in ("bare_app", "tenant_app")
        )
        for port in (bare, ours):
            requests_per_second(port, seconds)
        for _ in range(rounds):
            rates = requests_per_second(bare, seconds), requests_per_second(ours, seconds)
            bare_rates.append(rates[0])
            our_rates.append(rates[1])
            ratios.append(rates[1] / rates[0])
    ratio = statistics.median(ratios)
    report.add(section, "bare Flask under gunicorn", f"{statistics.median(bare_rates):,.0f} requests/s")
    report.add(section, "behind the middleware", f"{statistics.median(our_rates):,.0f} requests/s")
    report.add(section, "behind ÷ bare (median of pairs)", f"{ratio * 100:.0f} %", "≥ 90 %", ratio >= 0.9)
