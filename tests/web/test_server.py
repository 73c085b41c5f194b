"""The server as it ships: gunicorn with our configuration, spoken to over a socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from localcloud.process import free_port
from localcloud.valkey import ValkeyServer
from tests.web.site import ENVIRONMENT, Site, bearer, event, signed

THREADS = 4
REQUEST_SECONDS = 2.0
CONFIG = f"""
from controlplane.web import worker
from controlplane.web.gunicorn import *
worker.REQUEST_SECONDS = {REQUEST_SECONDS}
"""


class Server:
    """gunicorn with one process and few threads, in a session of its own."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        self.log = folder / "server.log"
        config = folder / "config.py"
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "gunicorn", "-c", str(config), "--bind", f"127.0.0.1:{self.port}"]
        command += ["--workers", "1", "--threads", str(THREADS), "controlplane.wsgi:app"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=env, stderr=log, stdout=log, start_new_session=True)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)
        deadline = time.monotonic() + 30
        while not self._ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def post(self, body: bytes) -> httpx.Response:
        return self.http.post("/webhooks/stripe", content=body, headers=signed(body))

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        """As a deployment does: SIGTERM, then wait."""
        self.http.close()
        self.process.terminate()
        try:
            return self.process.wait(timeout=15)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@pytest.fixture(scope="module")
def server(
    shared_registry_url: str, broker_server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    env = ENVIRONMENT | {
        "CONTROLPLANE_REGISTRY_URL": shared_registry_url,
        "CONTROLPLANE_BROKER_URL": broker_server.url,
        "PATH": os.environ["PATH"],
    }
    running = Server(tmp_path_factory.mktemp("gunicorn"), env)
    yield running
    assert running.stop() == 0


@pytest.fixture
def live(site: Site, server: Server, broker: ValkeyServer) -> Server:
    """The server over an emptied registry and an emptied broker."""
    return server


def raw(connection: socket.socket, *parts: bytes) -> bytes:
    """Send, and read to the end."""
    for part in parts:
        connection.sendall(part)
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer


def head(body: bytes, *extra: str) -> bytes:
    lines = ["POST /webhooks/stripe HTTP/1.1", "Host: x", "Connection: close", *extra]
    lines.append(f"Stripe-Signature: {signed(body)['Stripe-Signature']}")
    return "\r\n".join([*lines, "", ""]).encode()


def test_an_event_is_stored_and_rung_through_celery(live: Server, site: Site, broker: ValkeyServer) -> None:
    assert live.post(event("evt_1")).json() == {"event": "evt_1", "new": True}
    with redis.Redis(port=broker.port) as client:
        (message,) = client.lrange("events", 0, -1)
    assert json.loads(message)["headers"]["task"] == "workers.tasks.handle_event"
    assert json.loads(message)["headers"]["argsrepr"] == "['evt_1']"
    assert site.rows("SELECT id, state FROM stripe_event") == [{"id": "evt_1", "state": "received"}]


def test_the_api_is_served(live: Server, site: Site) -> None:
    site.found("sub_1", name="Acme")
    answer = live.http.get("/v1/tenants", headers=bearer("viewer"))
    assert [item["slug"] for item in answer.json()["items"]] == ["acme"]


def test_a_chunked_body_is_read_whole(live: Server) -> None:
    body = event("evt_1")
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body))) + b"0\r\n\r\n"
    with live.open() as connection:
        answer = raw(connection, head(body, "Transfer-Encoding: chunked"), chunks)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("size", [256 * 1024 + 1, 1024 * 1024])
def test_a_body_over_the_limit_is_refused_by_its_length(live: Server, size: int) -> None:
    with live.open() as connection:
        answer = raw(connection, head(b"", f"Content-Length: {size}"), b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"too_large" in answer


def test_a_chunked_body_without_an_end_is_cut_at_the_limit(live: Server) -> None:
    """However much more would come: it is answered after little more than the limit."""
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    with live.open() as connection:
        connection.sendall(head(b"", "Transfer-Encoding: chunked"))
        sent = 0
        try:
            for _ in range(17):
                connection.sendall(chunk)
                sent += 0x4000
            answer = raw(connection)
        except ConnectionError:
            pytest.fail(f"no answer after {sent} bytes")
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n\r\n"])
def test_broken_chunks_are_refused(live: Server, chunks: bytes) -> None:
    with live.open() as connection:
        answer = raw(connection, head(b"", "Transfer-Encoding: chunked"), chunks)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_client_that_goes_away_within_its_body_leaves_nothing(live: Server, site: Site) -> None:
    body = event("evt_1")
    with live.open() as connection:
        connection.sendall(head(body, f"Content-Length: {len(body)}") + body[:10])
    assert live.post(event("evt_2")).status_code == 200
    assert site.rows("SELECT id FROM stripe_event") == [{"id": "evt_2"}]


@pytest.mark.parametrize("where", ["head", "body"])
def test_clients_that_stall_are_cut_off_and_the_rest_is_served(live: Server, where: str) -> None:
    """More of them than there are threads, some dripping a byte at a time."""
    body = event("evt_slow")
    start = head(body, f"Content-Length: {len(body)}")
    begun = b"POST /webhooks/stripe HTTP/1.1\r\nX: " if where == "head" else start + body[:5]
    stalling = [live.open() for _ in range(THREADS * 2)]
    try:
        for connection in stalling:
            connection.sendall(begun)
        time.sleep(0.3)
        started = time.monotonic()
        for _ in range(3):
            for connection in stalling[::2]:
                try:
                    connection.sendall(b"x")
                except OSError:
                    break
            time.sleep(0.2)
        assert live.post(event("evt_1")).status_code == 200
        assert time.monotonic() - started < 3 * (REQUEST_SECONDS + 1)
    finally:
        for connection in stalling:
            connection.close()


def test_every_line_of_the_log_is_an_object_and_none_holds_a_secret(live: Server) -> None:
    live.post(event("evt_1", account="canary-body"))
    live.http.get("/v1/tenants", headers=bearer("operator"))
    live.http.get("/v1/tenants", headers={"Authorization": "Bearer canary-token"})
    lines = live.lines()
    assert any(line["message"] == "GET /v1/tenants" and line.get("status") == 401 for line in lines)
    text = live.log.read_text()
    assert "canary" not in text
    for secret in ("whsec_", "token-of-22", "postgresql://"):
        assert secret not in text
