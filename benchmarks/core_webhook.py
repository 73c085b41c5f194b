"""The webhook under gunicorn, beside its floor in the same run: bare Flask, the stripe library's verification
and one insert with its commit."""

from __future__ import annotations

import json
import os
import socket
import statistics
import threading
import time
from pathlib import Path

import psycopg
import stripe
from flask import Flask, Response, jsonify, request
from psycopg_pool import ConnectionPool

from benchmarks.report import Report, percentile
from benchmarks.serving import served
from tests.web.site import ENVIRONMENT, event, signed

CONNECTIONS = 16
SECTION = f"The webhook, {CONNECTIONS} connections"
OPTIONS = ("--config", "python:controlplane.web.gunicorn", "--workers", "2", "--threads", "16")
BOOTED = 2.0  # seconds: the port is open before the workers are there


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
    env |= {"BENCH_URL": url, "PATH": os.environ["PATH"]}
    apps = {
        "bare Flask": "benchmarks.core_webhook:bare_app()",
        "floor": "benchmarks.core_webhook:floor_app()",
        "ours": "controlplane.wsgi:app",
    }
    rates: dict[str, list[float]] = {name: [] for name in apps}
    log = root / "web.log"
    for turn in range(rounds):
        for name in (*apps, *reversed(apps)):
            with served(apps[name], *OPTIONS, log=log, env=env) as port:
                time.sleep(BOOTED)
                prefix = f"{turn}{len(rates[name])}{name[:1]}"
                send(port, posts(f"w{prefix}", 200))
                _, seconds = send(port, posts(prefix, count))
            rates[name].append(count / seconds)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    with served(apps["ours"], *OPTIONS, log=log, env=env) as port:
        time.sleep(BOOTED)
        steady, _ = send(port, posts("steady", 2_000), rate=200)
        _, burst = send(port, posts("burst", 10_000))
    for name, found in middle.items():
        report.add(SECTION, f"{name}, requests a second", f"{found:.0f}")
    share, p99 = middle["ours"] / middle["floor"], percentile(steady, 0.99)
    report.add(SECTION, "ours ÷ floor", f"{share * 100:.0f} %", "≥ 60 %", share >= 0.6)
    report.add(SECTION, "p99 at 200 a second, open loop", f"{p99:.0f} ms", "under 50 ms", p99 < 50)
    report.add(SECTION, "10,000 at once, all answered 200", f"{burst:.1f} s", "≤ 15 s", burst <= 15)
