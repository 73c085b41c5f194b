"""How an error message quotes a value that may be anything.

Short, printable and storable, however hostile the value: nested a thousand deep, a number of a
million digits, NUL characters or half surrogates that PostgreSQL refuses as text.
"""

from __future__ import annotations

from typing import Any

_MAX_LENGTH = 80
_EXACT = 2**53


def safe_repr(value: Any) -> str:
    if isinstance(value, str):
        text = ascii(value[:_MAX_LENGTH])
        return text if len(value) <= _MAX_LENGTH else f"{text}…"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return "a huge number" if abs(value) > _EXACT else repr(value)
    if isinstance(value, dict):
        return "an object"
    return "nothing" if value is None else f"a {type(value).__name__}"
