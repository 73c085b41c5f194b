"""The fake server's one zone: its hostnames, its quota, and how fast things go there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from controlplane.localcloud.servers.fake_http.store import Object, ObjectStore


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds after a hostname is made (or checked anew). `records`: until the certificate's
    validation records appear; `ownership`: until the hostname is active; `certificate`: until its
    certificate is. In production these are minutes to days, and the customer's to make."""

    records: float = 0.5
    ownership: float = 1.0
    certificate: float = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`requests` in `window` seconds, over all tokens; more, and everything is refused for a window."""

    requests: int = 1200
    window: float = 300


@dataclass(slots=True)
class Zone:
    """`quota`: hostnames it may hold (0: none allocated). `metadata`, `origins`: features that a
    plan has or has not; `origins` are the names custom origins may use, None where the plan has none."""

    id: str
    token: str = field(repr=False)
    store: ObjectStore
    timings: Timings = field(default_factory=Timings)
    limits: Limits = field(default_factory=Limits)
    quota: int = 1000
    metadata: bool = True
    origins: frozenset[str] | None = None
    fallback_origin: str = "fallback.saas.internal"
    unsuccessful: int = 0  # so many answers say 200 and `success: false`
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        """A new zone has its fallback origin, as set up once by the company that owns it."""
        if self.store.get("state", "zone") is None:
            now = time.time()
            self.store.put("state", "zone", {"id": self.id}, created=now)
            if self.fallback_origin:
                body: Object = {
                    "origin": self.fallback_origin,
                    "created_at": now,
                    "updated_at": now - self.timings.records,
                }
                self.store.put("fallback_origin", "zone", body, created=now)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """One API call: all or nothing."""
        with self.store.transaction():
            yield
