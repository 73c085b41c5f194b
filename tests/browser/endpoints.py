"""What the application reaches over the network besides its databases, and how they are found."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.browser.tenants import DATABASE_HOST, DATABASE_PORT


class EndpointFile:
    """`path`: replaced as a whole at each change, so that no reader sees half of it."""

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        self._entries = {f"{DATABASE_HOST}:{DATABASE_PORT}": f"127.0.0.1:{port}"}
        self._write()

    def add(self, host: str, port: int) -> None:
        self._entries[f"{host}:{DATABASE_PORT}"] = f"127.0.0.1:{port}"
        self._write()

    def _write(self) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self._entries))
        os.replace(beside, self.path)


@contextmanager
def numbering_server() -> Iterator[str]:
    """The URL of a service that gives each request another number."""
    numbers = iter(range(1, 1_000_000))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"number": next(numbers)}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Nothing to say."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
