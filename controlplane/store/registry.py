"""The way to the registry: one pool for each process, and one place that says "the registry is down".

Services take a connection and open one transaction each. A connection that broke is thrown away by
the pool's check; whether the transaction took effect is then unknown, which is harmless because every
write here is either guarded (fencing token, revision, state) or idempotent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from controlplane.domain.errors import Retryable

Connection = psycopg.Connection[DictRow]

SILENT_AT_MOST = 15.0
"""Seconds that a transaction may hold its locks without saying anything. A process that was stopped in the
middle of one (SIGSTOP, a machine that is gone) would keep the whole fleet waiting, for the sweep's lock or
the audit trail's."""


_UNAVAILABLE = (
    PoolTimeout,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
)


class RegistryUnavailable(Retryable):
    """The registry database can't be reached."""


class Registry:
    """A pool of connections to the registry. `wait`: seconds to wait for one of them at most."""

    def __init__(
        self, url: str, *, size: int = 4, wait: float = 5.0, statement_timeout: float = 30.0
    ) -> None:
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            min_size=0,
            max_size=size,
            timeout=wait,
            open=True,
            check=ConnectionPool.check_connection,
            reconnect_timeout=wait,
            kwargs={
                "row_factory": dict_row,
                "autocommit": True,
                "connect_timeout": max(2, int(wait)),
                "application_name": "controlplane",
                "options": f"-c statement_timeout={int(statement_timeout * 1000)} -c TimeZone=UTC"
                f" -c idle_in_transaction_session_timeout={int(SILENT_AT_MOST * 1000)}",
            },
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in autocommit mode. Raises RegistryUnavailable where there is none to be had
        or it breaks."""
        try:
            with self._pool.connection() as conn:
                yield conn
        except _UNAVAILABLE as error:
            raise RegistryUnavailable(f"the registry can't be reached ({type(error).__name__})") from error

    def close(self) -> None:
        self._pool.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.close()


def one(row: DictRow | None) -> DictRow:
    """The row of a statement that must give one."""
    if row is None:
        raise LookupError("a statement that must return a row returned none")
    return row
