"""Request bodies: bounded, and read to their end or refused."""

from __future__ import annotations

import json
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge, UnsupportedMediaType

from controlplane.domain.errors import Invalid

MAX_BODY = 256 * 1024  # bytes; Stripe's largest events are a few tens of KiB

# For Flask's MAX_CONTENT_LENGTH. One more than is taken, because werkzeug (3.1) cuts a chunked body
# off at its limit without a word: only a body that reaches the limit shows that it was longer.
READ_LIMIT = MAX_BODY + 1

MAX_REASON = 200  # characters


def read() -> bytes:
    """The raw body. One over MAX_BODY is refused with 413, by its length or, where it comes in
    chunks, once that much has come."""
    announced = request.content_length or 0
    if announced > MAX_BODY:
        raise RequestEntityTooLarge
    try:
        body = request.get_data(cache=False, parse_form_data=False)
    except HTTPException:
        raise
    except Exception as error:  # the server's own words for broken chunks, of no common class
        raise BadRequest("body: expected it whole and in well-formed chunks") from error
    if len(body) > MAX_BODY:
        raise RequestEntityTooLarge
    if len(body) < announced:
        raise BadRequest("body: expected it whole, the connection ended within it")
    return body


def read_json(known: frozenset[str]) -> dict[str, Any]:
    """The body as a JSON object with no fields but these."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Content-Type: expected application/json")
    try:
        value = json.loads(read())
    except (ValueError, RecursionError) as error:
        raise Invalid("body", "JSON") from error
    if not isinstance(value, dict):
        raise Invalid("body", "a JSON object", got=value)
    for name in value:
        if name not in known:
            raise Invalid(name[:80], f"no other fields than {', '.join(sorted(known))}")
    return value


def read_reason() -> str:
    """Of a body that holds a `reason` and nothing else. Raises Invalid."""
    return why(read_json(frozenset({"reason"})).get("reason"))


def flag(fields: dict[str, Any], name: str) -> bool:
    """A field that is true or false; false where it is left out. Raises Invalid."""
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise Invalid(name, "true or false", got=value)
    return value


def why(reason: Any, *, needed: bool = True) -> str:
    """The `reason` that a person gave, for the audit trail; empty where none was given or `needed`.
    Raises Invalid."""
    if reason is None and not needed:
        return ""
    if (
        not isinstance(reason, str)
        or not 0 < len(reason.strip()) <= len(reason) <= MAX_REASON
        or not reason.isprintable()
    ):
        raise Invalid("reason", f"why, in 1 to {MAX_REASON} printable characters", got=reason)
    return reason.strip()
