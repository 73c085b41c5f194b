"""Request bodies: bounded, and read to their end or refused."""

from __future__ import annotations

import json
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from controlplane.domain.errors import Invalid
from controlplane.domain.quoting import shown

MAX_BODY = 256 * 1024  # bytes; Stripe's largest events are a few tens of KiB


def read() -> bytes:
    """The raw body. Whether it comes with a length or in chunks, one over MAX_BODY is refused (413,
    by werkzeug, from Flask's MAX_CONTENT_LENGTH) without being read to its end."""
    try:
        return request.get_data(cache=False, parse_form_data=False)
    except OSError as error:  # the server's word for broken chunks and for a client that went away
        raise BadRequest("body: expected it whole and well-formed") from error


def read_json(known: frozenset[str]) -> dict[str, Any]:
    """The body as a JSON object with no fields but these."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Content-Type: expected application/json")
    try:
        value = json.loads(read())
    except (ValueError, RecursionError) as error:
        raise Invalid("body", "JSON") from error
    if not isinstance(value, dict):
        raise Invalid("body", "a JSON object", got=shown(value))
    for name in value:
        if name not in known:
            raise Invalid(name[:80], f"no other fields than {', '.join(sorted(known))}")
    return value
