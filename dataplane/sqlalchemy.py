"""SQLAlchemy through the same pools: one engine for all tenants.

    engine = tenant_engine()
    with Session(engine) as session: ...   # inside of a tenant's request or `use_tenant`

A connection that the engine takes is the current tenant's at that moment, from the keyed pools, with
all that they assert and limit; the engine keeps none of its own. What SQLAlchemy caches with the
engine (compiled statements, the server's version) is the same for every tenant.
"""

from __future__ import annotations

import threading
from typing import Any

import psycopg
from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from dataplane.context import current_pools, current_tenant
from dataplane.grants import Held
from dataplane.pools import KeyedPools

Conn = psycopg.Connection[Any]


class TenantDialect(PGDialect_psycopg):
    """psycopg's dialect, in which connecting is taking and closing is giving back."""

    driver = "dataplane"
    supports_statement_cache = True

    def __init__(self, **options: Any) -> None:
        super().__init__(use_native_hstore=False, **options)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()
        self._lent: dict[Conn, tuple[KeyedPools, Held[Conn]]] = {}

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        pools = current_pools()
        held = pools.lend(current_tenant())
        with self._lock:
            self._lent[held.conn] = pools, held
        return held.conn

    def on_connect(self) -> Any:
        """Nothing: a connection comes by many times, and what is added to it here would add up."""
        return None

    def do_close(self, dbapi_connection: Any) -> None:
        with self._lock:
            pools, held = self._lent.pop(dbapi_connection)
        pools.give_back(held)

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.close()  # broken: the pool throws it away
        self.do_close(dbapi_connection)


def tenant_engine(**options: Any) -> Engine:
    """`options`: of `sqlalchemy.create_engine`, except for those of pools, of connections
    (`connect_args`, JSON functions) and `isolation_level`, which is set by execution options."""
    return create_engine("postgresql+dataplane://", poolclass=NullPool, **options)


registry.register("postgresql.dataplane", "dataplane.sqlalchemy", "TenantDialect")
