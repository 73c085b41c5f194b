"""Serves a fake server on loopback until it is asked to stop, or until whoever started it is gone.

A demo that is killed must leave nothing behind, so the server watches its parent: when the process
that started it dies, it stops too. The watch compares process ids instead of asking the kernel for a
signal (`PR_SET_PDEATHSIG`), because that signal is tied to the parent's *thread*, and launchers start
children from threads that end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

HOST = "127.0.0.1"
PARENT_POLL_SECONDS = 0.5
MAX_BODY_BYTES = 1024 * 1024


class QuietHandler(WSGIRequestHandler):
    """Keeps errors, drops the line for each request: hundreds a second hide what matters."""

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Nothing; `GET /_localcloud/…` shows what happened."""


def serve(app: Flask, *, name: str, port: int, close: Callable[[], None]) -> None:
    """Serve `app` on 127.0.0.1:`port` (0: any free one, printed) until SIGTERM, SIGINT or the death
    of the parent; then run `close`."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    server = make_server(HOST, port, app, threaded=True, request_handler=QuietHandler)
    stopping = threading.Event()

    def stop(*_signal: object) -> None:
        if not stopping.is_set():
            stopping.set()
            threading.Thread(target=server.shutdown, name="shutdown", daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=_watch_parent, args=(stop, stopping), name="parent-watch", daemon=True).start()
    sys.stdout.write(f"{name} fake server listening on http://{HOST}:{server.server_port}\n")
    sys.stdout.flush()
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        server.server_close()
        close()


def _watch_parent(stop: Callable[[], None], stopping: threading.Event) -> None:
    parent = os.getppid()
    while not stopping.wait(PARENT_POLL_SECONDS):
        if os.getppid() != parent:
            stop()
            return
