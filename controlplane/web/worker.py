"""gunicorn's gthread worker, with a deadline for each request.

A gthread worker waits without an end for a client that has begun a request and sends no more, and
each such client holds a thread; sixteen of them stop the process. A load balancer in front shields
against most of it, but a webhook must not hang on that. So a request that is not answered within
REQUEST_SECONDS has its connection shut down: the thread that reads it sees its end and is free again.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

# More than any request of ours takes: waiting for the registry and its statements are bounded lower.
REQUEST_SECONDS = 15.0


class DeadlineWorker(ThreadWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadlines: dict[Any, float] = {}

    def handle(self, conn: Any) -> Any:
        self._deadlines[conn] = time.monotonic() + REQUEST_SECONDS
        try:
            return super().handle(conn)
        finally:
            del self._deadlines[conn]

    def murder_pending(self) -> None:
        """The main loop calls this about once a second, for connections that never said anything."""
        super().murder_pending()
        now = time.monotonic()
        for conn, deadline in self._deadlines.copy().items():
            if now > deadline:
                _shut_down(conn.sock)


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RD)
    except OSError:
        return  # closed a moment ago
