"""The pools for coroutines: the same rules, and what only they can get wrong, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import IsolationLevel

from dataplane.async_pools import AsyncKeyedPools
from dataplane.checkout import Limits
from dataplane.errors import (
    CrossTenantDetected,
    DatabaseError,
    DatabaseUnavailable,
    DatabaseWaking,
    PoolExhausted,
)
from dataplane.tenant_config import Invalidation, TenantConfig
from tests.dataplane.proxy import Proxy
from tests.dataplane.tenants import Logins, TenantDatabase


@contextlib.asynccontextmanager
async def opened(pools: AsyncKeyedPools) -> AsyncIterator[AsyncKeyedPools]:
    try:
        yield pools
    finally:
        await pools.close()
        assert pools.open_connections == (0, 0), "every connection is back and closed"
        assert all(not t.waiting and not t.total for t in pools._scheduler.tenants.values())


async def read(pools: AsyncKeyedPools, config: TenantConfig) -> tuple[str, list[str]]:
    async with pools.connection(config) as conn:
        name = await (await conn.execute("SELECT current_database()")).fetchone()
        assert name is not None
        rows = await (await conn.execute("SELECT body FROM note WHERE body LIKE 'canary%'")).fetchall()
    return name[0], [row[0] for row in rows]


def test_coroutines_over_tenants_never_read_anothers_rows(
    logins: Logins, tenants: list[TenantDatabase]
) -> None:
    async def run() -> None:
        pools = AsyncKeyedPools(logins.connector(), limits=Limits(budget=4, waiting=200), timeout=30)

        async def work(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(15):
                tenant = draw.choice(tenants)
                assert await read(pools, tenant.config()) == (tenant.name, [tenant.canary])

        async with opened(pools):
            await asyncio.gather(*(work(seed) for seed in range(40)))
            assert pools.statistics.checked_out == 600
            assert pools.statistics.most_shared <= 4

    asyncio.run(run())


def test_nothing_of_a_session_outlives_its_return(logins: Logins, tenants: list[TenantDatabase]) -> None:
    async def run() -> None:
        config = tenants[0].config()
        async with opened(AsyncKeyedPools(logins.connector())) as pools:
            async with pools.connection(config) as conn:
                first = conn.info.backend_pid
                await conn.set_autocommit(True)
                await conn.execute("SET statement_timeout = '7s'")
                await conn.execute("SELECT pg_advisory_lock(43)")
            with contextlib.suppress(ZeroDivisionError):
                async with pools.connection(config) as conn:
                    assert conn.info.backend_pid == first
                    assert not conn.autocommit
                    cursor = await conn.execute(
                        "SELECT current_setting('statement_timeout'), (SELECT count(*) FROM pg_locks"
                        " WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
                    )
                    assert await cursor.fetchone() == ("0", 0)
                    await conn.execute("INSERT INTO note (body) VALUES ('undone')")
                    raise ZeroDivisionError
            async with pools.connection(config) as conn:
                cursor = await conn.execute("SELECT count(*) FROM note WHERE body = 'undone'")
                assert await cursor.fetchone() == (0,)
                await conn.rollback()
                await conn.set_isolation_level(IsolationLevel.SERIALIZABLE)
            async with pools.connection(config) as conn:
                assert conn.info.backend_pid != first, "changed beyond the reset"

    asyncio.run(run())


def test_a_secret_that_opens_anothers_database_is_noticed(
    logins: Logins, tenants: list[TenantDatabase]
) -> None:
    async def run() -> None:
        acme, globex, _ = tenants
        logins.logins[acme.tenant_id] = globex.credential
        async with opened(AsyncKeyedPools(logins.connector())) as pools:
            with pytest.raises(CrossTenantDetected):
                await read(pools, acme.config(database=globex.config().database))
            assert pools.open_connections == (0, 0)
            await read(pools, globex.config())
            with globex.admin() as admin:
                admin.execute("UPDATE platform.identity SET tenant = NULL")
                try:
                    await read(pools, globex.config())
                    admin.execute("UPDATE platform.identity SET tenant = 't-somebodyelse'")
                    with pytest.raises(CrossTenantDetected):
                        await read(pools, globex.config())
                finally:
                    admin.execute("UPDATE platform.identity SET tenant = %s", [globex.tenant_id])
            assert pools.statistics.crossed == 2

    asyncio.run(run())


def test_limits_and_restarts(logins: Logins, tenants: list[TenantDatabase]) -> None:
    async def run() -> None:
        config = tenants[0].config(pool_size=1)
        pools = AsyncKeyedPools(logins.connector(), timeout=0.2)
        async with opened(pools):
            async with pools.connection(config):
                with pytest.raises(PoolExhausted):
                    await read(pools, config)
            with tenants[0].admin("postgres") as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [tenants[0].name],
                )
            assert (await read(pools, config))[0] == tenants[0].name
            assert pools.statistics.broken == 1

    asyncio.run(run())


def test_a_request_that_goes_away_takes_nothing_with_it(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    """Cancelled while it waits, while it connects, while it works: the accounts stay even."""

    async def run() -> None:
        config = replace(tenants[0], port=proxy.port).config(pool_size=1)
        pools = AsyncKeyedPools(logins.connector(timeout=2), timeout=5)

        async def cancelled(delay: float) -> None:
            task = asyncio.create_task(read(pools, config))
            await asyncio.sleep(delay)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        async with opened(pools):
            for step in range(30):
                await cancelled(step * 0.0007)
            assert (await read(pools, config))[0] == tenants[0].name
            async with pools.connection(config):
                await cancelled(0.05)
            proxy.mode = "hold"
            await pools.retire(config.tenant_id)
            await cancelled(0.1)
            proxy.mode = "pass"
            assert (await read(pools, config))[0] == tenants[0].name, "nobody was blocked for it"

    asyncio.run(run())


def test_one_that_hangs_holds_up_no_other(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    async def run() -> None:
        dead = replace(tenants[0], port=proxy.port)
        pools = AsyncKeyedPools(logins.connector(timeout=2, wake=2), timeout=0.5, check_timeout=0.3)
        async with opened(pools):
            await read(pools, dead.config())
            proxy.frozen, proxy.mode = True, "hold"
            hanging = asyncio.create_task(read(pools, dead.config(profile={"pauses": True}, epoch=2)))
            others = 0
            while not hanging.done():
                assert (await read(pools, tenants[1].config()))[0] == tenants[1].name
                others += 1
            assert others, "the others went on meanwhile"
            with pytest.raises(DatabaseWaking):
                await hanging
            with pytest.raises(DatabaseError):
                await read(pools, dead.config(epoch=3))
            proxy.frozen, proxy.mode = False, "pass"

    asyncio.run(run())


def test_notices_from_the_listeners_thread_retire_connections(
    logins: Logins, tenants: list[TenantDatabase]
) -> None:
    async def run() -> None:
        config = tenants[0].config()
        async with opened(AsyncKeyedPools(logins.connector())) as pools:
            pools.invalidated(Invalidation("credential", "", 0, config.tenant_id))  # before anything was used
            async with pools.connection(config) as conn:
                first = conn.info.backend_pid
            await asyncio.to_thread(pools.invalidated, Invalidation("credential", "", 0, config.tenant_id))
            await asyncio.sleep(0.05)
            assert pools.open_connections == (0, 0)
            async with pools.connection(config) as conn:
                assert conn.info.backend_pid != first

    asyncio.run(run())


def test_idle_connections_are_closed(logins: Logins, tenants: list[TenantDatabase]) -> None:
    async def run() -> None:
        async with opened(AsyncKeyedPools(logins.connector(), idle=0.1)) as pools:
            await read(pools, tenants[0].config())
            await asyncio.sleep(0.4)
            assert pools.open_connections == (0, 0)
            with pytest.raises(DatabaseUnavailable, match="has no database"):
                await read(pools, tenants[0].config(database=None))

    asyncio.run(run())


def test_a_block_that_breaks_its_connection_ends_it(logins: Logins, tenants: list[TenantDatabase]) -> None:
    async def run() -> None:
        async with opened(AsyncKeyedPools(logins.connector())) as pools:
            block = pools.connection(tenants[0].config())
            conn = await block.__aenter__()
            await conn.close()
            with pytest.raises(psycopg.Error):
                await block.__aexit__(None, None, None)
            assert pools.open_connections == (0, 0)

    asyncio.run(run())
