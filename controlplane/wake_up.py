"""The wake-up: a Celery message that says only "this lane has work". It may get lost, it may never hold
anybody up.

What is due is in the registry, and every worker looks there once a second by itself; so a broker that is
down costs that second and nothing else. The first wake-up goes out at once; those that follow within `gap`
are one, at its end, so that a burst costs ten messages a second and no event of it is overlooked. After one
that failed, nobody tries for `pause` seconds but one caller at a time thereafter: with the transport's own
timeout a dead broker costs one request in each pause that timeout, and all others nothing. A queue that
nobody listens to holds FULL of them and no more: whoever hears the first does all that is due.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from celery import Celery
from kombu.exceptions import ChannelError

from controlplane.domain.job import Lane

log = logging.getLogger(__name__)

PAUSE = 2.0
GAP = 0.1
FULL = 100
TASK = "controlplane.work"

Publish = Callable[[Lane], None]
After = Callable[[float, Callable[[], None]], None]
"""Have something done so many seconds from now, in another thread."""


def after(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


class WakeUp:
    """Call it with a lane, after the commit. It never raises."""

    def __init__(
        self,
        publish: Publish,
        *,
        gap: float = GAP,
        pause: float = PAUSE,
        clock: Callable[[], float] = time.monotonic,
        after: After = after,
    ) -> None:
        self._publish, self._gap, self._pause = publish, gap, pause
        self._clock, self._after = clock, after
        self._lock = threading.Lock()
        self._last: dict[Lane, float] = {}
        self._later: set[Lane] = set()
        self._quiet_until: float | None = None  # None: the last one was heard

    def __call__(self, lane: Lane) -> None:
        with self._lock:
            wait = self._last.get(lane, float("-inf")) + self._gap - self._clock()
            if wait > 0 and lane in self._later:
                return
            if wait > 0:
                self._later.add(lane)
                self._after(wait, lambda: self._send(lane))
                return
        self._send(lane)

    def _send(self, lane: Lane) -> None:
        with self._lock:
            self._later.discard(lane)
            now = self._clock()
            if self._quiet_until is not None and now < self._quiet_until:
                return
            if self._quiet_until is not None:
                self._quiet_until = now + self._pause  # this caller tries, the others go on without
            self._last[lane] = now
        try:
            self._publish(lane)
        except Exception as error:  # noqa: BLE001 - whatever a broker's client raises, the caller goes on
            with self._lock:
                self._quiet_until = self._clock() + self._pause
            log.warning("wake-up of lane %s: %s, workers will find the work", lane, type(error).__name__)
        else:
            self._quiet_until = None


def publisher(celery: Celery) -> Publish:
    """Raises whatever the broker's client does, within its timeouts."""

    def publish(lane: Lane) -> None:
        with celery.producer_pool.acquire(block=True) as producer:
            try:
                waiting = producer.channel.queue_declare(lane.value, passive=True).message_count
            except ChannelError:  # an empty queue is none
                waiting = 0
            if waiting < FULL:
                celery.send_task(TASK, args=[lane.value], queue=lane.value, producer=producer, retry=False)

    return publish
