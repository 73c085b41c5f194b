"""What tests do with a connection that they were lent."""

from __future__ import annotations

import psycopg

from dataplane.pools import KeyedPools
from dataplane.tenant_config import TenantConfig


def read(pools: KeyedPools, config: TenantConfig) -> tuple[str, list[str]]:
    with pools.connection(config) as conn:
        name = conn.execute("SELECT current_database()").fetchone()
        assert name is not None
        notes = [row[0] for row in conn.execute("SELECT body FROM note WHERE body LIKE 'canary%'")]
    return name[0], notes


def backend(conn: psycopg.Connection[object]) -> int:
    return conn.info.backend_pid
