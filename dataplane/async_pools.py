"""The same pools for asyncio: the same scheduler, psycopg's asynchronous connections, one event loop.

The scheduler may be shared with the process's pools for threads. Its lock is held for the bookkeeping and
never across an `await`, so the loop waits for microseconds; what a thread gives back wakes a coroutine
through the loop. The pools belong to the loop that first uses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from dataplane import wire
from dataplane.checkout import (
    Blocked,
    Limits,
    PooledConnection,
    Reservation,
    Waiter,
)
from dataplane.connect import Connector
from dataplane.errors import CrossTenantDetected, DatabaseError, DatabaseUnavailable, PoolExhausted
from dataplane.fleet import FleetBudget
from dataplane.pooling import (
    PoolStatistics,
    blocked_error,
    cluster_of,
    end,
    expect_not_failed,
    full_error,
    tired_error,
)
from dataplane.scheduler import Scheduler
from dataplane.tenant_config import Invalidation, TenantConfig

log = logging.getLogger(__name__)

Conn = psycopg.AsyncConnection[Any]
KIND = "coroutine"


class AsyncKeyedPools:
    """`async with pools.connection(config)`; everything else as in `KeyedPools`."""

    def __init__(
        self,
        connector: Connector,
        *,
        limits: Limits | None = None,
        scheduler: Scheduler[Any] | None = None,
        timeout: float = 5.0,
        idle: float = 120.0,
        check_timeout: float = 2.0,
        fleet: FleetBudget | None = None,
    ) -> None:
        self._connector = connector
        self._timeout = timeout
        self._idle = idle
        self._check_timeout = check_timeout
        self._fleet = fleet
        self._scheduler = scheduler or Scheduler[Any](limits or Limits())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reaper: asyncio.Task[None] | None = None
        # Not the loop's own threads: an application may have these wait for the budget that is held here.
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="dataplane-logins")
        self._closed = False
        self._releasing: set[asyncio.Future[None]] = set()
        self.statistics = PoolStatistics()

    @contextlib.asynccontextmanager
    async def connection(self, config: TenantConfig, *, timeout: float | None = None) -> AsyncIterator[Conn]:
        """One transaction: committed at the end, rolled back where the block raises."""
        held = await self._checkout(
            config, time.monotonic() + (self._timeout if timeout is None else timeout)
        )
        try:
            yield held.conn
            expect_not_failed(held.conn)
            await held.conn.commit()
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                await held.conn.rollback()
            raise
        finally:
            await self._checkin(held)

    async def retire(self, tenant_id: str) -> None:
        """Use none of the tenant's connections again; those in use end when they come back."""
        with self._closing():
            self._scheduler.retire(tenant_id)

    def invalidated(self, invalidation: Invalidation) -> None:
        """For `Resolver.subscribe`: called from the listener's thread."""
        if invalidation.kind == "credential" and invalidation.tenant_id:
            self._connector.credentials.forget(invalidation.tenant_id)
            if self._loop is not None and not self._loop.is_closed():
                asyncio.run_coroutine_threadsafe(self.retire(invalidation.tenant_id), self._loop)

    async def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        with self._closing():
            self._scheduler.clear(KIND)
        await asyncio.gather(*self._releasing)

    @property
    def open_connections(self) -> tuple[int, int]:
        """As `KeyedPools.open_connections`."""
        return self._scheduler.shared, self._scheduler.dedicated

    # ------------------------------------------------------------------------------- inside

    async def _checkout(self, config: TenantConfig, until: float) -> PooledConnection[Conn]:
        if config.database is None:
            raise DatabaseUnavailable(f"{config.tenant_id} has no database")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._reaper = self._loop.create_task(self._keep())
        while True:
            grant = await self._take(config, until)
            if isinstance(grant, Reservation):
                return await self._open(grant)
            held = await self._checked(grant)
            if held is not None:
                return held

    async def _take(self, config: TenantConfig, until: float) -> PooledConnection[Conn] | Reservation[Conn]:
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the request with it
                loop.call_soon_threadsafe(ready.set)

        try:
            with self._closing():
                grant = self._scheduler.take(config, time.monotonic(), wake, KIND)
        except PoolExhausted:
            self.statistics.refused += 1
            raise
        if isinstance(grant, Waiter):
            self.statistics.waited += 1
            return await self._wait(grant, ready, until)
        if isinstance(grant, Blocked):
            raise blocked_error(grant)
        return grant

    async def _wait(
        self, waiter: Waiter[Conn], ready: asyncio.Event, until: float
    ) -> PooledConnection[Conn] | Reservation[Conn]:
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await ready.wait()
        except TimeoutError:
            with self._scheduler.lock:
                left = self._scheduler.leave(waiter)
            if left:
                self.statistics.refused += 1
                raise tired_error(waiter) from None
        except asyncio.CancelledError:
            # The request is gone; what was granted to it in the same moment goes on to the next.
            with self._closing():
                if not self._scheduler.leave(waiter):
                    self._pass_on(waiter)
            raise
        if waiter.error is not None:
            raise blocked_error(waiter.error)
        grant = waiter.held or waiter.opening
        assert grant is not None  # noqa: S101  # the scheduler wakes nobody without one
        return grant

    def _pass_on(self, waiter: Waiter[Conn]) -> None:
        if waiter.opening is not None:
            if waiter.opening.victim is not None:
                self._scheduler.discarded.append(waiter.opening.victim)
            self._scheduler.not_opened(waiter.opening)
        elif waiter.held is not None and not self._scheduler.checkin(waiter.held, time.monotonic()):
            self._scheduler.discarded.append(waiter.held)

    async def _open(self, opening: Reservation[Conn]) -> PooledConnection[Conn]:
        config = opening.target
        try:
            if opening.victim is not None:
                self.statistics.evicted += 1
                self._close(opening.victim)
            claimed = await self._claim(config)
        except BaseException:
            with self._closing():
                self._scheduler.not_opened(opening)
            raise
        conn: Conn | None = None
        try:
            conn = await self._connector.connect_async(config, self._threads)
            await self._assert(conn, config)
        except BaseException as error:
            if conn is not None:
                end(conn)
            if claimed:
                self._release(cluster_of(config))
            with self._closing():
                if isinstance(error, DatabaseError):
                    self.statistics.failed += 1
                    self._scheduler.failed(opening, error, time.monotonic())
                else:
                    self._scheduler.not_opened(opening)
            raise
        with self._scheduler.lock:
            self.statistics.opened += 1
            self.statistics.checked_out += 1
            self.statistics.most_shared = max(self.statistics.most_shared, self._scheduler.shared)
            return self._scheduler.opened(opening, conn)

    async def _claim(self, config: TenantConfig) -> bool:
        """As `KeyedPools._claim`."""
        if self._fleet is None:
            return False
        cluster = cluster_of(config)
        while not await self._acquire(self._fleet, cluster):
            with self._scheduler.lock:
                idle = self._scheduler.evict(lambda held: cluster_of(held.target) == cluster)
            if idle is None:
                self.statistics.refused += 1
                raise full_error(config)
            self._close(idle)
        return True

    async def _acquire(self, fleet: FleetBudget, cluster: str) -> bool:
        asked = asyncio.get_running_loop().run_in_executor(self._threads, fleet.acquire, cluster)
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:  # the thread goes on, and what it gets must be given back
            asked.add_done_callback(lambda done: self._release(cluster) if done.result() else None)
            raise

    def _release(self, cluster: str) -> None:
        """Behind the request: nobody waits for Redis here, and no cancellation can come in between."""
        if self._fleet is not None:
            released = asyncio.get_running_loop().run_in_executor(self._threads, self._fleet.release, cluster)
            self._releasing.add(released)
            released.add_done_callback(self._releasing.discard)

    async def _assert(self, conn: Conn, config: TenantConfig) -> None:
        try:
            await wire.check_async(conn, config, self._check_timeout)
        except wire.Broken as error:
            log.warning("connect: %s: opened, then %s", config.tenant_id, error)
            raise DatabaseUnavailable(f"{config.tenant_id}: {error}", retry_after=1.0) from error
        except CrossTenantDetected as error:
            self.statistics.crossed += 1
            log.critical("cross-tenant: %s", error)
            raise

    async def _checked(self, held: PooledConnection[Conn]) -> PooledConnection[Conn] | None:
        """The connection if it is alive and the tenant's own; None where another must be taken."""
        tenant = held.tenant
        try:
            await wire.check_async(held.conn, tenant.target, self._check_timeout)
        except BaseException as error:
            self.statistics.broken += 1
            with self._closing():
                self._scheduler.drop(held)
                self._scheduler.discarded.append(held)
                if isinstance(error, (wire.Broken, CrossTenantDetected)):
                    self._scheduler.retire(tenant.target.tenant_id)
            if isinstance(error, wire.Broken):
                return None
            if isinstance(error, CrossTenantDetected):
                self.statistics.crossed += 1
                log.critical("cross-tenant: %s", error)
            raise
        self.statistics.checked_out += 1
        return held

    async def _checkin(self, held: PooledConnection[Conn]) -> None:
        conn = held.conn
        with contextlib.suppress(psycopg.Error):
            if conn.autocommit and not conn.broken:
                await conn.set_autocommit(False)
        conn.cursor_factory, conn.server_cursor_factory = psycopg.AsyncCursor, psycopg.AsyncServerCursor
        fit = wire.send_reset(conn) and not self._closed
        with self._closing():
            if not fit:
                self.statistics.broken += 1
                self._scheduler.drop(held)
                self._scheduler.discarded.append(held)
            elif not self._scheduler.checkin(held, time.monotonic()):
                self._scheduler.discarded.append(held)

    @contextlib.contextmanager
    def _closing(self) -> Iterator[None]:
        """Hold the lock; afterwards close what the scheduler has discarded."""
        with self._scheduler.lock:
            yield
            discarded, self._scheduler.discarded = self._scheduler.discarded, []
        for held in discarded:
            self._close(held)

    def _close(self, held: PooledConnection[Any]) -> None:
        end(held.conn)
        self._release(cluster_of(held.target))

    async def _keep(self) -> None:
        every = self._idle / 4 if self._fleet is None else min(self._idle / 4, self._fleet.lease / 3)
        while True:
            await asyncio.sleep(every)
            if self._fleet is not None:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._fleet.beat)
            now = time.monotonic()
            with self._closing():
                self._scheduler.expire(now - self._idle, now)
