"""One budget of connections to a cluster over a fleet in which Python and Node processes are mixed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane import fleet
from dataplane.connect import Connector, Transport
from dataplane.credentials import Credential, StaticCredentials
from dataplane.endpoints import EndpointMap
from dataplane.errors import PoolExhausted
from dataplane.fleet import KEY_PREFIX, FleetBudget
from dataplane.pools import KeyedPools
from dataplane.tenant_config import TenantConfig
from tests.browser.app import App
from tests.browser.conftest import CLUSTER_BUDGET, ZONE
from tests.browser.endpoints import EndpointFile
from tests.browser.package import REPOSITORY, build_tests, require
from tests.browser.tenants import DATABASE_HOST, DATABASE_PORT, Platform, Tenant

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first one builds the example

CLUSTER = "c.example:5432"
LEASE = 1.5  # seconds
ANSWER_SECONDS = 30


class Node:
    """`test/real/member.ts` as a process: `tell("acquire", cluster)` is what it answered."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, act: str, cluster: str = CLUSTER) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(act, cluster, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"{act}: the process has ended with {self.process.wait(5)}"
        return json.loads(answer)


Members = Callable[..., Node]


@pytest.fixture
def members(
    package: Path, cache: ValkeyServer, platform: Platform, globex: Tenant, endpoints: EndpointFile
) -> Iterator[Members]:
    """Starts Node processes of the fleet, with globex for a tenant."""
    build_tests(package)
    given = {
        "payload": platform.config(globex, globex.host),
        "login": platform.login(globex),
        "endpointMap": str(endpoints.path),
    }
    started: list[subprocess.Popen[str]] = []

    def start(limit: int) -> Node:
        given_fleet = {"cache": cache.url, "limit": limit, "lease": LEASE * 1000}
        process = subprocess.Popen(
            [require("node", "nodejs (20 or newer)"), package / "build" / "test" / "real" / "member.js"],
            env={**os.environ, "TEST_TENANT": json.dumps(given), "TEST_FLEET": json.dumps(given_fleet)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return Node(process)

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=ANSWER_SECONDS)


def python_member(cache: ValkeyServer, limit: int) -> FleetBudget:
    budget = FleetBudget.from_url(cache.url, limit=limit)
    budget.lease = LEASE
    return budget


def counts(url: str, cluster: str = CLUSTER) -> list[int]:
    """What each process is said to hold, the least first."""
    with redis.Redis.from_url(url, protocol=2) as client:
        fields: dict[bytes, bytes] = client.hgetall(KEY_PREFIX + cluster)
    return sorted(int(value.partition(b":")[0]) for value in fields.values())


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_both_ask_by_the_same_script() -> None:
    assert fleet._CLAIM in (REPOSITORY / "dataplane" / "nextjs" / "src" / "fleet.ts").read_text()


def test_python_and_node_share_one_budget(cache: ValkeyServer, members: Members) -> None:
    node, other, python = members(5), members(5), python_member(cache, 5)
    granted = [
        ask() for _ in range(3) for ask in (lambda: node.tell("acquire"), lambda: python.acquire(CLUSTER))
    ]
    assert granted == [True] * 5 + [False]
    assert counts(cache.url) == [2, 3]
    assert not other.tell("acquire")
    assert other.tell("acquire", "other.example:5432"), "each cluster has its own"
    python.release(CLUSTER)
    assert other.tell("acquire")
    assert not python.acquire(CLUSTER)
    node.tell("release")
    assert python.acquire(CLUSTER)
    assert counts(cache.url) == [1, 2, 2]


def test_a_node_that_lives_keeps_its_lease_and_one_that_is_killed_loses_it(
    cache: ValkeyServer, members: Members
) -> None:
    node, python = members(2), python_member(cache, 2)
    assert [node.tell("acquire") for _ in range(3)] == [True, True, False]
    time.sleep(LEASE * 1.5)
    assert not python.acquire(CLUSTER), "it beats"
    node.process.kill()
    node.process.wait(5)
    assert not python.acquire(CLUSTER), "its lease holds a while longer"
    eventually(lambda: python.acquire(CLUSTER))


def test_a_node_writes_its_count_again_after_the_cache_lost_it(cache: ValkeyServer, members: Members) -> None:
    node, python = members(2), python_member(cache, 2)
    assert [node.tell("acquire") for _ in range(2)] == [True, True]
    with redis.Redis.from_url(cache.url) as client:
        client.flushall()
    eventually(lambda: counts(cache.url) == [2])
    assert not python.acquire(CLUSTER)


def test_both_have_their_share_without_redis_and_find_each_other_after(
    cache: ValkeyServer, members: Members
) -> None:
    node, python = members(8), python_member(cache, 8)
    assert node.tell("acquire")
    assert python.acquire(CLUSTER)
    cache.kill()
    assert [node.tell("acquire") for _ in range(2)] == [True, False], "two of eight"
    assert [python.acquire(CLUSTER) for _ in range(2)] == [True, False]
    node.tell("release")
    assert node.tell("held") == 1
    cache.start()

    def both_are_counted() -> bool:
        python.beat()
        return counts(cache.url) == [1, 2]

    eventually(both_are_counted)
    assert [node.tell("acquire") for _ in range(6)] == [True] * 5 + [False]


def test_pools_of_both_share_a_cluster(
    cache: ValkeyServer, members: Members, platform: Platform, globex: Tenant, endpoints: EndpointFile
) -> None:
    cluster = f"{DATABASE_HOST}:{DATABASE_PORT}"
    node, budget = members(2), python_member(cache, 2)
    login = Credential(**platform.login(globex))
    connector = Connector(
        StaticCredentials({globex.tenant_id: login}),
        Transport(sslmode="disable", endpoints=EndpointMap(endpoints.path)),
    )
    pools = KeyedPools(connector, fleet=budget)
    config = TenantConfig.from_payload(platform.config(globex, globex.host))
    assert node.tell("checkout") is True
    with pools.connection(config) as conn:
        conn.execute("SELECT 1")
        assert counts(cache.url, cluster) == [1, 1]
        with pytest.raises(PoolExhausted) as refused:
            pools.checkout(config)
        assert node.tell("checkout") == {
            "code": refused.value.code,
            "status": refused.value.status,
            "retryAfter": refused.value.retry_after,
        }
    pools.close()
    assert counts(cache.url, cluster) == [1]
    node.tell("checkin")
    node.tell("close")
    assert counts(cache.url, cluster) == []


def test_the_application_counts_in_it_and_is_busy_where_it_is_used_up(
    app: App, platform: Platform, config_cache: ValkeyServer, endpoints: EndpointFile
) -> None:
    crowded = "c-crowded.cluster.internal.invalid"
    endpoints.add(crowded, platform.postgres.port)
    tenant = Tenant("t-browsercrowd", "crowd", (f"crowd.{ZONE}",), ("Crowd canary",))
    platform.create(tenant)
    payload = platform.config(tenant, tenant.host)
    payload["database"]["host"] = crowded
    platform.publish(payload)
    others = FleetBudget.from_url(config_cache.url, limit=CLUSTER_BUDGET)
    cluster = f"{crowded}:{DATABASE_PORT}"
    assert all(others.acquire(cluster) for _ in range(CLUSTER_BUDGET))
    answer = app.get(tenant.host)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "Very busy" in answer.text
    others.release(cluster)
    assert app.get(tenant.host).status == 200
    assert counts(config_cache.url, cluster) == [1, CLUSTER_BUDGET - 1]
