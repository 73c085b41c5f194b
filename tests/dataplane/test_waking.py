"""A visitor of a tenant whose cluster is paused is served as soon as it is up, or learns it: over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis
from werkzeug.test import Client, TestResponse

from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.context import tenant_connection
from dataplane.credentials import StaticCredentials
from dataplane.settings import DataPlane, from_environment
from tests.dataplane.proxy import Proxy
from tests.dataplane.resolving import eventually
from tests.dataplane.tenants import KEYS, Logins, TenantDatabase

PATIENCE = 60  # seconds: for what comes to pass by itself, on a busy machine


def read_canary(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    with tenant_connection() as conn:
        row = conn.execute("SELECT body FROM note ORDER BY id LIMIT 1").fetchone()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(row and row[0]).encode()]


class Harness:
    """An application, and visitors of it."""

    def __init__(self, env: dict[str, str], logins: Logins) -> None:
        self.dataplane: DataPlane = from_environment(env, credentials=StaticCredentials(logins.logins))
        self._client = self.dataplane.wsgi(read_canary)
        self._threads = ThreadPoolExecutor(32)

    def visit(self, tenant: TenantDatabase, accept: str = "text/html") -> Future[TestResponse]:
        headers = {"Host": tenant.host, "Accept": accept}
        return self._threads.submit(lambda: Client(self._client).get("/", headers=headers, buffered=True))

    def close(self) -> None:
        self._threads.shutdown()
        self.dataplane.close()


@pytest.fixture
def env(cache: ValkeyServer) -> dict[str, str]:
    return {
        "DATAPLANE_CONFIG_KEYS": "k1:" + base64.b64encode(KEYS["k1"]).decode(),
        "DATAPLANE_CACHE_URL": cache.url,
        "DATAPLANE_SSLMODE": "disable",
    }


@pytest.fixture
def awake(tenants: list[TenantDatabase], cache_client: redis.Redis) -> TenantDatabase:
    cache_client.set(*tenants[1].entry())
    return tenants[1]


@pytest.fixture
def sleeper(
    tenants: list[TenantDatabase], cache_client: redis.Redis, proxy: Proxy
) -> Iterator[TenantDatabase]:
    tenant = tenants[0]
    tenant.port = proxy.port
    cache_client.set(*tenant.entry(profile={"pauses": True}))
    proxy.mode = "hold"
    yield tenant
    tenant.port = None


@pytest.fixture
def harness(env: dict[str, str], logins: Logins) -> Iterator[Harness]:
    harness = Harness(env, logins)
    yield harness
    harness.close()


def test_a_visitor_waits_as_long_as_aurora_needs_and_nobody_else_with_them(
    harness: Harness, sleeper: TenantDatabase, awake: TenantDatabase, proxy: Proxy
) -> None:
    transport = harness.dataplane.pools._connector.transport
    assert transport.wake == 45, "over 30 seconds after a day of sleep, below the 60 of a load balancer"
    first, second = harness.visit(sleeper), harness.visit(sleeper)
    eventually(lambda: proxy.accepted == 2, PATIENCE)
    others = [harness.visit(sleeper) for _ in range(4)]
    for other in others:  # those in line behind them wait as long as for any connection, 5 seconds
        reported = other.result(PATIENCE)
        assert (reported.status_code, reported.headers["Retry-After"]) == (503, "5")
        assert "Waking up" in reported.text
    assert proxy.accepted == 2, "no more than two of a tenant's connects are under way"
    for _ in range(20):
        assert harness.visit(awake).result(PATIENCE).text == awake.canary
    assert not first.done()
    assert not second.done()
    proxy.mode = "pass"
    for visitor in (first, second):
        served = visitor.result(PATIENCE)
        assert (served.status_code, served.text) == (200, sleeper.canary)


def test_past_the_bound_the_page_says_so_and_comes_back_by_itself(
    env: dict[str, str], logins: Logins, sleeper: TenantDatabase, proxy: Proxy
) -> None:
    harness = Harness(env | {"DATAPLANE_WAKE_SECONDS": "3"}, logins)
    try:
        page = harness.visit(sleeper).result(PATIENCE)
        assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
        assert page.headers["Cache-Control"] == "no-store"
        assert '<meta http-equiv="refresh" content="5">' in page.text
        assert "was asleep and is starting" in page.text
        answer = harness.visit(sleeper, "application/json").result(PATIENCE)
        assert (answer.status_code, answer.json and answer.json["error"]) == (503, "waking")
        proxy.mode = "pass"
        eventually(lambda: harness.visit(sleeper).result(PATIENCE).status_code == 200, PATIENCE)
    finally:
        harness.close()
