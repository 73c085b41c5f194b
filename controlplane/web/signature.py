"""Is this request from Stripe, and can its body be used?

Two questions with two answers. `BadSignature`: nobody knows who sent it, so it is answered 400 and
nothing is kept. `Malformed`: it is Stripe's own and yet unusable, so it is kept and parked; refusing
it would have Stripe deliver the same body for three days.

The HMAC is the `stripe` library's. Version 16.1 leaves open what is closed here: it takes timestamps
far in the future, switches the check of time off for a tolerance of 0, raises TypeError on a
signature that is not ASCII, UnicodeDecodeError on a body that is not UTF-8, AttributeError on a
signed `[]`, RecursionError on deep nesting, and lets through what PostgreSQL's `jsonb` then refuses:
NUL characters, half surrogates, NaN, numbers beyond every type. tests/web/test_signature.py shows
each of them on the library first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import stripe

from controlplane.domain.billing import THIN
from controlplane.domain.errors import Refused
from controlplane.domain.safe_repr import safe_repr

TOLERANCE = 300  # seconds that the signature's time may be away, before or after
MAX_DEPTH = 64  # Stripe's own events nest about 10 deep
_MAX_HEADER = 4096  # characters: two secrets and two schemes take 300
_HEADER = re.compile(r"^t=[0-9]{1,12},[!-~]+\Z")  # what follows the time is the library's to read
_EVENT_ID = re.compile(r"^evt_[A-Za-z0-9_]{1,250}\Z")
_INT64 = 2**63
_LAST_SECOND = 253_402_300_799  # of the year 9999, where datetime ends


class BadSignature(Refused):
    """The request does not carry a valid signature of ours."""


class Malformed(Refused):
    """The body is signed and can't be used; the message says why.

    `event_id`: the event's id where that much could be read.
    """

    def __init__(self, message: str, *, event_id: str | None = None) -> None:
        super().__init__(message)
        self.event_id = event_id


def verify_stripe(
    body: bytes, header: str | None, secrets: Sequence[str], now: float, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """The event in `body`, whose `Stripe-Signature` header is `header`.

    `secrets`: the endpoint's signing secrets, any of which may have signed (two while one is being
    rolled). `now` in Unix seconds; the signature may be `tolerance` seconds older or newer. In what
    is returned `id`, `type`, `created`, `livemode` and `data.object`, or of a thin event `related_object`,
    are of their right types. Raises BadSignature, Malformed.
    """
    if tolerance <= 0 or not secrets:
        raise ValueError("expected a tolerance above 0 and a secret at least: without, nothing is checked")
    event = _parse(_authenticate(body, header, secrets, now, tolerance))
    _check_values(event)
    return _check_envelope(event)


def _authenticate(
    body: bytes, header: str | None, secrets: Sequence[str], now: float, tolerance: float
) -> str:
    """The body as text."""
    if not header or len(header) > _MAX_HEADER or not _HEADER.match(header):
        raise BadSignature("Stripe-Signature: expected t=<seconds>,v1=<hex>")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSignature("body: expected UTF-8, which is all that Stripe signs") from error
    if not any(_signed_with(secret, text, header) for secret in secrets):
        raise BadSignature("Stripe-Signature: signed with none of the endpoint's secrets")
    if abs(now - int(header[2 : header.index(",")])) > tolerance:
        raise BadSignature(f"Stripe-Signature: expected a time within {tolerance:g} s of now")
    return text


def _signed_with(secret: str, text: str, header: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(text, header, secret, tolerance=None)
    except stripe.SignatureVerificationError:
        return False
    return True


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_no_constant)
    except RecursionError as error:
        raise Malformed(f"body: nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:
        raise Malformed(f"body: expected JSON: {error}") from error


def _int(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else _INT64
    if not -_INT64 <= value < _INT64:
        raise ValueError("a whole number beyond 64 bits")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number beyond what a float holds")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_values(event: Any) -> None:
    """No nesting beyond MAX_DEPTH and no text that PostgreSQL can't hold; a loop, as recursion is
    what an attacker would exhaust."""
    level, depth = [event], 0
    while level:
        if depth > MAX_DEPTH:
            raise Malformed(f"body: nested more than {MAX_DEPTH} deep", event_id=_event_id(event))
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, str) and ("\0" in value or not _encodable(value)):
                raise Malformed("body: text with a NUL or half a surrogate", event_id=_event_id(event))
        level, depth = below, depth + 1


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _event_id(event: Any) -> str | None:
    found = event.get("id") if isinstance(event, dict) else None
    return found if isinstance(found, str) and _EVENT_ID.match(found) else None


def _check_envelope(event: Any) -> dict[str, Any]:
    if not isinstance(event, dict):
        raise Malformed(f"body: expected an event object, got {safe_repr(event)}")
    event_id, kind = _event_id(event), event.get("object")
    if kind not in ("event", THIN):
        raise Malformed(f"object: expected event or {THIN}, got {safe_repr(kind)}", event_id=event_id)
    if event_id is None:
        raise Malformed(f"id: expected evt_…, got {safe_repr(event.get('id'))}")
    fields: list[tuple[str, object, type, str]] = [
        ("type", event.get("type"), str, "text"),
        ("livemode", event.get("livemode"), bool, "true or false"),
    ]
    if kind == THIN:
        related = event.get("related_object")
        fields.append(("created", event.get("created"), str, "a time"))
        fields.append(("related_object", {} if related is None else related, dict, "an object or null"))
    else:
        data = event.get("data")
        found = data.get("object") if isinstance(data, dict) else None
        fields.append(("created", event.get("created"), int, "seconds since 1970"))
        fields.append(("data", data, dict, "an object"))
        fields.append(("data.object", found, dict, "an object"))
    for name, value, expected_type, expected in fields:
        if type(value) is not expected_type:  # isinstance would take true for a number
            raise Malformed(f"{name}: expected {expected}, got {safe_repr(value)}", event_id=event_id)
    if kind != THIN and not 0 <= event["created"] <= _LAST_SECOND:
        raise Malformed(f"created: expected seconds since 1970, got {event['created']}", event_id=event_id)
    return event
