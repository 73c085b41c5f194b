"""An id for every request, and one log line.

The id is the caller's `X-Request-ID` where it is a plain word, else a new one; it is answered in the
same header and stands on every line that is logged while the request is handled. The line names what
was asked and how it went: never a query, a header or a body.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextvars import ContextVar

from flask import Flask, Response, g, request

log = logging.getLogger("controlplane.request")

HEADER = "X-Request-ID"
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_PROBES = frozenset({"health.healthz", "health.readyz"})

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def install(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    offered = request.headers.get(HEADER, "")
    g.request_id = offered if _PLAIN.fullmatch(offered) else uuid.uuid4().hex
    g.started = time.perf_counter()
    request_id.set(g.request_id)


def _end(response: Response) -> Response:
    response.headers[HEADER] = g.request_id
    response.headers["Cache-Control"] = "no-store"
    caller = g.get("caller")
    log.log(
        logging.DEBUG if request.endpoint in _PROBES else logging.INFO,
        "%s %s",
        request.method,
        request.path,
        extra={
            "status": response.status_code,
            "milliseconds": round((time.perf_counter() - g.started) * 1000, 1),
            "caller": None if caller is None else caller.name,
            "body_bytes": request.content_length,
        },
    )
    return response
