"""Log lines as JSON objects, one a line, each with the id of the request that it belongs to.

`CONFIG` is for `logging.config.dictConfig`; the web process hands it to gunicorn, so that the
server's own lines have the same shape.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from controlplane.web.request_log import request_id

_EXTRA = ("status", "milliseconds", "caller", "body_bytes")


class JsonFormatter(logging.Formatter):
    """A line never holds a newline, so nobody can write a second one into it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
        }
        line |= {name: record.__dict__[name] for name in _EXTRA if name in record.__dict__}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value is not None})


CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonFormatter}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "propagate": True},
        "gunicorn.access": {"level": "WARNING", "propagate": True},
    },
}
