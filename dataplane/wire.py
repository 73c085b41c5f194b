"""The two statements that guard every checkout, each bounded in time.

psycopg has no time limit for a statement that a silent server never answers, and a pool that checks
a connection without one hangs with it. So these two go through libpq's asynchronous calls here, with
a deadline. They also skip cursors and transactions: psycopg does not know that they were sent, which
is why pooled connections prepare no statements (DISCARD ALL would drop them behind its back).

The reset is sent when a connection comes back and its answer is read when it next goes out: nobody
waits for it.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection, pq
from psycopg.rows import tuple_row

from dataplane.errors import CrossTenantDetected
from dataplane.tenant_config import TenantConfig

RESET = b"DISCARD ALL"
IDENTITY = b"SELECT pg_catalog.current_database(), placement, tenant FROM platform.identity"

# SQLSTATE classes of an identity that isn't there or may not be read: schema names, syntax and access rules.
_NO_IDENTITY = ("3F", "42")
_TROUBLE = (psycopg.Error, OSError, ValueError)

AnyConnection = Connection[Any] | AsyncConnection[Any]


class Broken(Exception):
    """The connection can't be used: closed by the server, silent, or in a state that is not expected."""


def send_reset(conn: AnyConnection) -> bool:
    """Send the reset without waiting. False: the connection is not fit for another user.

    Of what can be set on the Python object, `row_factory` is put back here and `autocommit` by the
    pool; a connection on which anything else was set is not reused.
    """
    pgconn = conn.pgconn
    if pgconn.status != pq.ConnStatus.OK or pgconn.transaction_status != pq.TransactionStatus.IDLE:
        return False
    if conn.prepare_threshold is not None or conn.autocommit or pgconn.pipeline_status:
        return False
    if not (conn.isolation_level is None and conn.read_only is None and conn.deferrable is None):
        return False
    conn.row_factory = tuple_row
    try:
        pgconn.send_query(RESET)
        return pgconn.flush() == 0
    except _TROUBLE:
        return False


def check(conn: Connection[Any], config: TenantConfig, timeout: float) -> None:
    """Read the reset's answer if one is due, then assert whose database this is. Raises Broken, or
    CrossTenantDetected (I7); in both cases the connection must be closed."""
    pgconn = conn.pgconn
    deadline = time.monotonic() + timeout
    try:
        poller = select.poll()
        poller.register(pgconn.socket, select.POLLIN)
        _expect_reset(_results(pgconn, poller, deadline))
        pgconn.send_query(IDENTITY)
        pgconn.flush()
        results = _results(pgconn, poller, deadline)
    except _TROUBLE as error:
        raise Broken(type(error).__name__) from error
    _expect_identity(results, config)


async def check_async(conn: AsyncConnection[Any], config: TenantConfig, timeout: float) -> None:
    """As `check`."""
    pgconn = conn.pgconn
    try:
        async with asyncio.timeout(timeout):
            _expect_reset(await _results_async(pgconn))
            pgconn.send_query(IDENTITY)
            pgconn.flush()
            results = await _results_async(pgconn)
    except TimeoutError as error:
        raise Broken("no answer") from error
    except _TROUBLE as error:
        raise Broken(type(error).__name__) from error
    _expect_identity(results, config)


def _expect_reset(results: list[pq.abc.PGresult]) -> None:
    if any(result.status != pq.ExecStatus.COMMAND_OK for result in results):
        raise Broken("it could not be reset")


def _expect_identity(results: list[pq.abc.PGresult], config: TenantConfig) -> None:
    if len(results) != 1:
        raise Broken("an answer that nobody asked for")
    result = results[0]
    if result.status != pq.ExecStatus.TUPLES_OK:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        if state[:2] in _NO_IDENTITY:
            raise CrossTenantDetected(f"{config.tenant_id}: the database has no readable identity ({state})")
        raise Broken(f"SQLSTATE {state or 'unknown'}")
    rows = [
        (_text(result.get_value(row, 0)), _text(result.get_value(row, 1)), _text(result.get_value(row, 2)))
        for row in range(result.ntuples)
    ]
    if not is_own(rows, config):
        expected = None if config.database is None else config.database.name
        got = " and ".join(f"{name}, placement {place} of {tenant}" for name, place, tenant in rows)
        raise CrossTenantDetected(
            f"expected database {expected}, placement {config.placement} of {config.tenant_id}, "
            f"got {got or 'a database without an identity'}"
        )


def is_own(rows: Sequence[tuple[str | None, str | None, str | None]], config: TenantConfig) -> bool:
    """Is the database the entry's? `rows`: its name, placement and tenant, as `IDENTITY` reads them. Each
    must be the entry's, but that a database without a tenant may be anybody's: it is published before its
    tenant is written into it. `tests/vectors/identity.json` holds `databases.ts` to the same."""
    if len(rows) != 1 or config.database is None:
        return False
    name, placement, tenant = rows[0]
    return (
        name == config.database.name
        and placement == config.placement
        and (tenant is None or tenant == config.tenant_id)
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _results(pgconn: pq.abc.PGconn, poller: select.poll, deadline: float) -> list[pq.abc.PGresult]:
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            # Past the deadline one look is left: it may be this thread that was kept from running.
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise Broken("no answer")
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return results
        results.append(result)


async def _results_async(pgconn: pq.abc.PGconn) -> list[pq.abc.PGresult]:
    loop = asyncio.get_running_loop()
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            readable = loop.create_future()
            loop.add_reader(pgconn.socket, _ready, readable)
            try:
                await readable
            finally:
                loop.remove_reader(pgconn.socket)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return results
        results.append(result)


def _ready(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
