"""Reading a Stripe object that may be of any API version, or nonsense.

Ids come as text or, where the caller asked for it, as the expanded object. Whatever does not fit
raises `Unparseable`, which names the field and is safe to store and show: no control characters, no half
surrogates, never long, however hostile the JSON.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from controlplane.domain.safe_repr import safe_repr

_BIDI_CONTROLS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


ANY = ""
"""As a prefix: an id of any form, as imports give to customers."""


class Unparseable(Exception):
    """The object can't be understood."""

    def __init__(self, field: str, expected: str, got: object) -> None:
        super().__init__(f"{field}: expected {expected}, got {safe_repr(got)}")
        self.field, self.expected, self.got = field, expected, got

    def under(self, path: str) -> str:
        """The message, with the field's place in a larger object."""
        return str(Unparseable(f"{path}.{self.field}" if self.field else path, self.expected, self.got))


def parsed(body: bytes) -> Any:
    """What stands in it; None where that can't be read."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def dig(value: Any, *path: str) -> Any:
    """What is found at the end of the path of keys, None where it breaks off."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def read_id(value: Any, field: str, prefix: str) -> str:
    """The Stripe id at `field` of an object, expanded or not. Raises Unparseable."""
    found = dig(value, field)
    identifier = found.get("id") if isinstance(found, dict) else found
    form = f"{prefix}_" if prefix else ""
    if isinstance(identifier, str) and re.match(rf"^{form}[A-Za-z0-9_]{{1,250}}\Z", identifier):
        return identifier
    raise Unparseable(field, f"a Stripe id ({form}…)", identifier)


def read_optional_id(value: Any, field: str, prefix: str) -> str | None:
    """None where the field is absent or null. Raises Unparseable."""
    return None if dig(value, field) is None else read_id(value, field, prefix)


def id_or_none(value: Any, field: str, prefix: str) -> str | None:
    """None where there is no good id: for fields that nothing hangs on."""
    try:
        return read_id(value, field, prefix)
    except Unparseable:
        return None


def read_text(value: Any, *, limit: int = 200) -> str | None:
    """Somebody's free text on one line, cut at `limit` characters, fit to be stored and shown: without
    control characters, half surrogates and reversals of the writing direction. None where it is
    no text or nothing is left."""
    if not isinstance(value, str):
        return None
    letters = (" " if _invalid(letter) else letter for letter in value[: 4 * limit])
    return " ".join("".join(letters).split())[:limit].rstrip() or None


def _invalid(letter: str) -> bool:
    return unicodedata.category(letter) in {"Cc", "Cs"} or unicodedata.bidirectional(letter) in _BIDI_CONTROLS
