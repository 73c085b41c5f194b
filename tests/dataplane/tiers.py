"""A tier and a clock that tests hold in their hands."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from dataplane.tenant_config import DatabaseAddress, Status, TenantConfig
from dataplane.tiers import TierDown

SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:placements/{}/app-AbCdEf"
ROLE = "arn:aws:iam::123456789012:role/c-abcdefghijkl"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


class FakeTier:
    """Answers from `entries`. `down` makes it fail; with `gate` set a read waits in the middle: it has
    looked already (`looked` is set) and what it saw is what it will return."""

    def __init__(self, *configs: TenantConfig) -> None:
        self.entries = {config.host: config for config in configs}
        self.down = False
        self.gate: threading.Event | None = None
        self.looked = threading.Event()
        self.reads: Counter[str] = Counter()
        self._lock = threading.Lock()

    def put(self, config: TenantConfig) -> None:
        self.entries[config.host] = config

    def alive(self) -> None:
        """It has no pauses."""

    def read(self, host: str) -> TenantConfig | None:
        with self._lock:
            self.reads[host] += 1
        if self.down:
            raise TierDown("it is switched off")
        seen = self.entries.get(host)
        self.looked.set()
        if self.gate is not None:
            assert self.gate.wait(60)
        return seen


def config(host: str, epoch: int = 1, **changes: Any) -> TenantConfig:
    slug = host.split(".", maxsplit=1)[0]
    fields: dict[str, Any] = {
        "host": host,
        "tenant_id": f"t-{slug}",
        "slug": slug,
        "status": Status.ACTIVE,
        "epoch": epoch,
        "plan": "test",
        "pool_size": 5,
        "dedicated": False,
        "release": None,
        "placement": f"p-{slug}",
        "database": DatabaseAddress("127.0.0.1", 5432, f"t_{slug}", SECRET.format(f"p-{slug}"), ROLE),
        "profile": {},
    }
    return TenantConfig(**(fields | changes))
