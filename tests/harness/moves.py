"""The real engine between two real PostgreSQL servers, and the real data plane writing all the while.

Terraform and Secrets Manager are fakes; databases, cache, move and data plane are what ships. Each cluster
that the engine makes is given one of the servers, in turn.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from controlplane.localcloud.fakes.aws import (
    FakeAccount,
    encode,
    endpoint_of,
)
from controlplane.workers.providers.config_cache import RedisConfigCache
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.moves import PostgresMoves
from controlplane.workers.providers.ports import Credential
from dataplane.credentials import SecretsManagerCredentials
from dataplane.errors import DataPlaneError
from dataplane.settings import DataPlane, from_environment
from tests.engine.secrets_manager import SecretsManager
from tests.harness.databases import MASTER_PASSWORD, Server
from tests.harness.engine import ZONE, Harness

KEY = ("k1", b"movement" * 4)
HOST = f"customer-1.{ZONE}"
RETRY = 0.02  # seconds


@contextmanager
def moving_harness(
    registry_url: str, cache_url: str, servers: Sequence[Server], folder: Path, **options: Any
) -> Iterator[tuple[Harness, DataPlane]]:
    """One customer on a shared cluster, served. `options`: of `PostgresMoves`."""
    harness = Harness(registry_url)
    places = folder / "endpoints.json"
    places.write_text("{}")
    secrets, endpoints = harness.ctx.providers.secrets, EndpointMap(places)
    cache = RedisConfigCache(cache_url, [KEY])
    harness.ctx = replace(
        harness.ctx,
        providers=replace(
            harness.ctx.providers,
            databases=PostgresDatabases(secrets, endpoints, sslmode="disable"),
            moves=PostgresMoves(secrets, endpoints, sslmode="disable", **options),
            cache=cache,
        ),
    )
    homes: dict[str, Server] = {}

    def on_call(point: str) -> None:
        if not point.startswith("clusters.describe"):
            return
        account = FakeAccount(harness.world)
        master = encode(Credential("platform", MASTER_PASSWORD))
        for name in account.names("cluster"):
            homes.setdefault(name, servers[len(homes) % len(servers)])
            account.change("secret", f"rds!{name}", versions={"1": master}, current="1", deleting=False)
        places.write_text(
            json.dumps({f"{endpoint_of(c).host}:5432": f"127.0.0.1:{s.at.port}" for c, s in homes.items()})
        )

    harness.world._crash = on_call
    harness.hear(harness.subscribe(1), "customer.subscription.created")
    harness.work()
    manager = SecretsManager(harness)
    dataplane = from_environment(
        {
            "DATAPLANE_CONFIG_KEYS": f"{KEY[0]}:{base64.b64encode(KEY[1]).decode()}",
            "DATAPLANE_CACHE_URL": cache_url,
            "DATAPLANE_PLATFORM_ZONES": ZONE,
            "DATAPLANE_SSLMODE": "disable",
            "DATAPLANE_ENDPOINT_MAP": str(places),
        },
        credentials=SecretsManagerCredentials(session=manager),
    )
    try:
        yield harness, dataplane
    finally:
        dataplane.close()
        cache.close()
        harness.close()


@dataclass
class Journal:
    """Threads that write through the data plane at a steady rate, each row once, and keep what they were
    reported. `confirmed`: bodies whose commit was answered; `doubtful`: those whose commit got no answer,
    which may or may not be there. A write that was refused is counted and its body never used again."""

    dataplane: DataPlane
    rate: float
    threads: int = 4
    confirmed: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    moments: list[float] = field(default_factory=list)

    def __enter__(self) -> Journal:
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(self.threads)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def longest_gap(self) -> float:
        """Seconds between two confirmed writes, whoever made them."""
        moments = sorted(self.moments)
        return max((after - before for before, after in itertools.pairwise(moments)), default=0.0)

    def _run(self, number: int) -> None:
        due, sent = time.monotonic(), 0
        earlier = deque([0] * 7, maxlen=7)  # ids of this writer's last rows
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.threads / self.rate, time.monotonic() - 1.0)
            sent += 1
            body = f"{number}/{sent}"
            try:
                config = self.dataplane.resolver.resolve(HOST)
                with self.dataplane.pools.connection(config) as conn:
                    made = conn.execute("INSERT INTO note (body) VALUES (%s) RETURNING id", [body]).fetchone()
                    conn.execute("UPDATE note SET body = body || '+' WHERE id = %s", [earlier[0]])
            except (DataPlaneError, psycopg.Error) as error:
                with self._lock:
                    self.errors[type(error).__name__] += 1
                    if isinstance(error, psycopg.Error):
                        self.doubtful.add(body)
                time.sleep(RETRY)
            else:
                earlier.append(made[0] if made is not None else 0)
                with self._lock:
                    self.confirmed.add(body)
                    self.moments.append(time.monotonic())


def audit(journal: Journal, bodies: list[str]) -> tuple[list[str], list[str]]:
    """(rows that were confirmed and are lost, rows that are there twice or were never written), among those
    of the journal in `bodies`."""
    found = Counter(body.rstrip("+") for body in bodies)
    lost = [body for body in journal.confirmed if found[body] == 0]
    wrong = [body for body, times in found.items() if times > 1]
    wrong += [body for body in found if body not in journal.confirmed | journal.doubtful]
    return sorted(lost), sorted(wrong)
