"""The wake-up at the end of a request: it may get lost, it may never hold the request up.

What is due is in the registry, and the sweep finds it within seconds; so a broker that is down costs
those seconds and nothing else. After a wake-up that failed, nobody tries for `pause` seconds but one
caller at a time thereafter: with the transport's own timeout (see `controlplane/wsgi.py`) a dead
broker costs one request in each pause that timeout, and all others nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from controlplane.web.edge import Notify

log = logging.getLogger(__name__)

PAUSE = 2.0


class WakeUp:
    """A `Notify` that never raises."""

    def __init__(
        self, notify: Notify, *, pause: float = PAUSE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._notify = notify
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._quiet_until: float | None = None  # None: the last one was heard

    def __call__(self, task: str, args: list[str]) -> None:
        if not self._may_try():
            return
        try:
            self._notify(task, args)
        except Exception as error:  # noqa: BLE001 - whatever a broker's client raises, the request goes on
            with self._lock:
                self._quiet_until = self._clock() + self._pause
            log.warning("wake-up for %s: %s, the sweep will find it", task, type(error).__name__)
        else:
            self._quiet_until = None

    def _may_try(self) -> bool:
        if self._quiet_until is None:
            return True
        with self._lock:
            now = self._clock()
            if self._quiet_until is not None and now < self._quiet_until:
                return False
            self._quiet_until = now + self._pause  # this caller tries, the others go on without
            return True
