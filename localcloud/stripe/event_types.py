"""Patterns over event types, as endpoints subscribe to them and lists filter by them."""

from __future__ import annotations

from collections.abc import Iterable


def covers(patterns: Iterable[str], kind: str) -> bool:
    """Does any of `*`, `customer.*` or an exact type mean this type?"""
    return any(
        pattern in ("*", kind) or (pattern.endswith(".*") and kind.startswith(pattern[:-1]))
        for pattern in patterns
    )
