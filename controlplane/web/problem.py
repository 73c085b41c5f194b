"""One shape for every answer that is not a success, and one place that decides its status.

    {"error": {"code": "invalid", "message": "limit: expected …", "field": "limit"}}

`code` is for programs and stays, `message` is for people and may change, `field` is there where one
field is to blame. A view raises; nothing here is caught and forgotten: what nobody foresaw is logged
with its traceback and answered 500 without any of it.
"""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

from controlplane.domain.errors import Conflict, ControlPlaneError, Invalid, NotFound, Refused, Retryable
from controlplane.services.routes import UnknownHost
from controlplane.web.auth import Forbidden, Unauthorized

log = logging.getLogger(__name__)

RETRY_AFTER = 5  # seconds, where the error knows nothing better

_KINDS: tuple[tuple[type[ControlPlaneError], int, str], ...] = (
    (Unauthorized, 401, "unauthorized"),
    (Forbidden, 403, "forbidden"),
    (Invalid, 400, "invalid"),
    (UnknownHost, 404, "unknown_host"),
    (NotFound, 404, "not_found"),
    (Conflict, 409, "conflict"),
    (Refused, 400, "refused"),
    (Retryable, 503, "unavailable"),
)
_HTTP_CODES = {
    400: "bad_request",
    404: "no_such_url",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}


def problem(status: int, code: str, message: str, *, field: str | None = None) -> Response:
    error = {"code": code, "message": message}
    if field is not None:
        error["field"] = field
    response = jsonify({"error": error})
    response.status_code = status
    return response


def install(app: Flask) -> None:
    app.register_error_handler(ControlPlaneError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unforeseen)


def _ours(error: ControlPlaneError) -> Response:
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            response = problem(status, code, str(error), field=getattr(error, "field", None))
            break
    else:
        return _unforeseen(error)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Retryable):
        log.warning("%s", error)
        response.headers["Retry-After"] = str(int(error.after or RETRY_AFTER))
    return response


def _http(error: HTTPException) -> Response:
    """What Flask refuses by itself: an unknown URL, a method, a body over the limit."""
    status = error.code or 500
    response = problem(status, _HTTP_CODES.get(status, "http_error"), error.description or error.name)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _unforeseen(error: Exception) -> Response:
    log.error("unforeseen: %s", type(error).__name__, exc_info=error)
    return problem(500, "internal", "something went wrong here; the request id names it in the log")
