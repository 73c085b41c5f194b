"""Transactions that are none: what was not committed is never taken for done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import InternalError
from sqlalchemy.orm import Session

from dataplane.async_pools import AsyncKeyedPools
from dataplane.checkout import PooledConnection
from dataplane.context import tenant_connection, tenant_connection_async, use_tenant
from dataplane.pools import KeyedPools
from dataplane.sqlalchemy import tenant_engine
from tests.dataplane.tenants import Logins, TenantDatabase

INSERT = "INSERT INTO note (body) VALUES ('half a transaction')"


@pytest.fixture
def tenant(tenants: list[TenantDatabase]) -> Iterator[TenantDatabase]:
    yield tenants[0]
    with tenants[0].admin() as admin:
        admin.execute("DELETE FROM app.note WHERE body LIKE 'half%'")


def stored(tenant: TenantDatabase) -> int:
    with tenant.admin() as admin:
        row = admin.execute("SELECT count(*) FROM app.note WHERE body LIKE 'half%'").fetchone()
    assert row is not None
    number: int = row[0]
    return number


@pytest.fixture
def held(pools: KeyedPools, tenant: TenantDatabase) -> PooledConnection[psycopg.Connection[Any]]:
    return pools.checkout(tenant.config())


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_connection_given_back_in_a_transaction_is_closed_and_said_so(
    autocommit: bool,
    pools: KeyedPools,
    tenant: TenantDatabase,
    held: PooledConnection[psycopg.Connection[Any]],
) -> None:
    if autocommit:
        held.conn.autocommit = True
        held.conn.execute("BEGIN")
    held.conn.execute(INSERT)
    with pytest.raises(psycopg.ProgrammingError, match=r"commit\(\) or rollback\(\) before checkin"):
        pools.checkin(held)
    assert held.conn.closed
    assert pools.open_connections == (0, 0)
    assert stored(tenant) == 0
    with pools.connection(tenant.config()) as conn:
        conn.execute("SELECT 1")


def test_an_error_on_its_way_is_not_replaced(
    pools: KeyedPools, tenant: TenantDatabase, held: PooledConnection[psycopg.Connection[Any]]
) -> None:
    def work() -> None:
        try:
            held.conn.execute("SELECT 1/0")
        finally:
            pools.checkin(held)

    with pytest.raises(psycopg.errors.DivisionByZero):
        work()
    assert pools.open_connections == (0, 0)


def test_what_was_ended_is_given_back_in_peace(
    pools: KeyedPools, tenant: TenantDatabase, held: PooledConnection[psycopg.Connection[Any]]
) -> None:
    held.conn.execute(INSERT)
    held.conn.commit()
    pools.checkin(held)
    assert (pools.open_connections, stored(tenant)) == ((1, 0), 1)


def test_a_block_commits_the_transaction_that_a_statement_has_begun(
    pools: KeyedPools, tenant: TenantDatabase
) -> None:
    with use_tenant(tenant.config(), pools), tenant_connection() as conn:
        conn.autocommit = True
        conn.execute("BEGIN")
        conn.execute(INSERT)
    assert (pools.open_connections, stored(tenant)) == ((1, 0), 1)


def test_a_block_that_caught_a_failure_does_not_seem_to_commit(
    pools: KeyedPools, tenant: TenantDatabase
) -> None:
    def work() -> None:
        with tenant_connection() as conn:
            conn.execute(INSERT)
            with contextlib.suppress(psycopg.errors.DivisionByZero):
                conn.execute("SELECT 1/0")

    with use_tenant(tenant.config(), pools), pytest.raises(psycopg.Error, match="nothing was stored"):
        work()
    assert (pools.open_connections, stored(tenant)) == ((1, 0), 0)
    with use_tenant(tenant.config(), pools), tenant_connection() as conn:
        conn.execute(INSERT)
        with contextlib.suppress(psycopg.errors.DivisionByZero), conn.transaction():
            conn.execute("SELECT 1/0")
    assert (pools.open_connections, stored(tenant)) == ((1, 0), 1)


def test_coroutines_have_the_same(logins: Logins, tenant: TenantDatabase) -> None:
    async def work() -> None:
        async with tenant_connection_async() as conn:
            await conn.execute(INSERT)
            with contextlib.suppress(psycopg.errors.DivisionByZero):
                await conn.execute("SELECT 1/0")

    async def run() -> None:
        pools = AsyncKeyedPools(logins.connector())
        with use_tenant(tenant.config(), pools):
            with pytest.raises(psycopg.Error, match="nothing was stored"):
                await work()
            assert stored(tenant) == 0
            async with tenant_connection_async() as conn:
                await conn.set_autocommit(True)
                await conn.execute("BEGIN")
                await conn.execute(INSERT)
        assert (pools.open_connections, stored(tenant)) == ((1, 0), 1)
        await pools.close()

    asyncio.run(run())


def test_sqlalchemy_has_the_same(pools: KeyedPools, tenant: TenantDatabase) -> None:
    engine = tenant_engine()
    with use_tenant(tenant.config(), pools):
        with engine.connect() as conn:
            conn.execute(text(INSERT))
            with contextlib.suppress(Exception):
                conn.execute(text("SELECT 1/0"))
            with pytest.raises(InternalError, match="nothing was stored"):
                conn.commit()
        with Session(engine) as session:
            session.execute(text(INSERT))
            with contextlib.suppress(Exception):
                session.execute(text("SELECT 1/0"))
            with pytest.raises(InternalError, match="nothing was stored"):
                session.commit()
    assert (pools.open_connections, stored(tenant)) == ((1, 0), 0)
