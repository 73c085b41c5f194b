"""Hears at once that a tenant has changed, and knows when it can't hear.

The control plane publishes an invalidation on `tenant:invalidations` after each write of the cache. A
published message reaches those who listen at that moment and nobody else, so what matters is to know when one
was not listening: `connected` and `lost` tell the resolver, which trusts its memory for a shorter time while
nobody listens and looks everything up anew afterwards.

Pub/sub was chosen over server-assisted tracking (`CLIENT TRACKING ON BCAST`) by measurement: see
docs/dataplane.md. An invalidation carries no configuration and is believed only so far that the host is
looked up again, so a forged one costs a read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dataplane.tenant_config import INVALIDATION_CHANNEL, Invalidation

log = logging.getLogger(__name__)

LOOK_UP_SECONDS = 0.2  # how soon the thread sees that it should end


Subscriber = Callable[[Invalidation], None]


class Ear(Protocol):
    """What the listener tells. Called from its thread; must return soon and not raise."""

    def connected(self) -> None: ...

    def lost(self) -> None: ...

    def invalidated(self, invalidation: Invalidation) -> None: ...


class InvalidationListener:
    """One daemon thread and one connection of its own, for as long as it is open.

    `silence`: seconds without a word, the answers to its own pings included, after which the
    connection counts as lost; a cable that was pulled says nothing.
    """

    def __init__(self, url: str, *, silence: float = 3.0, reconnect: float = 0.2) -> None:
        self._url = url
        self._silence = silence
        self._reconnect = reconnect
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, ear: Ear) -> None:
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(ear, self._stop), name="dataplane-invalidations", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._silence)
            self._thread = None

    def forked(self) -> None:
        """In a child process: the thread is the parent's."""
        self._thread = None

    def _run(self, ear: Ear, stop: threading.Event) -> None:
        logged = ""
        while not stop.is_set():
            heard = time.monotonic()
            try:
                self._listen(ear, stop)
            except (redis.RedisError, OSError) as error:
                problem = type(error).__name__
                if problem != logged or time.monotonic() - heard > self._silence:
                    log.warning("invalidations: not listening: %s", problem)
                logged = problem
            finally:
                ear.lost()
            stop.wait(self._reconnect)

    def _listen(self, ear: Ear, stop: threading.Event) -> None:
        client = redis.Redis.from_url(
            self._url,
            protocol=2,
            socket_timeout=self._silence,
            socket_connect_timeout=self._silence,
            retry=Retry(NoBackoff(), 0),
        )
        make_pubsub: Callable[[], Any] = client.pubsub  # redis-py leaves it untyped
        with client, make_pubsub() as pubsub:
            pubsub.subscribe(INVALIDATION_CHANNEL)
            heard = asked = time.monotonic()
            while not stop.is_set():
                message: dict[str, Any] | None = pubsub.get_message(timeout=LOOK_UP_SECONDS)
                now = time.monotonic()
                if message is None:
                    if now - heard > self._silence:
                        raise redis.TimeoutError("no answer to a ping")
                    if now - max(heard, asked) > self._silence / 3:
                        pubsub.ping()
                        asked = now
                    continue
                heard = now
                if message["type"] == "subscribe":
                    ear.connected()
                elif message["type"] == "message":
                    invalidation = Invalidation.decode(message["data"])
                    if invalidation is None:
                        log.warning("invalidations: one that this version does not know was passed over")
                    else:
                        ear.invalidated(invalidation)
