"""At most once in so many seconds, for each process."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last: float | None = None

    def allows(self) -> bool:
        """True, and from then on False for `seconds`."""
        now = self._clock()
        if self._last is not None and now - self._last < self._seconds:
            return False
        self._last = now
        return True
