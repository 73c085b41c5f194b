"""One budget for the process: connections of threads and of coroutines together."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.credentials import StaticCredentials
from dataplane.errors import PoolExhausted
from dataplane.settings import DataPlane, from_environment
from dataplane.tenant_config import TenantConfig
from tests.dataplane.tenants import KEYS, Logins, TenantDatabase

PATIENCE = 60.0  # seconds


@pytest.fixture
def plane(cache: ValkeyServer, logins: Logins) -> Iterator[Callable[[int], DataPlane]]:
    with contextlib.ExitStack() as made:

        def make(budget: int) -> DataPlane:
            env = {
                "DATAPLANE_CONFIG_KEYS": "k1:" + base64.b64encode(KEYS["k1"]).decode(),
                "DATAPLANE_CACHE_URL": cache.url,
                "DATAPLANE_SSLMODE": "prefer",
                "DATAPLANE_POOL_BUDGET": str(budget),
            }
            plane = from_environment(env, credentials=StaticCredentials(logins.logins))
            made.callback(plane.close)
            return plane

        yield make


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def backends(server: PostgresServer, tenants: list[TenantDatabase], condition: str = "true") -> int:
    with tenants[0].admin("postgres") as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY(%s) AND " + condition,  # type: ignore[arg-type]
            [[tenant.credential.username for tenant in tenants]],
        ).fetchone()
    assert row is not None
    number: int = row[0]
    return number


async def use_async(plane: DataPlane, config: TenantConfig, timeout: float = PATIENCE) -> str:
    async with plane.async_pools.connection(config, timeout=timeout) as conn:
        row = await (await conn.execute("SELECT current_database()")).fetchone()
        assert row is not None
        return str(row[0])


def use(plane: DataPlane, config: TenantConfig, timeout: float = PATIENCE) -> str:
    with plane.pools.connection(config, timeout=timeout) as conn:
        row = conn.execute("SELECT current_database()").fetchone()
        assert row is not None
        return str(row[0])


def test_what_one_kind_holds_the_other_can_not_have(
    plane: Callable[[int], DataPlane], postgres_server: PostgresServer, tenants: list[TenantDatabase]
) -> None:
    acme, globex, initech = tenants
    one = plane(2)

    async def run() -> None:
        async with one.async_pools.connection(acme.config()):
            with one.pools.connection(globex.config()):
                with pytest.raises(PoolExhausted):
                    await use_async(one, initech.config(), timeout=0.1)
                with pytest.raises(PoolExhausted):
                    use(one, initech.config(), timeout=0.1)
                assert one.pools.open_connections == one.async_pools.open_connections == (2, 0)
                assert backends(postgres_server, tenants) == 2
        # Both are idle. Each kind gets its own, and the other's is closed where room is needed.
        assert use(one, globex.config()) == globex.name
        assert one.pools.statistics.opened == 1
        assert use(one, initech.config()) == initech.name
        assert await use_async(one, initech.config()) == initech.name
        eventually(lambda: backends(postgres_server, tenants) == 2)
        await one.async_pools.close()

    asyncio.run(run())
    eventually(lambda: backends(postgres_server, tenants) == one.pools.open_connections[0])


def test_the_tenants_own_limit_is_over_both_kinds(
    plane: Callable[[int], DataPlane], tenants: list[TenantDatabase]
) -> None:
    one = plane(9)
    config = tenants[0].config(pool_size=1)

    async def run() -> None:
        async with one.async_pools.connection(config):
            with pytest.raises(PoolExhausted):
                use(one, config, timeout=0.1)
        assert use(one, config) == tenants[0].name, "the idle one of the other kind makes room"
        assert await use_async(one, config) == tenants[0].name
        assert one.pools.open_connections == (1, 0)
        await one.async_pools.close()

    asyncio.run(run())


@pytest.mark.parametrize("same", [True, False])
def test_a_waiter_is_woken_by_what_the_other_kind_gives_back(
    same: bool, plane: Callable[[int], DataPlane], tenants: list[TenantDatabase]
) -> None:
    one = plane(1)
    holder, waiter = tenants[0].config(), tenants[0 if same else 1].config()
    name = tenants[0 if same else 1].name

    async def run() -> None:
        held = one.pools.checkout(holder)
        waiting = asyncio.create_task(use_async(one, waiter))
        while not one.async_pools.statistics.waited:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(one.pools.checkin, held)
        assert await waiting == name

        async with one.async_pools.connection(holder):
            in_thread = asyncio.create_task(asyncio.to_thread(use, one, waiter))
            while not one.pools.statistics.waited:
                await asyncio.sleep(0.01)
        assert await in_thread == name
        assert one.pools.open_connections == (1, 0)
        await one.async_pools.close()

    asyncio.run(asyncio.wait_for(run(), PATIENCE * 2))


def test_a_waiter_that_was_cancelled_leaves_its_turn_to_the_other_kind(
    plane: Callable[[int], DataPlane], tenants: list[TenantDatabase]
) -> None:
    one = plane(1)
    acme, globex, _ = (tenant.config() for tenant in tenants)

    async def run() -> None:
        held = one.pools.checkout(acme)
        waiting = asyncio.create_task(use_async(one, globex))
        while not one.async_pools.statistics.waited:
            await asyncio.sleep(0.01)
        behind = asyncio.create_task(asyncio.to_thread(use, one, globex))
        while not one.pools.statistics.waited:
            await asyncio.sleep(0.01)
        one.pools.checkin(held)  # granted to the coroutine, which is cancelled before it hears of it
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await behind == globex.database.name  # type: ignore[union-attr]
        await one.async_pools.close()

    asyncio.run(asyncio.wait_for(run(), PATIENCE * 2))
    assert one.pools.open_connections == (1, 0)


def test_threads_and_coroutines_together_keep_within_the_budget(
    plane: Callable[[int], DataPlane], postgres_server: PostgresServer, tenants: list[TenantDatabase]
) -> None:
    budget = 3
    one = plane(budget)
    wrong: list[object] = []
    done = threading.Event()
    most = [0]

    def watch() -> None:
        while not done.is_set():
            most.append(backends(postgres_server, tenants, "state = 'idle in transaction'"))

    def work(number: int) -> None:
        for turn in range(12):
            tenant = tenants[(number + turn) % 3]
            if use(one, tenant.config()) != tenant.name:
                wrong.append(tenant)

    async def work_async(number: int) -> None:
        for turn in range(12):
            tenant = tenants[(number + turn) % 3]
            if await use_async(one, tenant.config()) != tenant.name:
                wrong.append(tenant)

    async def run() -> None:
        await asyncio.gather(
            *(work_async(number) for number in range(6)),
            *(asyncio.to_thread(work, number) for number in range(6)),
        )
        await one.async_pools.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        asyncio.run(asyncio.wait_for(run(), PATIENCE * 3))
    finally:
        done.set()
        watcher.join(PATIENCE)
    assert not wrong
    assert one.pools.statistics.checked_out + one.async_pools.statistics.checked_out == 2 * 6 * 12
    assert 0 < max(one.pools.statistics.most_shared, one.async_pools.statistics.most_shared) <= budget
    assert max(most) <= budget
    eventually(lambda: backends(postgres_server, tenants) == one.pools.open_connections[0])
