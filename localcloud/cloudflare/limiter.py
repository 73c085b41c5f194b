"""The API's request limit: so many in a window, and who exceeds it is shut out for a whole one.

After Cloudflare's page "Rate limits": a breach blocks every call for the next five minutes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from controlplane.localcloud.cloudflare.zone import Limits


@dataclass(frozen=True, slots=True)
class Standing:
    """`retry_after` is None while calls are let through; seconds else."""

    limit: int
    remaining: int
    reset: int
    retry_after: int | None

    def headers(self) -> dict[str, str]:
        found = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset),
        }
        if self.retry_after is not None:
            found["retry-after"] = str(self.retry_after)
        return found


class Limiter:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._calls: deque[float] = deque()
        self._blocked_until = 0.0

    def count(self) -> Standing:
        """Count one call."""
        now, limits = time.monotonic(), self.limits
        with self._lock:
            if now >= self._blocked_until:
                while self._calls and self._calls[0] <= now - limits.window:
                    self._calls.popleft()
                self._calls.append(now)
                if len(self._calls) > limits.requests:
                    self._blocked_until = now + limits.window
                    self._calls.clear()
            wait = self._blocked_until - now
            blocked = wait > 0
            reset = wait if blocked else self._calls[0] + limits.window - now
            return Standing(
                limit=limits.requests,
                remaining=0 if blocked else limits.requests - len(self._calls),
                reset=max(1, round(reset)),
                retry_after=max(1, round(wait)) if blocked else None,
            )

    def set(self, limits: Limits) -> None:
        """Other limits, and a clean record."""
        with self._lock:
            self.limits = limits
            self._calls.clear()
            self._blocked_until = 0.0
