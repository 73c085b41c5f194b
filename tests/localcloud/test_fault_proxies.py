"""The fault proxies: they pass on what they should, and misbehave as they are asked to."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.harness.faults.http import HttpFault, HttpProxy
from tests.harness.faults.tcp import Line, TcpProxy


class Echo(threading.Thread):
    """A TCP server that sends back what it gets, and keeps what it got."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.got = b""

    def run(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(ConnectionError):
            while data := client.recv(65_536):
                self.got += data
                client.sendall(data)


@pytest.fixture(scope="module")
def echo() -> Echo:
    server = Echo()
    server.start()
    return server


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    with TcpProxy(echo.port) as opened:
        yield opened


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=30)


def say(proxy: TcpProxy, what: bytes) -> bytes:
    with connect(proxy) as client:
        client.sendall(what)
        return client.recv(100)


def test_bytes_pass_both_ways(proxy: TcpProxy) -> None:
    assert say(proxy, b"hello") == b"hello"
    assert (proxy.accepted, proxy.cut) == (1, 0)


def test_a_late_line_is_late(proxy: TcpProxy) -> None:
    proxy.line = Line(latency=0.2)
    with connect(proxy) as client:
        began = time.monotonic()
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    assert time.monotonic() - began >= 0.4


def test_a_refusal_is_a_reset(proxy: TcpProxy) -> None:
    proxy.line = Line(refuse=True)
    with pytest.raises(ConnectionResetError):
        say(proxy, b"hello")


def test_a_black_hole_says_nothing_until_it_ends(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        client.settimeout(0.3)
        proxy.line = Line(silent=True)
        client.sendall(b"lost")
        with pytest.raises(TimeoutError):
            client.recv(100)
        proxy.line = Line()
        client.settimeout(30)
        client.sendall(b"found")
        assert client.recv(100) == b"found"


def test_a_cut_comes_after_the_server_did_the_work(proxy: TcpProxy, echo: Echo) -> None:
    proxy.line = Line(cut_after=10)
    with connect(proxy) as client:
        client.sendall(b"x" * 11)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    assert echo.got.endswith(b"x" * 11)
    assert proxy.cut == 1


def test_open_connections_are_reset_on_demand(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        proxy.reset_all()
        with pytest.raises(ConnectionResetError):
            client.recv(100)


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, self.path, body))
        self.send_response(201)
        self.send_header("X-Answer", "yes")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"made")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base's name
        """Nothing."""


@pytest.fixture
def asked() -> list[tuple[str, str, bytes]]:
    return []


@pytest.fixture
def api(asked: list[tuple[str, str, bytes]]) -> Iterator[HttpProxy]:
    handler = type("Handler", (Api,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with HttpProxy(server.server_address[1]) as opened:
        yield opened
    server.shutdown()
    server.server_close()
    thread.join(10)


def post(api: HttpProxy, path: str = "/", body: object = b"Action=CreateRole") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
    try:
        connection.request("POST", path, body)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_request_that_no_fault_fits_is_passed_on(
    api: HttpProxy, asked: list[tuple[str, str, bytes]]
) -> None:
    api.faults = [HttpFault(lambda request: request.mentions("DeleteRole"), status=500)]
    assert post(api, "/x?y=1") == (201, b"made")
    assert asked == [("POST", "/x?y=1", b"Action=CreateRole")]


def test_a_chunked_body_arrives_whole(api: HttpProxy, asked: list[tuple[str, str, bytes]]) -> None:
    assert post(api, body=iter([b"one", b"two"])) == (201, b"made")
    assert asked[0][2] == b"onetwo"


def test_an_answer_is_made_up_so_many_times(api: HttpProxy, asked: list[tuple[str, str, bytes]]) -> None:
    api.faults = [HttpFault(lambda request: request.mentions("CreateRole"), status=503, body=b"no", times=2)]
    assert [post(api) for _ in range(3)] == [(503, b"no"), (503, b"no"), (201, b"made")]
    assert len(asked) == 1


def test_an_answer_is_lost_after_the_work(api: HttpProxy, asked: list[tuple[str, str, bytes]]) -> None:
    api.faults = [HttpFault(lambda request: True, lose_answer=True, times=1)]
    with pytest.raises(http.client.RemoteDisconnected):
        post(api)
    assert len(asked) == 1
    assert post(api) == (201, b"made")
