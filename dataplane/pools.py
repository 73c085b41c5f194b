"""Connections to tenant databases for threads: one budget, no thread per tenant, no mix-up.

The scheduler decides who gets what (`dataplane/scheduler.py`); this module does the I/O that it asks for, and
never while it holds the lock, so a database that hangs keeps nobody else waiting. Every connection
that goes out, new or used, has just been asked whose it is (I7), and comes back through a reset.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from dataplane import wire
from dataplane.checkout import (
    Blocked,
    Limits,
    PooledConnection,
    Reservation,
    Waiter,
)
from dataplane.connect import Connector
from dataplane.errors import (
    CrossTenantDetected,
    DatabaseError,
    DatabaseUnavailable,
    PoolExhausted,
)
from dataplane.fleet import FleetBudget
from dataplane.pooling import (
    PoolStatistics,
    blocked_error,
    cluster_of,
    end,
    expect_not_failed,
    full_error,
    left_open_error,
    tired_error,
)
from dataplane.scheduler import Scheduler
from dataplane.tenant_config import Invalidation, TenantConfig

log = logging.getLogger(__name__)

Conn = psycopg.Connection[Any]
KIND = "thread"


class KeyedPools:
    """`connection(config)` lends a connection to the database of that tenant.

    `timeout`: seconds that a request waits for one to become free. `idle`: seconds after which an
    unused one is closed, which also lets a cluster pause. `check_timeout`: seconds that a database
    may take to say whose it is. `fleet`: None where no other process shares the clusters. `scheduler`: one
    that the process's AsyncKeyedPools has too, in place of `limits`; so both keep within one budget.
    """

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
        self._scheduler = scheduler or Scheduler[Any](limits or Limits())
        self._fleet = fleet
        self._timeout = timeout
        self._idle = idle
        self._check_timeout = check_timeout
        self.statistics = PoolStatistics()
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._reaper: threading.Thread | None = None
        self._closed = threading.Event()

    @contextlib.contextmanager
    def connection(self, config: TenantConfig, *, timeout: float | None = None) -> Iterator[Conn]:
        """One transaction: committed at the end, rolled back where the block raises.

        Raises PoolExhausted, DatabaseWaking, DatabaseUnavailable, CredentialUnavailable,
        CrossTenantDetected, before the block is entered, and psycopg's InFailedSqlTransaction at its end
        where it has caught the error of a statement, after which nothing can be committed.
        """
        held = self.checkout(config, timeout=timeout)
        try:
            yield held.conn
            expect_not_failed(held.conn)
            held.conn.commit()
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                held.conn.rollback()
            raise
        finally:
            self.checkin(held)

    def checkout(self, config: TenantConfig, *, timeout: float | None = None) -> PooledConnection[Conn]:
        """As `connection`, for callers that can't use a `with`: `checkin` must follow."""
        if config.database is None:
            raise DatabaseUnavailable(f"{config.tenant_id} has no database")
        until = time.monotonic() + (self._timeout if timeout is None else timeout)
        while True:
            grant = self._take(config, until)
            if isinstance(grant, Reservation):
                return self._open(grant)
            held = self._checked(grant)
            if held is not None:
                return held

    def checkin(self, held: PooledConnection[Conn]) -> None:
        """Reset and return. A connection in a transaction, or changed beyond the reset, is closed.

        Raises psycopg's ProgrammingError for one in a transaction, after closing it, unless an error is
        on its way already.
        """
        conn = held.conn
        left_open = conn.info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)
        with contextlib.suppress(psycopg.Error):
            if conn.autocommit and not conn.broken:
                conn.autocommit = False
        conn.cursor_factory, conn.server_cursor_factory = psycopg.Cursor, psycopg.ServerCursor
        fit = wire.send_reset(conn) and not self._closed.is_set()
        with self._scheduler.lock:
            if fit:
                fit = self._scheduler.checkin(held, time.monotonic())
            else:
                self._scheduler.drop(held)
                self.statistics.broken += 1
            discarded = self._discarded()
        if not fit:
            discarded.append(held)
        self._close(discarded)
        if left_open and sys.exc_info()[0] is None:
            raise left_open_error(held.target)

    def retire(self, tenant_id: str) -> None:
        """Use none of the tenant's connections again; those in use end when they come back."""
        with self._scheduler.lock:
            self._scheduler.retire(tenant_id)
            discarded = self._discarded()
        self._close(discarded)

    def invalidated(self, invalidation: Invalidation) -> None:
        """For `Resolver.subscribe`: a rotated login is fetched anew, and used from now on."""
        if invalidation.kind == "credential" and invalidation.tenant_id:
            self._connector.credentials.forget(invalidation.tenant_id)
            self.retire(invalidation.tenant_id)

    def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        self._closed.set()
        with self._scheduler.lock:
            self._scheduler.clear(KIND)
            discarded = self._discarded()
        self._close(discarded)

    @property
    def open_connections(self) -> tuple[int, int]:
        """(of the shared budget, of dedicated tenants), of both kinds where the scheduler is shared."""
        return self._scheduler.shared, self._scheduler.dedicated

    # ------------------------------------------------------------------------------- inside

    def _take(self, config: TenantConfig, until: float) -> PooledConnection[Conn] | Reservation[Conn]:
        ready = threading.Event()
        with self._scheduler.lock:
            if self._reaper is None:
                self._start_reaper()
            try:
                grant = self._scheduler.take(config, time.monotonic(), ready.set, KIND)
            except PoolExhausted:
                self.statistics.refused += 1
                raise
            discarded = self._discarded()
        self._close(discarded)
        if isinstance(grant, Waiter):
            self.statistics.waited += 1
            return self._wait(grant, ready, until)
        if isinstance(grant, Blocked):
            raise blocked_error(grant)
        return grant

    def _wait(
        self, waiter: Waiter[Conn], ready: threading.Event, until: float
    ) -> PooledConnection[Conn] | Reservation[Conn]:
        if not ready.wait(max(0.0, until - time.monotonic())):
            with self._scheduler.lock:
                if self._scheduler.leave(waiter):
                    self.statistics.refused += 1
                    raise tired_error(waiter)
        if waiter.error is not None:
            raise blocked_error(waiter.error)
        grant = waiter.held or waiter.opening
        assert grant is not None  # noqa: S101  # the scheduler wakes nobody without one
        return grant

    def _open(self, opening: Reservation[Conn]) -> PooledConnection[Conn]:
        config = opening.target
        if opening.victim is not None:
            self.statistics.evicted += 1
            self._close([opening.victim])
        try:
            claimed = self._claim(config)
        except BaseException:
            with self._scheduler.lock:
                self._scheduler.not_opened(opening)
            raise
        conn: Conn | None = None
        try:
            conn = self._connector.connect(config)
            self._assert(conn, config)
        except BaseException as error:
            if conn is not None:
                conn.close()
            if claimed and self._fleet is not None:
                self._fleet.release(cluster_of(config))
            with self._scheduler.lock:
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

    def _claim(self, config: TenantConfig) -> bool:
        """Room on the cluster, among all processes: where there is none, an idle connection of ours to
        the same cluster makes it. Raises PoolExhausted."""
        if self._fleet is None:
            return False
        cluster = cluster_of(config)
        while not self._fleet.acquire(cluster):
            with self._scheduler.lock:
                idle = self._scheduler.evict(lambda held: cluster_of(held.target) == cluster)
            if idle is None:
                self.statistics.refused += 1
                raise full_error(config)
            self._close([idle])
        return True

    def _assert(self, conn: Conn, config: TenantConfig) -> None:
        try:
            wire.check(conn, config, self._check_timeout)
        except wire.Broken as error:
            log.warning("connect: %s: opened, then %s", config.tenant_id, error)
            raise DatabaseUnavailable(f"{config.tenant_id}: {error}", retry_after=1.0) from error
        except CrossTenantDetected as error:
            self.statistics.crossed += 1
            log.critical("cross-tenant: %s", error)
            raise

    def _checked(self, held: PooledConnection[Conn]) -> PooledConnection[Conn] | None:
        """The connection if it is alive and the tenant's own; None where another must be taken."""
        tenant = held.tenant
        problem: BaseException | None = None
        try:
            wire.check(held.conn, tenant.target, self._check_timeout)
        except BaseException as error:  # noqa: BLE001  # sorted out below, with the connection closed
            problem = error
        if problem is None:
            self.statistics.checked_out += 1
            return held
        self._close([held])
        with self._scheduler.lock:
            self._scheduler.drop(held)
            self.statistics.broken += 1
            if isinstance(problem, (wire.Broken, CrossTenantDetected)):
                # What is wrong with this one is most likely wrong with all that are as old.
                self._scheduler.retire(tenant.target.tenant_id)
            if isinstance(problem, CrossTenantDetected):
                self.statistics.crossed += 1
            discarded = self._discarded()
        self._close(discarded)
        if isinstance(problem, wire.Broken):
            return None
        log.critical("cross-tenant: %s", problem)
        raise problem

    def _discarded(self) -> list[PooledConnection[Conn]]:
        discarded, self._scheduler.discarded = self._scheduler.discarded, []
        return discarded

    def _start_reaper(self) -> None:
        every = self._idle / 4 if self._fleet is None else min(self._idle / 4, self._fleet.lease / 3)
        self._reaper = threading.Thread(
            target=_keep, args=(weakref.ref(self), self._closed, every), name="dataplane-pools", daemon=True
        )
        self._reaper.start()

    def _tidy(self) -> None:
        now = time.monotonic()
        with self._scheduler.lock:
            self._scheduler.expire(now - self._idle, now)
            discarded = self._discarded()
        self._close(discarded)
        if self._fleet is not None:
            self._fleet.beat()

    def _close(self, discarded: list[PooledConnection[Conn]]) -> None:
        for held in discarded:
            end(held.conn)
            if self._fleet is not None:
                self._fleet.release(cluster_of(held.target))

    def forked(self) -> None:
        """In a child process."""
        self._scheduler.forked()
        self._reset()


def _keep(pools: weakref.ref[KeyedPools], closed: threading.Event, every: float) -> None:
    """The one thread of all the pools: closes what nobody has used for long."""
    while not closed.wait(every):
        alive = pools()
        if alive is None:
            return
        alive._tidy()
        del alive


_pools: weakref.WeakSet[KeyedPools] = weakref.WeakSet()


def _after_fork() -> None:
    for pools in list(_pools):
        pools.forked()


os.register_at_fork(after_in_child=_after_fork)
