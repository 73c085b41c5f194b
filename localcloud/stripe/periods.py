"""Billing periods: a month after 31 January is the last day of February, as on Stripe.

Ends are counted from the billing cycle's anchor and not from the last end, or a cycle that began on
the 31st would slip to the 28th for good at its first February.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from typing import Any


def end(anchor: int, start: int, recurring: dict[str, Any]) -> int:
    """When the period that begins at `start` ends, in a cycle anchored at `anchor` (both seconds
    since 1970, start not before anchor); `recurring` is a price's interval and count."""
    number = 1
    while (moment := _shifted(anchor, recurring, number)) <= start:
        number += 1
    return moment


def _shifted(anchor: int, recurring: dict[str, Any], number: int) -> int:
    begin = datetime.fromtimestamp(anchor, UTC)
    interval, count = recurring["interval"], recurring["interval_count"] * number
    if interval in ("day", "week"):
        return int((begin + timedelta(days=count * (7 if interval == "week" else 1))).timestamp())
    months = begin.year * 12 + begin.month - 1 + count * (12 if interval == "year" else 1)
    year, month = divmod(months, 12)
    day = min(begin.day, calendar.monthrange(year, month + 1)[1])
    return int(begin.replace(year=year, month=month + 1, day=day).timestamp())
