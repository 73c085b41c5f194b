"""`ports.ConfigCache` without Redis: each host's payload is a row of the `World`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from controlplane.domain.errors import Invalid, Retryable
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.config_cache import tombstone
from controlplane.workers.providers.ports import PublishedConfig
from dataplane.tenant_config import (
    LIFETIME_SECONDS,
    REISSUE_SECONDS,
    TenantConfig,
    TenantConfigError,
    issued,
    undated,
)

ENTRY = "config-entry"
NOT_AFTER = "config-not-after"
INVALIDATIONS = "config-invalidations"
CACHE_DOWN = "config-cache-down"


class FakeConfigCache:
    """Counts the invalidations by host, or by tenant id where a login has changed (`invalidations`); `down`
    makes every call Retryable; `flush` is FLUSHALL."""

    def __init__(self, world: World, *, now: Callable[[], float] = time.time) -> None:
        self.world = world
        self._now = now

    def down(self, *, down: bool = True) -> None:
        if down:
            self.world.put(CACHE_DOWN, "", True)
        else:
            self.world.drop(CACHE_DOWN, "")

    def flush(self) -> None:
        for host in self.world.all(ENTRY):
            self.world.drop(ENTRY, host)

    def invalidations(self, about: str) -> int:
        return self.world.get(INVALIDATIONS, about) or 0

    def read(self, host: str) -> PublishedConfig | None:
        with self.world.call("config_cache.read"):
            self._reach()
            payload = self.world.get(ENTRY, host)
        return None if payload is None else PublishedConfig(host, payload["epoch"], payload, self._end(host))

    def publish(self, payload: dict[str, Any], *, instead_of: int | None = None) -> bool:
        with self.world.call("config_cache.publish"):
            self._reach()
            return self._write(payload, instead_of)

    def remove(self, host: str, *, epoch: int, instead_of: int | None = None) -> bool:
        with self.world.call("config_cache.remove"):
            self._reach()
            return self._write(tombstone(host, epoch), instead_of)

    def publish_many(self, payloads: Iterable[dict[str, Any]], *, newer: list[str] | None = None) -> int:
        failed: list[Invalid] = []
        written = 0
        with self.world.call("config_cache.publish_many"):
            self._reach()
            for payload in payloads:
                host = payload["host"]
                stands = REISSUE_SECONDS < self._end(host) - self._now() <= LIFETIME_SECONDS
                if stands and self.world.get(ENTRY, host) == undated(payload):
                    continue
                try:
                    if self._write(payload):
                        written += 1
                    elif newer is not None:
                        newer.append(payload["host"])
                except Invalid as error:
                    failed.append(error)
        if failed:
            raise failed[0]
        return written

    def hosts(self) -> Iterator[str]:
        with self.world.call("config_cache.hosts"):
            self._reach()
            yield from self.world.all(ENTRY)

    def notify_credential(self, tenant_id: str) -> None:
        with self.world.call("config_cache.notify_credential"):
            self._reach()
            self.world.count(INVALIDATIONS, tenant_id)

    def entries(self) -> Iterator[tuple[str, PublishedConfig | None]]:
        for host in self.hosts():
            yield host, self.read(host)

    def ping(self) -> None:
        self._reach()

    def _write(self, payload: dict[str, Any], instead_of: int | None = None) -> bool:
        try:
            config = TenantConfig.from_payload(issued(payload, at=self._now()))
            text = json.dumps(undated(payload), allow_nan=False)
        except (TenantConfigError, TypeError, ValueError) as error:
            raise Invalid("tenant config", f"a TenantConfig v2 ({error})") from error
        swapped = False
        while not swapped:
            found = self.world.get(ENTRY, config.host)
            if found is not None and found["epoch"] > config.epoch and found["epoch"] != instead_of:
                return False
            swapped = self.world.swap(ENTRY, config.host, found, json.loads(text))
        self.world.put(NOT_AFTER, config.host, config.not_after)
        self.world.count(INVALIDATIONS, config.host)
        return True

    def _end(self, host: str) -> int:
        """One that a test has planted was issued a moment ago."""
        return int(self.world.get(NOT_AFTER, host) or self._now() + LIFETIME_SECONDS)

    def _reach(self) -> None:
        if self.world.get(CACHE_DOWN, ""):
            raise Retryable("config cache: ConnectionError")
