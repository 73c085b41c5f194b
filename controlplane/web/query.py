"""Query strings and path parts, read strictly.

A filter that is misspelt and silently ignored answers with everything, which is the answer somebody
then acts on; so a name that a listing doesn't know is an error, like a value out of range.

Cursors are opaque: where a listing stands, with the listing's name so that one can't be used for
another. They are not signed: a forged one reaches nothing that the caller may not read anyway.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from flask import request

from controlplane.domain.errors import Invalid, NotFound

T = TypeVar("T")
Row = TypeVar("Row")

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_ID = 2**63 - 1  # a bigint
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_EVENT_ID = re.compile(r"[A-Za-z0-9_:-]{1,255}")
_TEXT = re.compile(r"[!-~]{1,300}")


def only(*known: str) -> None:
    """Refuse every parameter but these, and these twice."""
    for name, values in request.args.lists():
        if name not in known:
            allowed = ", ".join(known) if known else "none"
            raise Invalid(name[:80], f"a parameter that is known here ({allowed})")
        if len(values) > 1:
            raise Invalid(name, "one value")


def limit() -> int:
    return integer("limit", 1, MAX_LIMIT, default=DEFAULT_LIMIT)


def integer(name: str, least: int, most: int, *, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    value = _whole(text)
    if value is None or not least <= value <= most:
        raise Invalid(name, f"a whole number, {least} to {most}", got=text[:40])
    return value


def choice(name: str, allowed: Sequence[str]) -> str | None:
    text = request.args.get(name)
    if text is not None and text not in allowed:
        raise Invalid(name, f"one of {', '.join(allowed)}", got=text[:40])
    return text


def row_id(text: str, what: str) -> int:
    """A number in the path. Raises NotFound where no row can have it."""
    value = _whole(text)
    if value is None:
        raise NotFound(f"{what} {text[:40]!a} does not exist")
    return value


def name(text: str, what: str) -> str:
    """An id, slug, host or one of Stripe's ids in the path. Raises NotFound where none can be like it."""
    return _matched(_NAME, text, what)


def event_id(text: str) -> str:
    return _matched(_EVENT_ID, text, "event")


def _matched(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise NotFound(f"{what} {text[:40]!a} does not exist")
    return text


def _whole(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    value = int(text)
    return value if value <= MAX_ID else None


# ------------------------------------------------------------------------------------------- cursors


def cursor(listing: str, read: Callable[[list[Any]], T]) -> T | None:
    """The position in `?cursor=`. `read` takes the position apart and raises ValueError or TypeError
    where it is not one."""
    text = request.args.get("cursor")
    if text is None:
        return None
    try:
        return read(_position(listing, text))
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid("cursor", f"a next_cursor that the listing of {listing} answered") from error


def _position(listing: str, text: str) -> list[Any]:
    raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    position: list[Any]
    found, *position = json.loads(raw)
    if found != listing:
        raise ValueError(found)
    return position


def page(
    listing: str, rows: list[Row], size: int, position: Callable[[Row], Sequence[str | int]]
) -> tuple[list[Row], str | None]:
    """The first `size` rows, and the cursor behind them where `rows` holds more."""
    if len(rows) <= size:
        return rows, None
    text = json.dumps([listing, *position(rows[size - 1])], separators=(",", ":"))
    return rows[:size], base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def text_position(position: list[Any]) -> str:
    (text,) = position
    if not _TEXT.fullmatch(text):
        raise ValueError(text)
    return str(text)


def id_position(position: list[Any]) -> int:
    (number,) = position
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise ValueError(number)
    return number


def time_position(position: list[Any]) -> tuple[datetime, str]:
    at, text = position
    moment = datetime.fromisoformat(at)
    if moment.tzinfo is None:
        raise ValueError(at)
    return moment, text_position([text])
