"""Where a routing entry is read from when this process does not know it.

Two tiers stand behind the memory of a process, asked in this order: the config cache (Redis), then
what the cache was filled from (the control plane's resolve endpoint, or a read-only registry). A
tier has three answers and they must never be mixed up, or an outage would look like a customer who
has left: the entry, "there is none" (None), and "I can't tell" (TierDown).

Each tier bounds its own time, and after a failure answers TierDown at once for `pause` seconds but
for a single caller who tries again; so a dead server costs one timeout a second, not one a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dataplane.tenant_config import MAX_ENTRY_BYTES, TenantConfig, TenantConfigError, cache_key, verify

log = logging.getLogger(__name__)


class TierDown(Exception):
    """The tier can't tell whether the host has an entry."""


class EntryRefused(TierDown):
    """There is an entry, and it is not one that may be trusted: whose it is can't be known."""


class Tier(Protocol):
    def read(self, host: str) -> TenantConfig | None:
        """The entry of a normalised host, a tombstone (status "gone") included; None where the tier
        knows that there is none. Raises TierDown."""
        ...

    def alive(self) -> None:
        """A sign of life came from elsewhere: the next read need not wait for a pause to end."""
        ...


class Pause:
    """After a failure nobody is let through for `seconds`, then one caller at a time until it works."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._until: float | None = None  # None: all is well

    def check(self) -> None:
        """Raises TierDown during a pause."""
        if self._until is None:
            return
        with self._lock:
            now = self._clock()
            if self._until is not None and now < self._until:
                raise TierDown("it did not answer a moment ago")
            self._until = now + self._seconds  # this caller tries, the others go on waiting

    def failed(self) -> None:
        with self._lock:
            self._until = self._clock() + self._seconds

    def worked(self) -> None:
        if self._until is not None:
            self._until = None


class RedisTier:
    """The config cache: signed entries under `tenant:host:<host>`.

    `keys`: key id → secret, all of them verify. An entry that none of them signed for this host, or
    that is not a TenantConfig, raises EntryRefused: the next tier is asked, and nobody is served
    from it.
    """

    def __init__(self, client: redis.Redis, keys: Mapping[str, bytes], *, pause: float = 1.0) -> None:
        """`client` has short timeouts of its own: `from_url` sets them."""
        self._client = client
        self._keys = dict(keys)
        self._pause = Pause(pause)
        self.refused = 0

    @classmethod
    def from_url(
        cls, url: str, keys: Mapping[str, bytes], *, timeout: float = 0.3, connections: int = 32
    ) -> RedisTier:
        """`timeout`: seconds for a connect, for an answer, and for a free connection of the pool."""
        return cls(connect_redis(url, timeout=timeout, connections=connections), keys)

    def read(self, host: str) -> TenantConfig | None:
        self._pause.check()
        try:
            # One command, and a bound on what may come back: GET has none. Nothing there reads as "".
            entry: Any = self._client.getrange(cache_key(host), 0, MAX_ENTRY_BYTES)
        except redis.ResponseError as error:
            raise self._refuse(host, str(error)) from error
        except (redis.RedisError, OSError) as error:
            self._pause.failed()
            raise TierDown(f"cache: {type(error).__name__}") from error
        self._pause.worked()
        if not entry:
            return None
        try:
            return TenantConfig.from_payload(verify(entry, host=host, keys=self._keys))
        except TenantConfigError as error:
            raise self._refuse(host, str(error)) from error

    def alive(self) -> None:
        self._pause.worked()

    def _refuse(self, host: str, reason: str) -> EntryRefused:
        self.refused += 1
        log.error("cache: the entry of %s is refused: %s", host, reason)
        return EntryRefused(f"cache: {reason}")


class RegistryTier:
    """A read-only registry of one's own: any callable that returns the entry, or None for no tenant.

    It reads what is committed, not a replica that lags: its word stands above the cache's. Whatever it raises
    counts as "can't tell".
    """

    def __init__(self, read: Callable[[str], TenantConfig | None], *, pause: float = 1.0) -> None:
        self._read = read
        self._pause = Pause(pause)

    def read(self, host: str) -> TenantConfig | None:
        self._pause.check()
        try:
            config = self._read(host)
        except Exception as error:
            self._pause.failed()
            raise TierDown(f"registry: {type(error).__name__}") from error
        self._pause.worked()
        if config is not None and config.host != host:
            raise EntryRefused("registry: the entry is another host's")
        return config

    def alive(self) -> None:
        self._pause.worked()


def connect_redis(url: str, *, timeout: float, connections: int) -> redis.Redis:
    """A client with bounded time and connections. One retry, for a connection that went stale."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        protocol=2,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    return redis.Redis(connection_pool=pool)
