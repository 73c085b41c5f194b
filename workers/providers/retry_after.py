"""The Retry-After header, as seconds and within reason.

A vendor may ask for minutes (Cloudflare shuts a caller out for five), SDKs give up on anything above
one. The engine can wait; but a mistaken header must not park a tenant for a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_SECONDS = 900.0


def seconds(headers: Mapping[str, str] | None) -> float | None:
    """From 0 to 900; None where the header is missing or makes no sense."""
    text = next((value for name, value in (headers or {}).items() if name.lower() == "retry-after"), None)
    if text is None:
        return None
    try:
        wanted = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        wanted = (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    # NaN compares false with everything, so it falls through to None.
    if wanted >= MAX_SECONDS:
        return MAX_SECONDS
    return wanted if wanted >= 0 else (0.0 if wanted < 0 else None)
