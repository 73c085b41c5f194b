"""The control plane's resolve endpoint as tests need it: right, wrong in every way, or hanging."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Endpoint(ThreadingHTTPServer):
    """`/v1/resolve` as the control plane answers it, or as `broken` says."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.entries: dict[str, str] = {}
        self.broken: tuple[int, str, bytes] | None = None
        self.hang: threading.Event | None = None
        self.asked: list[tuple[str, str | None]] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        if self.hang is not None:
            self.hang.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        host = parse_qs(url.query)["host"][0]
        self.server.asked.append((url.path, self.headers["Authorization"]))
        if self.server.hang is not None:
            self.server.hang.wait(60)
        if self.server.broken is not None:
            self.answer(*self.server.broken)
        elif host in self.server.entries:
            self.answer(200, "application/json", json.dumps({"entry": self.server.entries[host]}).encode())
        else:
            self.answer(404, "application/json", b'{"error": {"code": "unknown_host", "message": "none"}}')

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that gave up is part of these tests
            super().handle()

    def log_message(self, *_: object) -> None:
        """Tests look at what was asked, not at a log."""
