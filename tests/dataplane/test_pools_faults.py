"""What breaks: restarts, silence, black holes, paused clusters, forks; the others go on."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
import traceback
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from controlplane.localcloud.servers.postgres import PostgresServer
from dataplane.checkout import Limits
from dataplane.errors import (
    DatabaseError,
    DatabaseUnavailable,
    DatabaseWaking,
    PoolExhausted,
)
from dataplane.pools import KeyedPools
from tests.dataplane.proxy import Proxy
from tests.dataplane.reading import backend, read
from tests.dataplane.tenants import Logins, TenantDatabase


def test_a_restarted_database_costs_no_request(
    pools: KeyedPools, postgres_server: PostgresServer, tenants: list[TenantDatabase]
) -> None:
    config = tenants[0].config()
    with pools.connection(config), pools.connection(config):
        pass
    with psycopg.connect(postgres_server.url(), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [tenants[0].name]
        )
    assert read(pools, config)[0] == tenants[0].name
    assert pools.statistics.broken == 1, "the second one was not tried: it is as old"
    assert pools.open_connections == (1, 0)


def test_a_server_that_falls_silent_is_given_up_in_bounded_time(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    tenant = replace(tenants[0], port=proxy.port)
    pools = KeyedPools(logins.connector(timeout=2), check_timeout=0.3)
    read(pools, tenant.config())
    proxy.frozen, proxy.mode = True, "hold"
    with pytest.raises(DatabaseUnavailable, match="no answer in time"):
        read(pools, tenant.config())
    proxy.frozen, proxy.mode = False, "pass"
    time.sleep(0.6)
    assert read(pools, tenant.config())[0] == tenant.name
    pools.close()


def test_one_dead_database_holds_up_no_other(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    """The dead one is a black hole, its tenant's requests come as fast as they are answered. How long
    the others take is measured by `make bench-dataplane`; here none of them waits for the dead one's."""
    dead = replace(tenants[0], port=proxy.port).config()
    others = [tenant.config() for tenant in tenants[1:]]
    pools = KeyedPools(logins.connector(timeout=2), limits=Limits(budget=8), timeout=60)
    proxy.mode = "hold"
    stop = threading.Event()
    failures: list[str] = []

    def hammer() -> None:
        while not stop.is_set():
            try:
                read(pools, dead)
            except DatabaseError as error:
                failures.append(error.code)
                time.sleep(0.02)  # what a client needs to come again

    hammers = [threading.Thread(target=hammer) for _ in range(20)]
    for thread in hammers:
        thread.start()
    most = served = 0
    while len(failures) <= 20:
        assert read(pools, others[served % 2])[0] == tenants[1 + served % 2].name
        served += 1
        most = max(most, pools.open_connections[0])
    stop.set()
    for thread in hammers:
        thread.join(60)
    assert set(failures) <= {"database-unavailable", "busy"}
    assert served > len(hammers) / 5, "where the others stand in line behind the dead one's, one is served"
    assert most <= 2 + Limits().connecting, "it holds no more of the budget than it may open at a time"
    pools.close()


def test_a_database_that_is_full_says_busy(
    pools: KeyedPools, logins: Logins, tenants: list[TenantDatabase]
) -> None:
    tenant = tenants[0]
    limit = sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}")
    login = sql.Identifier(tenant.credential.username)
    with tenant.admin() as admin:
        admin.execute(limit.format(login, sql.Literal(1)))
        try:
            with pools.connection(tenant.config()), pytest.raises(PoolExhausted, match="no connection left"):
                pools.checkout(tenant.config())
        finally:
            admin.execute(limit.format(login, sql.Literal(-1)))


def test_a_paused_cluster_is_waited_for_within_bounds(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    tenant = replace(tenants[0], port=proxy.port)
    config = tenant.config(profile={"pauses": True})
    proxy.mode = "hold"
    pools = KeyedPools(logins.connector(timeout=2, wake=2), timeout=1)
    with pytest.raises(DatabaseWaking) as caught:
        read(pools, config)
    assert (caught.value.status, caught.value.retry_after) == (503, 5)
    time.sleep(0.6)
    threading.Timer(0.7, setattr, (proxy, "mode", "pass")).start()
    assert read(pools, config)[0] == tenant.name, "awake in time: the request only took longer"
    pools.close()


def test_beside_a_connect_that_hangs_the_others_are_told_why(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    tenant = replace(tenants[0], port=proxy.port)
    config = tenant.config(profile={"pauses": True}, pool_size=1)
    proxy.mode = "hold"
    pools = KeyedPools(logins.connector(timeout=2, wake=4), timeout=0.3)
    errors: list[DatabaseError] = []

    def wait() -> None:
        try:
            read(pools, config)
        except DatabaseError as error:
            errors.append(error)

    first = threading.Thread(target=wait)
    first.start()
    time.sleep(0.2)
    with pytest.raises(DatabaseWaking, match="still connecting"):
        read(pools, config)
    first.join(10)
    assert [error.code for error in errors] == ["waking"]
    pools.close()


def test_the_books_are_even_after_everything(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    """Faults of all kinds from many threads; at the end nothing is counted that isn't there."""
    configs = [replace(tenant, port=proxy.port).config(pool_size=3) for tenant in tenants]
    pools = KeyedPools(logins.connector(timeout=2), limits=Limits(budget=5, first_pause=0.02), timeout=0.5)
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(40):
            try:
                with pools.connection(draw.choice(configs)) as conn:
                    conn.execute("SELECT 1")
                    if draw.random() < 0.1:
                        conn.close()
            except (DatabaseError, psycopg.Error):
                continue
            except BaseException as error:  # raised in the test's own thread
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for mode in ("cut", "pass", "cut", "pass"):
        time.sleep(0.15)
        proxy.mode = mode
        proxy.cut()
        pools.retire(tenants[0].tenant_id)
    for thread in threads:
        thread.join(60)
    assert not wrong
    pools.close()
    time.sleep(0.05)
    assert pools.open_connections == (0, 0)
    assert all(not tenant.total and not tenant.waiting for tenant in pools._scheduler.tenants.values())


def test_a_forked_child_does_not_touch_its_parents_connections(
    pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    import os

    config = tenants[0].config()
    with pools.connection(config) as conn:
        parents = backend(conn)
    child = os.fork()
    if child == 0:
        try:
            with pools.connection(config) as conn:
                own = backend(conn) != parents
            pools.close()
            gc.collect()
            os._exit(0 if own else 1)
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pools.connection(config) as conn:
        assert backend(conn) == parents
