"""One budget of connections to a cluster, over processes that come, die and lose their Redis."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace

import psycopg
import pytest
import redis

from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.async_pools import AsyncKeyedPools
from dataplane.errors import DatabaseUnavailable, PoolExhausted
from dataplane.fleet import KEY_PREFIX, FleetBudget
from dataplane.pools import KeyedPools
from tests.dataplane.resolving import eventually
from tests.dataplane.tenants import Logins, TenantDatabase

CLUSTER = "c.example:5432"


def member(cache: ValkeyServer, limit: int = 5, lease: float = 30.0) -> FleetBudget:
    budget = FleetBudget.from_url(cache.url, limit=limit)
    budget.lease = lease
    return budget


def test_together_they_stay_within_the_limit(cache: ValkeyServer) -> None:
    members = [member(cache) for _ in range(3)]
    granted = [m.acquire(CLUSTER) for _ in range(4) for m in members]
    assert granted.count(True) == 5
    assert members[0].acquire("other.example:5432"), "each cluster has its own"
    members[0].release(CLUSTER)
    assert members[2].acquire(CLUSTER)
    assert not members[1].acquire(CLUSTER)


def test_threads_and_members_at_once_never_exceed_it(cache: ValkeyServer, cache_client: redis.Redis) -> None:
    members = [member(cache, limit=7) for _ in range(4)]
    most = 0
    held = 0
    lock = threading.Lock()

    def work(m: FleetBudget) -> None:
        nonlocal most, held
        for _ in range(60):
            if m.acquire(CLUSTER):
                with lock:
                    held += 1
                    most = max(most, held)
                time.sleep(0.002)
                with lock:
                    held -= 1
                m.release(CLUSTER)

    threads = [threading.Thread(target=work, args=(m,)) for m in members * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 1 < most <= 7
    assert cache_client.hgetall(KEY_PREFIX + CLUSTER) == {}


def hold(url: str, number: int, ready: object) -> None:
    budget = FleetBudget.from_url(url, limit=5)
    budget.lease = 0.5
    for _ in range(number):
        assert budget.acquire(CLUSTER)
    ready.set()  # type: ignore[attr-defined]
    while True:
        budget.beat()
        time.sleep(0.1)


def test_what_a_killed_process_held_is_free_again(cache: ValkeyServer) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(cache.url, 5, ready))
    process.start()
    try:
        assert ready.wait(30)
        survivor = member(cache)
        time.sleep(0.8)
        assert not survivor.acquire(CLUSTER), "it beats: its lease holds"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(5)
        assert not survivor.acquire(CLUSTER), "and a while longer"
        eventually(lambda: survivor.acquire(CLUSTER))
    finally:
        process.kill()
        process.join()


def test_a_count_lost_with_the_cache_is_back_after_a_beat(
    cache: ValkeyServer, cache_client: redis.Redis
) -> None:
    first, second = member(cache, limit=2), member(cache, limit=2)
    assert first.acquire(CLUSTER)
    assert first.acquire(CLUSTER)
    cache_client.flushall()
    first.beat()
    assert not second.acquire(CLUSTER)


def test_with_redis_away_each_has_its_share(cache: ValkeyServer) -> None:
    budget = FleetBudget.from_url(cache.url, limit=8, share=3)
    assert budget.acquire(CLUSTER)
    cache.kill()
    assert [budget.acquire(CLUSTER) for _ in range(4)] == [True, True, False, False]
    budget.release(CLUSTER)
    budget.beat()
    assert budget.held(CLUSTER) == 2
    cache.start()
    time.sleep(1.05)
    budget.beat()
    other = member(cache, limit=8)
    assert budget.acquire(CLUSTER)
    assert [other.acquire(CLUSTER) for _ in range(6)] == [True] * 5 + [False]


def test_limits_are_checked(cache_client: redis.Redis) -> None:
    with pytest.raises(ValueError, match="limit: expected at least 1, got 0"):
        FleetBudget(cache_client, limit=0)


def test_pools_of_two_processes_share_a_cluster(
    cache: ValkeyServer, logins: Logins, tenants: list[TenantDatabase]
) -> None:
    one = KeyedPools(logins.connector(), fleet=member(cache, limit=2))
    two = KeyedPools(logins.connector(), fleet=member(cache, limit=2))
    acme, globex, initech = (tenant.config() for tenant in tenants)
    with one.connection(acme), two.connection(acme):
        with pytest.raises(PoolExhausted, match="its cluster has no connection left for us"):
            one.checkout(globex)
        assert one.open_connections == (1, 0)
    with one.connection(globex) as conn:  # in place of its own idle one
        conn.execute("SELECT 1")
    assert one.open_connections == (1, 0)
    two.close()
    with one.connection(globex), one.connection(initech):
        pass
    one.close()
    assert (one._fleet and one._fleet._held, two._fleet and two._fleet._held) == ({}, {})


def test_failed_and_broken_connections_give_their_claim_back(
    cache: ValkeyServer, logins: Logins, tenants: list[TenantDatabase]
) -> None:
    fleet = member(cache, limit=1)
    pools = KeyedPools(logins.connector(), fleet=fleet)
    database = tenants[0].config().database
    assert database is not None
    nowhere = tenants[0].config(database=replace(database, port=1))
    with pytest.raises(DatabaseUnavailable):
        pools.checkout(nowhere)
    assert fleet.held("127.0.0.1:1") == 0
    with pytest.raises(psycopg.Error), pools.connection(tenants[1].config()) as conn:
        conn.execute("no SQL")
    with pytest.raises(psycopg.Error), pools.connection(tenants[2].config()) as conn:
        conn.close()
    assert not fleet._held
    pools.close()


async def use(pools: AsyncKeyedPools, tenant: TenantDatabase) -> None:
    async with pools.connection(tenant.config()) as conn:
        await conn.execute("SELECT 1")


def test_pools_for_coroutines_share_it_too(
    cache: ValkeyServer, logins: Logins, tenants: list[TenantDatabase]
) -> None:
    async def run() -> None:
        fleet = member(cache, limit=1, lease=0.3)
        pools = AsyncKeyedPools(logins.connector(), fleet=fleet)
        other = member(cache, limit=1)
        async with pools.connection(tenants[0].config()):
            with pytest.raises(PoolExhausted):
                await pools.connection(tenants[1].config()).__aenter__()
            await asyncio.sleep(0.7)
            assert not other.acquire(f"127.0.0.1:{tenants[0].server.port}"), "it beats"
        async with pools.connection(tenants[1].config()):
            pass
        for step in range(20):  # requests that go away at any moment leave no claim behind
            await pools.retire(tenants[0].tenant_id)
            task = asyncio.create_task(use(pools, tenants[0]))
            await asyncio.sleep(step * 0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await pools.close()
        assert not fleet._held

    asyncio.run(run())
