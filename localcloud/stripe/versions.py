"""Objects in the shape of the API version that a caller, or a webhook endpoint, speaks.

Objects are kept in the current shape. Version 2025-03-31 moved a subscription's period into its
items and an invoice's subscription below `parent` (Stripe's changelog, "basil"); for older versions
both go back to where they were, wherever in an answer or an event they stand. A list within an object is
cut after its first ten in every version.
"""

from __future__ import annotations

import re
from typing import Any

CURRENT = "2026-10-28.endive"
MOVED = "2025-03-31"
SHOWN_ITEMS = 10
VERSION = re.compile(r"^\d{4}-\d{2}-\d{2}(\.[a-z]+)?$")


def render(value: Any, version: str) -> Any:
    """`value` as `version` shows it; the argument stays as it is."""
    shown = _first_items(value)
    return _older(shown) if version[:10] < MOVED else shown


def _first_items(value: Any) -> Any:
    """A subscription shows the first ten of its items; the rest is listed by itself."""
    if isinstance(value, list):
        return [_first_items(item) for item in value]
    if not isinstance(value, dict):
        return value
    shown = {key: _first_items(item) for key, item in value.items()}
    if shown.get("object") == "subscription" and len(shown["items"]["data"]) > SHOWN_ITEMS:
        cut = shown["items"]["data"][:SHOWN_ITEMS]
        shown["items"] = {**shown["items"], "data": cut, "has_more": True}
    return shown


def _older(value: Any) -> Any:
    if isinstance(value, list):
        return [_older(item) for item in value]
    if not isinstance(value, dict):
        return value
    older = {key: _older(item) for key, item in value.items()}
    if older.get("object") == "subscription":
        items = older["items"]["data"]
        older["current_period_start"] = min(item["current_period_start"] for item in value["items"]["data"])
        older["current_period_end"] = min(item["current_period_end"] for item in value["items"]["data"])
        for item in items:
            del item["current_period_start"], item["current_period_end"]
    elif older.get("object") == "invoice":
        parent = older.pop("parent")
        older["subscription"] = parent["subscription_details"]["subscription"] if parent else None
    return older
