"""Rotation while an application serves: no request fails, by the figures that the test prints.

Real PostgreSQL (its master has what RDS gives one), real Valkey, the real data plane under the sample
application, and the real engine; only Terraform and Secrets Manager are fakes. Small in `make test`; the
full size is asked for by its environment:

    ROTATION_LOAD_RATE=500 ROTATION_LOAD_ROTATIONS=5 pytest -s tests/engine/test_rotation_under_load.py
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from flask import Flask

from controlplane.actions.action import run
from controlplane.domain.placement import Placement
from controlplane.localcloud.fakes.aws import (
    FakeAccount,
    encode,
    endpoint_of,
)
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.workers.providers.config_cache import RedisConfigCache
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import Credential
from dataplane.credentials import SecretsManagerCredentials
from dataplane.settings import DataPlane, from_environment
from examples.notes.app import create_app
from tests.engine.secrets_manager import SecretsManager
from tests.harness.databases import (
    MASTER_PASSWORD,
    Server,
    run_server,
)
from tests.harness.engine import ZONE, Harness

RATE = float(os.environ.get("ROTATION_LOAD_RATE", "60"))  # requests a second, offered
ROTATIONS = int(os.environ.get("ROTATION_LOAD_ROTATIONS", "3"))
GRACE = 1.0  # seconds
THREADS = 8
KEY = ("k1", b"rotation" * 4)
HOST = f"customer-1.{ZONE}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server() as running:
        yield running


@pytest.fixture
def harness(
    registry: object, database_url: str, server: Server, cache: ValkeyServer, tmp_path: Path
) -> Iterator[Harness]:
    """On the real server and the real cache; each cluster that it makes is the one server."""
    opened = Harness(database_url, rotation_grace=GRACE)
    places = tmp_path / "endpoints.json"
    databases = PostgresDatabases(opened.ctx.providers.secrets, EndpointMap(places), sslmode="disable")
    real = RedisConfigCache(cache.url, [KEY])
    opened.ctx = replace(opened.ctx, providers=replace(opened.ctx.providers, databases=databases, cache=real))

    def on_apply(point: str) -> None:
        if point.startswith("clusters.describe"):
            account = FakeAccount(opened.world)
            clusters = account.names("cluster")
            master = encode(Credential("platform", MASTER_PASSWORD))
            for name in clusters:
                account.change("secret", f"rds!{name}", versions={"1": master}, current="1", deleting=False)
            hosts = {f"{endpoint_of(c).host}:5432": f"127.0.0.1:{server.at.port}" for c in clusters}
            places.write_text(json.dumps(hosts))

    opened.world._crash = on_apply
    subscription = opened.subscribe(1)
    opened.hear(subscription, "customer.subscription.created")
    opened.work()
    opened.world._crash = lambda _point: None
    yield opened
    real.close()
    opened.close()


@pytest.fixture
def dataplane(harness: Harness, cache: ValkeyServer, tmp_path: Path) -> Iterator[DataPlane]:
    manager = SecretsManager(harness)
    opened = from_environment(
        {
            "DATAPLANE_CONFIG_KEYS": f"{KEY[0]}:{base64.b64encode(KEY[1]).decode()}",
            "DATAPLANE_CACHE_URL": cache.url,
            "DATAPLANE_PLATFORM_ZONES": ZONE,
            "DATAPLANE_SSLMODE": "disable",
            "DATAPLANE_ENDPOINT_MAP": str(tmp_path / "endpoints.json"),
        },
        credentials=SecretsManagerCredentials(session=manager),
    )
    yield opened
    opened.close()


@dataclass
class Load:
    """Threads that ask for pages and write notes at a steady rate, and count the answers."""

    app: Flask
    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Load:
        self._started = time.monotonic()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
        self.seconds = time.monotonic() - self._started

    @property
    def rate(self) -> float:
        return self.answers.total() / self.seconds

    def _run(self, number: int) -> None:
        client = self.app.test_client()
        headers = {"Host": HOST, "Accept": "application/json"}
        due = time.monotonic() + number / RATE
        sent = number
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            began = time.monotonic()
            due = max(due + THREADS / RATE, began - 1.0)  # a stall is caught up with, but for a second
            sent += 1
            if sent % 4:
                answer = client.get("/", headers=headers)
            else:
                answer = client.post("/notes", json={"body": f"{number}/{sent}"}, headers=headers)
            with self._lock:
                self.answers[f"{answer.status_code}"] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            answer.close()


def rotate(harness: Harness, placed: Placement) -> None:
    """One rotation and the retirement of the login before, at the pace of a clock."""
    with harness.ctx.registry.connection() as conn:
        run(conn, "rotate", placed.tenant_id, actor="support", reason="load test")
    harness.work()
    time.sleep(GRACE)
    harness.grace_ends()
    harness.work()


@pytest.mark.timeout(600)
def test_no_request_fails_while_logins_are_rotated(
    harness: Harness, dataplane: DataPlane, server: Server
) -> None:
    placed = harness.placement("sub_00000001")
    secrets = harness.ctx.providers.secrets
    seen = [secrets.read(placed.app_secret)]
    app = create_app(dataplane)
    with Load(app) as load:
        for _ in range(ROTATIONS):
            time.sleep(0.5)
            rotate(harness, placed)
            seen.append(secrets.read(placed.app_secret))
        time.sleep(0.5)
    print(
        f"\n{ROTATIONS} rotations in {load.seconds:.1f} s at {load.rate:.0f} requests/s:"
        f" {dict(load.answers)}, slowest {load.slowest * 1000:.0f} ms,"
        f" {dataplane.pools.statistics}"
    )
    assert set(load.answers) <= {"200", "201"}, load.answers
    assert load.answers["200"] > 0
    assert load.answers["201"] > 0
    assert len({credential.password for credential in seen}) == ROTATIONS + 1
    assert [credential.username for credential in seen] == [
        placed.app_roles[n % 2] for n in range(ROTATIONS + 1)
    ]
    with server.superuser() as conn:
        left = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (seen[-2].username,)
        ).fetchone()
    assert left == (0,)
    assert [harness.lets_in(placed, credential) for credential in seen] == [False] * ROTATIONS + [True]


def test_who_heard_no_notice_asks_again_when_refused(
    harness: Harness, dataplane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.ctx.providers.cache, "notify_credential", lambda _tenant_id: None)
    client = create_app(dataplane).test_client()
    headers = {"Host": HOST, "Accept": "application/json"}
    placed = harness.placement("sub_00000001")
    assert client.get("/", headers=headers).status_code == 200
    for _ in range(2):
        rotate(harness, placed)
        for _ in range(3):
            assert client.get("/", headers=headers).status_code == 200
    assert dataplane.pools.statistics.broken == 2


def test_a_notice_moves_idle_connections_before_the_old_login_ends(
    harness: Harness, dataplane: DataPlane, server: Server
) -> None:
    client = create_app(dataplane).test_client()
    headers = {"Host": HOST, "Accept": "application/json"}
    placed = harness.placement("sub_00000001")
    assert client.get("/", headers=headers).status_code == 200
    with harness.ctx.registry.connection() as conn:
        run(conn, "rotate", placed.tenant_id, actor="support", reason="test")
    harness.work()
    until = time.monotonic() + 10
    while users(server, placed) and time.monotonic() < until:
        time.sleep(0.02)
    assert users(server, placed) == set()
    assert client.get("/", headers=headers).status_code == 200
    assert users(server, placed) == {placed.app_roles[1]}
    assert dataplane.pools.statistics.broken == 0


def users(server: Server, placed: Placement) -> set[str]:
    """Who is connected."""
    with server.superuser() as conn:
        rows = conn.execute(
            "SELECT DISTINCT usename::text FROM pg_stat_activity WHERE datname = %s", (placed.database,)
        ).fetchall()
    return {name for (name,) in rows}
