"""The fake server's clock: the machine's, plus what tests have advanced it by.

Billing waits for days (trials, periods, dunning, retries), tests can't. `Clock.at` holds the time
still while something that was due at a moment in the past happens *as of* that moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

MINUTE, HOUR, DAY = 60, 3600, 86400


class Clock:
    def __init__(self, offset: float = 0.0) -> None:
        """`offset`: seconds ahead of the machine's clock."""
        self.offset = offset
        self._held: float | None = None

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self.offset if self._held is None else self._held

    def stamp(self) -> int:
        """Now as Stripe writes it, in whole seconds."""
        return int(self.now())

    @contextmanager
    def at(self, moment: float) -> Iterator[None]:
        before, self._held = self._held, moment
        try:
            yield
        finally:
            self._held = before
