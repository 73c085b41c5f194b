"""An HTTP proxy on loopback that answers for the server, or keeps the server's answer to itself.

The second is the dangerous one: the work is done and the caller does not know. Requests that no fault
fits are passed on as they are.
"""

from __future__ import annotations

import http.client
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

UPSTREAM_TIMEOUT = 120.0
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the proxy sees it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def mentions(self, text: str) -> bool:
        """In its path, its body or AWS's header that names the action."""
        return text in self.path or text.encode() in self.body or text in self.headers.get("X-Amz-Target", "")


@dataclass(slots=True)
class HttpFault:
    """`fits`: which requests. `status`, with `body` and `content_type`: answered instead of asking the
    server. `lose_answer`: ask the server, then reset the connection. `delay`: seconds before anything
    else. `share`: of the requests that fit; `times`: at most so often."""

    fits: Callable[[Asked], bool]
    status: int | None = None
    body: bytes = b""
    content_type: str = "text/xml"
    lose_answer: bool = False
    delay: float = 0.0
    share: float = 1.0
    times: int | None = None
    done: int = field(default=0, init=False)


class HttpProxy:
    """In front of 127.0.0.1:`port`. Use as a context manager; set `faults` at any time."""

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.target = port
        self.faults: list[HttpFault] = []
        self.passed = 0
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                proxy._handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base's name
                """Nothing: a Terraform run makes hundreds of requests."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        asked = Asked(handler.command, handler.path, dict(handler.headers.items()), _body(handler))
        fault = self._take(asked)
        if fault is not None and fault.delay:
            time.sleep(fault.delay)
        if fault is not None and fault.status is not None:
            _answer(handler, fault.status, [("Content-Type", fault.content_type)], fault.body)
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=UPSTREAM_TIMEOUT)
        try:
            kept = {name: value for name, value in asked.headers.items() if name.lower() not in _HOP}
            connection.request(asked.method, asked.path, asked.body or None, kept)
            answer = connection.getresponse()
            body = answer.read()
        except OSError:
            handler.close_connection = True  # the server is away, and so are we
            return
        finally:
            connection.close()
        if fault is not None and fault.lose_answer:
            handler.close_connection = True
            return
        self.passed += 1
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        length = answer.getheader("Content-Length") if asked.method == "HEAD" else None
        _answer(handler, answer.status, headers, body, length=length)

    def _take(self, asked: Asked) -> HttpFault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times is not None and fault.done >= fault.times:
                    continue
                if fault.fits(asked) and self._rng.random() < fault.share:
                    fault.done += 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle is nothing to tell."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    """What was sent, with its length or in chunks (as AWS's SDKs send to S3)."""
    if "chunked" in (handler.headers.get("Transfer-Encoding") or ""):
        body = b""
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        while handler.rfile.readline().strip():
            pass
        return body
    return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


def _answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    *,
    length: str | None = None,
) -> None:
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    handler.send_header("Content-Length", length or str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
