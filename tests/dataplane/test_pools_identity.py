"""Whose connection is it: the right tenant's, asserted at every checkout, and nothing of its last user."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from controlplane.localcloud.servers.postgres import PostgresServer
from dataplane.checkout import Limits
from dataplane.errors import (
    CrossTenantDetected,
)
from dataplane.pools import KeyedPools
from dataplane.wire import is_own
from tests.dataplane.reading import backend, read
from tests.dataplane.tenants import Logins, TenantDatabase, create_tenant


def test_each_tenant_reads_its_own_and_connections_are_reused(
    pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    for _ in range(3):
        for tenant in tenants:
            assert read(pools, tenant.config()) == (tenant.name, [tenant.canary])
    assert pools.statistics.opened == 3
    assert pools.open_connections == (3, 0)


def test_threads_over_tenants_never_read_anothers_rows(logins: Logins, tenants: list[TenantDatabase]) -> None:
    """I7, with a budget so small that connections are opened, evicted and handed on all the time."""
    pools = KeyedPools(logins.connector(), limits=Limits(budget=4, waiting=100), timeout=30)
    wrong: list[object] = []
    done = threading.Barrier(17)

    def work(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for _ in range(60):
                tenant = draw.choice(tenants)
                seen = read(pools, tenant.config())
                if seen != (tenant.name, [tenant.canary]):
                    wrong.append((tenant.name, seen))
        except BaseException as error:  # raised in the test's own thread
            wrong.append(error)
        done.wait()

    for seed in range(16):
        threading.Thread(target=work, args=(seed,)).start()
    done.wait(120)
    assert not wrong
    assert pools.statistics.checked_out == 16 * 60
    assert pools.statistics.most_shared <= 4
    assert pools.statistics.evicted > 0
    pools.close()
    assert pools.open_connections == (0, 0)


def test_a_secret_that_opens_anothers_database_is_noticed(
    pools: KeyedPools, logins: Logins, tenants: list[TenantDatabase]
) -> None:
    """The configuration of acme with the address and login of globex: everything works but the identity."""
    acme, globex, _ = tenants
    logins.logins[acme.tenant_id] = globex.credential
    mixed = acme.config(database=globex.config().database)
    expected = f"expected database {globex.name}, placement {mixed.placement} of {acme.tenant_id}, got"
    with pytest.raises(CrossTenantDetected, match=expected):
        read(pools, mixed)
    assert pools.open_connections == (0, 0)
    assert pools.statistics.crossed == 1


VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "identity.json").read_text())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: str(case["about"]))
def test_identity_vector(tenants: list[TenantDatabase], case: dict[str, Any]) -> None:
    given = VECTORS["entry"]
    address = tenants[0].config().database
    assert address is not None
    config = tenants[0].config(
        database=replace(address, name=given["database"]),
        placement=given["placement"],
        tenant_id=given["tenant_id"],
    )
    assert is_own([tuple(row) for row in case["rows"]], config) is case["own"]


def test_a_database_without_a_tenant_is_any_tenants_of_its_placement(
    pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    """It is published before its tenant is written into it."""
    acme = tenants[0]
    with acme.admin() as admin:
        admin.execute("UPDATE platform.identity SET tenant = NULL")
    try:
        assert read(pools, acme.config()) == (acme.name, [acme.canary])
        with pytest.raises(CrossTenantDetected, match="of None"):
            read(pools, acme.config(placement=tenants[1].config().placement))
    finally:
        with acme.admin() as admin:
            admin.execute("UPDATE platform.identity SET tenant = %s", [acme.tenant_id])


@pytest.mark.parametrize("column", ["placement", "tenant"])
def test_an_identity_that_changes_under_an_idle_connection_is_noticed(
    pools: KeyedPools, tenants: list[TenantDatabase], column: str
) -> None:
    acme = tenants[0]
    own = {"placement": acme.config().placement, "tenant": acme.tenant_id}[column]
    change = sql.SQL("UPDATE platform.identity SET {} = %s").format(sql.Identifier(column))
    read(pools, acme.config())
    with acme.admin() as admin:
        admin.execute(change, ["somebody-elses"])
    try:
        with pytest.raises(CrossTenantDetected):
            read(pools, acme.config())
        assert pools.open_connections == (0, 0), "destroyed"
    finally:
        with acme.admin() as admin:
            admin.execute(change, [own])
    time.sleep(0.6)
    assert read(pools, acme.config())[0] == acme.name


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM platform.identity",
        "INSERT INTO platform.identity SELECT * FROM platform.identity",
        "ALTER TABLE platform.identity DROP COLUMN placement",
        "REVOKE SELECT ON platform.identity FROM {app}",
        "DROP SCHEMA platform CASCADE",
    ],
)
def test_without_one_readable_identity_nobody_gets_in(
    postgres_server: PostgresServer, logins: Logins, change: str
) -> None:
    tenant = create_tenant(postgres_server, "identity")
    logins.add(tenant)
    with tenant.admin() as admin:
        admin.execute(sql.SQL(change).format(app=sql.Identifier(tenant.credential.username)))
    pools = KeyedPools(logins.connector())
    with pytest.raises(CrossTenantDetected):
        read(pools, tenant.config())
    assert pools.open_connections == (0, 0)


def test_nothing_of_a_session_outlives_its_return(pools: KeyedPools, tenants: list[TenantDatabase]) -> None:
    config = tenants[0].config()
    with pools.connection(config) as conn:
        first = backend(conn)
        conn.autocommit = True
        conn.row_factory = dict_row
        conn.execute("SET search_path = pg_catalog")
        conn.execute("SET statement_timeout = '7s'")
        conn.execute("SELECT pg_advisory_lock(42)")
        conn.execute("PREPARE mine AS SELECT 1")
        conn.execute("LISTEN mine")
        conn.execute("SELECT set_config('app.user', 'alice', false)")
    with pools.connection(config) as conn:
        assert backend(conn) == first
        assert not conn.autocommit
        row = conn.execute(
            "SELECT current_setting('search_path'), current_setting('statement_timeout'),"
            " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),"
            " (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),"
            " coalesce(current_setting('app.user', true), '')"
        ).fetchone()
    assert row == ("app, pg_temp", "0", 0, 0, 0, "")


def test_a_block_is_one_transaction(pools: KeyedPools, tenants: list[TenantDatabase]) -> None:
    config = tenants[1].config()
    with contextlib.suppress(ZeroDivisionError), pools.connection(config) as conn:
        conn.execute("INSERT INTO note (body) VALUES ('undone')")
        raise ZeroDivisionError
    with pools.connection(config) as conn:
        conn.execute("INSERT INTO note (body) VALUES ('done')")
    with pools.connection(config) as conn:
        rows = conn.execute("SELECT body FROM note WHERE body LIKE '%done' ORDER BY 1").fetchall()
        conn.execute("DELETE FROM note WHERE body = 'done'")
    assert rows == [("done",)]
    assert pools.statistics.opened == 1, "an exception of the application costs no connection"


@pytest.mark.parametrize("spoil", ["prepare", "isolation", "copy", "close"])
def test_a_connection_changed_beyond_the_reset_is_not_reused(
    pools: KeyedPools, tenants: list[TenantDatabase], spoil: str
) -> None:
    config = tenants[0].config()
    with contextlib.suppress(psycopg.Error), pools.connection(config) as conn:
        first = backend(conn)
        if spoil == "prepare":
            conn.prepare_threshold = 1
        elif spoil == "isolation":
            conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        elif spoil == "copy":
            conn.pgconn.exec_(b"COPY note TO STDOUT")
        else:
            conn.close()
    with pools.connection(config) as conn:
        assert backend(conn) != first
    assert pools.statistics.broken == 1
