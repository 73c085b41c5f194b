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

from controlplane.domain.job import JobKind
from controlplane.localcloud.servers.process import free_port
from controlplane.localcloud.servers.valkey import ValkeyServer
from tests.web.site import ENVIRONMENT, Site, bearer, event, signed

THREADS = 4
BOUND = 60
CONFIG = """
from controlplane.web import worker
from controlplane.web.gunicorn import *
worker.HEAD_SECONDS, worker.REQUEST_SECONDS = {head}, {request}
"""


class Server:
    """gunicorn with one process and few threads, in a session of its own."""

    def __init__(self, folder: Path, env: dict[str, str], *, patience: float, files: int = 4096) -> None:
        self.port = free_port()
        self.log = folder / "server.log"
        config = folder / "config.py"
        config.write_text(CONFIG.format(head=patience, request=patience))
        command = [sys.executable, "-m", "gunicorn", "-c", str(config), "--bind", f"127.0.0.1:{self.port}"]
        command += ["--workers", "1", "--threads", str(THREADS), "controlplane.wsgi:app"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["prlimit", f"--nofile={files}", *command],
                env=env,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
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

    def open(self, address: str = "127.0.0.1") -> socket.socket:
        """`address`: of the client."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(address, 0))

    def post(self, body: bytes) -> httpx.Response:
        return self.http.post("/webhooks/stripe", content=body, headers=signed(body))

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        """As a deployment does: SIGTERM, then wait."""
        self.http.close()
        self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@pytest.fixture(scope="module")
def environment(shared_registry_url: str, broker_server: ValkeyServer) -> dict[str, str]:
    return ENVIRONMENT | {
        "CONTROLPLANE_REGISTRY_URL": shared_registry_url,
        "CONTROLPLANE_BROKER_URL": broker_server.url,
        "CONTROLPLANE_WAITING_PER_ADDRESS": str(BOUND),
        "PATH": os.environ["PATH"],
    }


@pytest.fixture(scope="module")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It soon loses patience with a client that stalls."""
    running = Server(tmp_path_factory.mktemp("gunicorn"), environment, patience=2)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def patient_server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It waits as long as any test takes, so what it answers it answers beside those that stall."""
    running = Server(tmp_path_factory.mktemp("patient"), environment, patience=600)
    yield running
    assert running.stop() == 0


@pytest.fixture
def live(site: Site, server: Server, broker: ValkeyServer) -> Server:
    """The server over an emptied registry and an emptied broker."""
    return server


@pytest.fixture
def patient(site: Site, patient_server: Server, broker: ValkeyServer) -> Server:
    return patient_server


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    """Connections, closed at the end."""
    connections: list[socket.socket] = []
    yield connections
    for connection in connections:
        connection.close()


def is_open(connection: socket.socket) -> bool:
    """Whether the server has neither closed it nor sent anything."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        connection.settimeout(30)
    return False


def wait_until_closed(connection: socket.socket) -> None:
    """Whatever the server says before. Raises TimeoutError."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        return


def raw(connection: socket.socket, *parts: bytes) -> bytes:
    """Send, and read to the end."""
    for part in parts:
        connection.sendall(part)
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer


def answer_to(connection: socket.socket, request: bytes) -> bytes:
    """One answer, head and body, of a connection that stays open."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    start, _, body = answer.partition(b"\r\n\r\n")
    length = int(start.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)
    return start


def head(body: bytes, *extra: str) -> bytes:
    lines = ["POST /webhooks/stripe HTTP/1.1", "Host: x", "Connection: close", *extra]
    lines.append(f"Stripe-Signature: {signed(body)['Stripe-Signature']}")
    return "\r\n".join([*lines, "", ""]).encode()


def test_an_event_is_stored_and_notified_through_celery(
    live: Server, site: Site, broker: ValkeyServer
) -> None:
    assert live.post(event("evt_1")).json() == {"event": "evt_1", "new": True}
    with redis.Redis(port=broker.port) as client:
        (message,) = client.lrange("quick", 0, -1)
    assert json.loads(message)["headers"]["task"] == "controlplane.work"
    assert json.loads(message)["headers"]["argsrepr"] == "['quick']"
    assert site.rows("SELECT id, state FROM stripe_event") == [{"id": "evt_1", "state": "received"}]
    assert site.jobs() == [(JobKind.INTAKE, "sub_1")]


def test_the_api_is_served(live: Server, site: Site) -> None:
    site.found("sub_1", name="Acme")
    answer = live.http.get("/v1/tenants", headers=bearer("viewer"))
    assert [item["slug"] for item in answer.json()["items"]] == ["acme"]


@pytest.mark.parametrize("target", ["//v1//tenants", "http://evil.example/v1//tenants", "/v1//tenants/"])
def test_a_host_that_a_client_has_made_up_is_not_repeated(live: Server, target: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode()
    with live.open() as connection:
        answer = raw(connection, request)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"evil" not in answer


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


HALF_HEAD = b"POST /webhooks/stripe HTTP/1.1\r\nX: "
HALF_BODY = head(b"", "Content-Length: 1000") + b"x"
CHUNKED = head(b"", "Transfer-Encoding: chunked") + b"5\r\nab"
ANSWERED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
STALLING = {
    "silent": b"",
    "head": HALF_HEAD,
    "body": HALF_BODY,
    "pipelined": ANSWERED + HALF_HEAD,
}


@pytest.mark.parametrize("stall", STALLING)
def test_clients_that_stall_hold_no_thread(patient: Server, crowd: list[socket.socket], stall: str) -> None:
    """Fifty for each thread, from several addresses as the bound allows: an event is answered beside them."""
    for number in range(50 * THREADS):
        crowd.append(patient.open(f"127.0.0.{2 + number % 5}"))
        if stall == "pipelined":
            assert answer_to(crowd[-1], STALLING[stall]).startswith(b"HTTP/1.1 200 ")
        else:
            crowd[-1].sendall(STALLING[stall])
    assert patient.post(event("evt_1")).status_code == 200
    assert all(map(is_open, crowd))


def test_chunked_bodies_hold_up_each_other_alone(patient: Server, crowd: list[socket.socket]) -> None:
    """Their threads are their own, and those that would have to wait long are sent away."""
    for _ in range(5 * THREADS):
        crowd.append(patient.open())
        crowd[-1].sendall(CHUNKED)
    assert patient.post(event("evt_1")).status_code == 200
    for connection in crowd[THREADS:]:
        assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")
    assert all(map(is_open, crowd[:THREADS]))


@pytest.mark.parametrize("stall", [*STALLING.values(), CHUNKED], ids=[*STALLING, "chunks"])
def test_clients_that_stall_are_cut_off(live: Server, crowd: list[socket.socket], stall: bytes) -> None:
    for _ in range(2 * THREADS):
        crowd.append(live.open())
        crowd[-1].sendall(stall)
    for connection in crowd:
        wait_until_closed(connection)


def test_a_reused_connection_that_stalls_is_cut_off(live: Server, crowd: list[socket.socket]) -> None:
    """Idle, it is kept; it has begun a request and does not go on."""
    crowd += [live.open(), live.open()]
    for connection in crowd:
        assert answer_to(connection, ANSWERED).startswith(b"HTTP/1.1 200 ")
    idle, stalling = crowd
    stalling.sendall(HALF_HEAD)
    wait_until_closed(stalling)
    assert answer_to(idle, ANSWERED).startswith(b"HTTP/1.1 200 ")


def test_clients_that_do_not_close_hold_up_nobody(patient: Server, crowd: list[socket.socket]) -> None:
    """They are answered, and the server says that it closes."""
    for _ in range(BOUND):
        crowd.append(patient.open())
        crowd[-1].sendall(ANSWERED.replace(b"Host: x", b"Connection: close"))
    assert patient.post(event("evt_1")).status_code == 200


def test_an_address_over_its_bound_loses_its_oldest_connection(
    patient: Server, crowd: list[socket.socket]
) -> None:
    for _ in range(BOUND):
        crowd.append(patient.open("127.0.0.2"))
    other = patient.open("127.0.0.3")
    crowd.append(other)
    newest = patient.open("127.0.0.2")
    crowd.append(newest)
    wait_until_closed(crowd[0])
    assert all(map(is_open, crowd[1:]))
    for connection in (newest, other):
        assert answer_to(connection, ANSWERED).startswith(b"HTTP/1.1 200 ")
    assert all(map(is_open, crowd[1:BOUND]))


def test_connections_that_have_said_something_whole_are_not_counted(
    patient: Server, crowd: list[socket.socket]
) -> None:
    """A proxy keeps many of them."""
    for _ in range(2 * BOUND):
        crowd.append(patient.open("127.0.0.4"))
        assert answer_to(crowd[-1], ANSWERED).startswith(b"HTTP/1.1 200 ")
    assert all(map(is_open, crowd))


def test_a_process_without_room_closes_the_oldest_that_wait(
    environment: dict[str, str], site: Site, tmp_path: Path, crowd: list[socket.socket]
) -> None:
    """The limit of open files is what makes it short; there is no bound for an address."""
    without = environment | {"CONTROLPLANE_WAITING_PER_ADDRESS": "0"}
    small = Server(tmp_path, without, patience=600, files=400)
    try:
        for _ in range(500):
            crowd.append(small.open())
        assert small.post(event("evt_1")).status_code == 200
        wait_until_closed(crowd[0])
        assert sum(map(is_open, crowd)) > 200
        assert is_open(crowd[-1])
        assert "raise the limit of open files" in small.log.read_text()
    finally:
        for connection in crowd:
            connection.close()
        assert small.stop() == 0


def test_requests_that_come_byte_by_byte_are_put_together(patient: Server, site: Site) -> None:
    bodies = [event("evt_1"), event("evt_2")]
    with patient.open() as connection:
        for body in bodies:
            request = head(body, f"Content-Length: {len(body)}").replace(b"Connection: close\r\n", b"")
            for byte in request + body:
                connection.sendall(bytes([byte]))
        answer = raw(connection, ANSWERED.replace(b"Host: x", b"Connection: close"))
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert site.rows("SELECT id FROM stripe_event ORDER BY id") == [{"id": "evt_1"}, {"id": "evt_2"}]


def test_a_client_that_asks_whether_to_go_on_is_told_to(live: Server) -> None:
    body = event("evt_1")
    with live.open() as connection:
        connection.sendall(head(body, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert b"HTTP/1.1 200 " in raw(connection, body)


@pytest.mark.parametrize("length", ["+1", "-1", "1, 1", "1\r\nContent-Length: 2", "99999999999999999999"])
def test_a_length_that_is_none_is_refused(live: Server, length: str) -> None:
    with live.open() as connection:
        answer = raw(connection, head(b"", f"Content-Length: {length}"))
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))


def test_a_head_without_an_end_is_cut_at_its_limit(live: Server) -> None:
    with live.open() as connection:
        answer = raw(connection, HALF_HEAD, b"x" * 65536)
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("option", [f"--certfile={__file__}", "--http2-cleartext=both"])
def test_tls_and_http2_are_left_to_the_proxy(environment: dict[str, str], option: str) -> None:
    command = [sys.executable, "-m", "gunicorn", "-c", "python:controlplane.web.gunicorn", option]
    done = subprocess.run(
        [*command, "--bind", f"127.0.0.1:{free_port()}", "controlplane.wsgi:app"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "end at the proxy in front" in done.stderr


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
