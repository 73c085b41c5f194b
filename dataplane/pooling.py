"""What the pools for threads and those for coroutines say and count alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from dataplane.checkout import Blocked, Waiter
from dataplane.connect import may_pause
from dataplane.errors import DatabaseError, DatabaseWaking, PoolExhausted
from dataplane.tenant_config import TenantConfig


@dataclass(slots=True)
class PoolStatistics:
    """`checked_out` includes those that were opened for it."""

    checked_out: int = 0
    opened: int = 0
    evicted: int = 0
    waited: int = 0
    refused: int = 0  # PoolExhausted
    failed: int = 0  # connects
    broken: int = 0  # found dead at checkout or not fit at return
    crossed: int = 0  # CrossTenantDetected
    most_shared: int = 0  # the most connections of the shared budget that were ever open


def end(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Close a connection that nobody uses: of either kind, from any thread, without waiting. The `close` of
    an AsyncConnection does no more, but is a coroutine."""
    conn.pgconn.finish()


def cluster_of(config: TenantConfig) -> str:
    """`host:port` of the tenant's cluster: what the fleet's budget is counted by."""
    return "" if config.database is None else f"{config.database.host}:{config.database.port}"


def full_error(config: TenantConfig) -> PoolExhausted:
    return PoolExhausted(f"{config.tenant_id}: its cluster has no connection left for us", retry_after=1.0)


def blocked_error(blocked: Blocked) -> DatabaseError:
    """The error of the connect that failed, new for each request that gets it."""
    return type(blocked.error)(str(blocked.error), retry_after=max(1.0, blocked.retry_after))


def tired_error(waiter: Waiter[Any]) -> DatabaseError:
    """What to say to a request that waited in vain. That its tenant is connecting at this moment says
    little where connections come and go, but a cluster that may pause is most likely waking."""
    tenant = waiter.tenant
    name = tenant.target.tenant_id
    if may_pause(tenant.target) and tenant.connecting and tenant.total == tenant.connecting:
        return DatabaseWaking(f"{name}: still connecting", retry_after=5.0)
    return PoolExhausted(f"{name}: none of its connections became free in time", retry_after=1.0)


def expect_not_failed(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """To be called before a commit: PostgreSQL answers that of a failed transaction by rolling it back, and
    neither it nor psycopg calls that an error."""
    if conn.info.transaction_status == TransactionStatus.INERROR:
        raise psycopg.errors.InFailedSqlTransaction(
            "nothing was stored, since a statement of this transaction had failed: let its error out of the "
            "block, or put what may fail into a `with conn.transaction():` of its own"
        )


def left_open_error(config: TenantConfig) -> psycopg.ProgrammingError:
    return psycopg.ProgrammingError(
        f"{config.tenant_id}: a connection came back in an open transaction, which was rolled back: "
        "commit() or rollback() before checkin(), or use `with pools.connection(config)`, which commits"
    )
