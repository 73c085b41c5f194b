"""The pools for threads on real tenant databases: whose connection, how many, and what when it breaks."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from dataplane.contract import Notice, TenantConfig
from dataplane.credentials import Credential
from dataplane.errors import (
    CredentialUnavailable,
    CrossTenantDetected,
    DatabaseError,
    DatabaseUnavailable,
    DatabaseWaking,
    PoolExhausted,
)
from dataplane.ledger import Limits
from dataplane.pools import KeyedPools
from localcloud.postgres import PostgresServer
from tests.dataplane.proxy import Proxy
from tests.dataplane.tenants import Logins, TenantDatabase, create_tenant


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    proxy = Proxy(postgres_server.port)
    yield proxy
    proxy.close()


def read(pools: KeyedPools, config: TenantConfig) -> tuple[str, list[str]]:
    with pools.connection(config) as conn:
        name = conn.execute("SELECT current_database()").fetchone()
        assert name is not None
        notes = [row[0] for row in conn.execute("SELECT body FROM note WHERE body LIKE 'canary%'")]
    return name[0], notes


def backend(conn: psycopg.Connection[object]) -> int:
    return conn.info.backend_pid


# ----------------------------------------------------------------------------------------- whose


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
        except BaseException as error:  # told to the test's own thread
            wrong.append(error)
        done.wait()

    for seed in range(16):
        threading.Thread(target=work, args=(seed,)).start()
    done.wait(120)
    assert not wrong
    assert pools.statistics.lent == 16 * 60
    assert pools.statistics.most_shared <= 4
    assert pools.statistics.evicted > 0
    pools.close()
    assert pools.open_connections == (0, 0)


def test_a_secret_that_opens_anothers_database_is_noticed(
    pools: KeyedPools, logins: Logins, tenants: list[TenantDatabase]
) -> None:
    """The configuration of acme with the address and login of globex: everything works but the marker."""
    acme, globex, _ = tenants
    logins.logins[acme.tenant_id] = globex.credential
    mixed = acme.config(database=globex.config().database)
    with pytest.raises(CrossTenantDetected, match=f"expected database {globex.name} of {acme.tenant_id}"):
        read(pools, mixed)
    assert pools.open_connections == (0, 0)
    assert pools.statistics.crossed == 1


def test_a_marker_that_changes_under_an_idle_connection_is_noticed(
    pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    acme = tenants[0]
    read(pools, acme.config())
    with acme.admin() as admin:
        admin.execute("UPDATE platform.identity SET tenant_id = 't-somebodyelse'")
    try:
        with pytest.raises(CrossTenantDetected):
            read(pools, acme.config())
        assert pools.open_connections == (0, 0), "destroyed"
    finally:
        with acme.admin() as admin:
            admin.execute("UPDATE platform.identity SET tenant_id = %s", [acme.tenant_id])
    time.sleep(0.6)
    assert read(pools, acme.config())[0] == acme.name


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM platform.identity",
        "INSERT INTO platform.identity VALUES ('t-second')",
        "REVOKE SELECT ON platform.identity FROM {app}",
        "DROP SCHEMA platform CASCADE",
    ],
)
def test_without_one_readable_marker_nobody_gets_in(
    postgres_server: PostgresServer, logins: Logins, change: str
) -> None:
    tenant = create_tenant(postgres_server, "marker")
    logins.add(tenant)
    with tenant.admin() as admin:
        admin.execute(sql.SQL(change).format(app=sql.Identifier(tenant.credential.username)))
    pools = KeyedPools(logins.connector())
    with pytest.raises(CrossTenantDetected):
        read(pools, tenant.config())
    assert pools.open_connections == (0, 0)


# ----------------------------------------------------------------------------------------- reset


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


# ----------------------------------------------------------------------------------------- how many


def test_a_tenant_has_its_own_limit_and_a_clear_error(logins: Logins, tenants: list[TenantDatabase]) -> None:
    config = tenants[0].config(pool_size=2)
    pools = KeyedPools(logins.connector(), limits=Limits(waiting=1), timeout=0.2)
    with pools.connection(config), pools.connection(config):
        with pytest.raises(PoolExhausted, match="none of its connections became free in time"):
            read(pools, config)
        pools._timeout = 5
        waiter = threading.Thread(target=read, args=(pools, config))
        waiter.start()
        time.sleep(0.1)
        with pytest.raises(PoolExhausted, match="1 requests are in line already"):
            read(pools, config)
        assert read(pools, tenants[1].config())[0] == tenants[1].name, "others have theirs"
    waiter.join(5)
    assert pools.statistics.refused == 2
    pools.close()


def test_dedicated_tenants_stand_outside_the_budget(logins: Logins, tenants: list[TenantDatabase]) -> None:
    shared, vip, _ = tenants
    pools = KeyedPools(logins.connector(), limits=Limits(budget=1), timeout=0.2)
    with pools.connection(shared.config()):
        with pools.connection(vip.config(dedicated=True)):
            assert pools.open_connections == (1, 1)
        with pytest.raises(PoolExhausted):
            read(pools, tenants[2].config())
    pools.close()


def test_idle_connections_are_closed_by_the_one_keeper(logins: Logins, tenants: list[TenantDatabase]) -> None:
    pools = KeyedPools(logins.connector(), idle=0.2)
    before = threading.active_count()
    for tenant in tenants:
        read(pools, tenant.config())
    assert threading.active_count() <= before + 1, "no thread per tenant"
    until = time.monotonic() + 5
    while pools.open_connections != (0, 0):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not pools._ledger.tenants
    keeper = pools._keeper
    assert keeper is not None
    pools.close()
    keeper.join(5)
    assert not keeper.is_alive()


# ----------------------------------------------------------------------------------------- what breaks


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
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="no answer in time"):
        read(pools, tenant.config())
    assert time.monotonic() - began < 4
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        read(pools, tenant.config())
    assert time.monotonic() - began < 0.1, "blocked: it fails at once"
    proxy.frozen, proxy.mode = False, "pass"
    time.sleep(0.6)
    assert read(pools, tenant.config())[0] == tenant.name
    pools.close()


def test_one_dead_database_slows_no_other(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    """The dead one is a black hole, its tenant's requests come as fast as they are answered."""
    dead = replace(tenants[0], port=proxy.port).config()
    others = [tenant.config() for tenant in tenants[1:]]
    pools = KeyedPools(logins.connector(timeout=2), limits=Limits(budget=8), timeout=2)

    def p99(seconds: float) -> float:
        times = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            read(pools, others[len(times) % 2])
            times.append(time.perf_counter() - began)
        return sorted(times)[int(len(times) * 0.99)]

    p99(0.2)
    alone = min(p99(1) for _ in range(2))
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
    beside = p99(3)
    most = pools.open_connections[0]
    stop.set()
    for thread in hammers:
        thread.join(10)
    assert set(failures) <= {"database-unavailable", "busy"}
    assert len(failures) > 20
    assert most <= 2 + Limits().connecting, "it holds no more of the budget than it may open at a time"
    assert beside < alone * 4 + 0.02, f"{beside:.4f} s beside, {alone:.4f} s alone"
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
                pools.lend(tenant.config())
        finally:
            admin.execute(limit.format(login, sql.Literal(-1)))


def test_a_paused_cluster_is_waited_for_within_bounds(
    logins: Logins, tenants: list[TenantDatabase], proxy: Proxy
) -> None:
    tenant = replace(tenants[0], port=proxy.port)
    config = tenant.config(profile={"pauses": True})
    proxy.mode = "hold"
    pools = KeyedPools(logins.connector(timeout=2, wake=2), timeout=1)
    began = time.monotonic()
    with pytest.raises(DatabaseWaking) as caught:
        read(pools, config)
    assert time.monotonic() - began < 4
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


# ----------------------------------------------------------------------------------------- logins


class Rotating:
    """A vault with a version that tests rotate."""

    def __init__(self, credential: Credential) -> None:
        self.vault = credential
        self.known = credential
        self.fetched = 0

    def get(self, config: TenantConfig) -> Credential:
        return self.known

    def refresh(self, config: TenantConfig, refused: Credential) -> Credential:
        self.fetched += 1
        self.known = self.vault
        return self.known

    def forget(self, tenant_id: str) -> None:
        self.refresh(None, self.known)  # type: ignore[arg-type]


@pytest.fixture
def rotating(postgres_server: PostgresServer) -> tuple[TenantDatabase, Rotating]:
    tenant = create_tenant(postgres_server, "rotating")
    return tenant, Rotating(tenant.credential)


def change_password(tenant: TenantDatabase, password: str) -> Credential:
    with tenant.admin() as admin:
        admin.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                sql.Identifier(tenant.credential.username), sql.Literal(password)
            )
        )
    return Credential(tenant.credential.username, password)


def with_credentials(logins: Logins, credentials: Rotating) -> KeyedPools:
    connector = logins.connector()
    connector.credentials = credentials
    return KeyedPools(connector)


def test_a_refused_login_is_fetched_anew_once(
    rotating: tuple[TenantDatabase, Rotating], logins: Logins
) -> None:
    tenant, credentials = rotating
    pools = with_credentials(logins, credentials)
    credentials.vault = change_password(tenant, "new")
    assert read(pools, tenant.config())[0] == tenant.name
    assert credentials.fetched == 1
    pools.close()


def test_a_login_that_stays_refused_is_an_answer(
    rotating: tuple[TenantDatabase, Rotating], logins: Logins
) -> None:
    tenant, credentials = rotating
    pools = with_credentials(logins, credentials)
    change_password(tenant, "known to nobody")
    with pytest.raises(CredentialUnavailable, match="the login was refused"):
        read(pools, tenant.config())
    assert credentials.fetched == 1
    with tenant.admin() as admin:
        admin.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(tenant.credential.username)))
    time.sleep(0.6)
    with pytest.raises(CredentialUnavailable):
        read(pools, tenant.config())
    assert credentials.fetched == 2
    pools.close()


def test_a_rotation_under_load_fails_no_request(
    rotating: tuple[TenantDatabase, Rotating], logins: Logins
) -> None:
    """Two logins: the next is made, the notice goes out, the old one is closed."""
    tenant, credentials = rotating
    pools = with_credentials(logins, credentials)
    failures: list[BaseException] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                read(pools, tenant.config())
            except BaseException as error:  # told to the test's own thread
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    names = {"a": tenant.credential.username, "b": tenant.credential.username[:-1] + "b"}
    with tenant.admin() as admin:
        grant = "GRANT {a} TO {b}; ALTER ROLE {b} INHERIT; GRANT CONNECT ON DATABASE {d} TO {b}"
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'b'").format(sql.Identifier(names["b"])))
        admin.execute(
            sql.SQL(grant).format(
                a=sql.Identifier(names["a"]), b=sql.Identifier(names["b"]), d=sql.Identifier(tenant.name)
            )
        )
        admin.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = app").format(
                sql.Identifier(names["b"]), sql.Identifier(tenant.name)
            )
        )
        time.sleep(0.2)
        credentials.vault = Credential(names["b"], "b")
        pools.noticed(Notice("credential", "", 0, tenant.tenant_id))
        time.sleep(0.3)
        old = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
        assert admin.execute(old, [names["a"]]).fetchone() == (0,), "nobody uses the old one any more"
        admin.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(names["a"])))
        time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not failures
    pools.close()


def test_no_error_of_a_connect_carries_the_password(
    rotating: tuple[TenantDatabase, Rotating], logins: Logins, caplog: pytest.LogCaptureFixture
) -> None:
    """I9. psycopg's own exception does, in `pgconn` and in the locals of its frames."""
    caplog.set_level(logging.DEBUG)
    tenant, credentials = rotating
    credentials.vault = credentials.known = Credential(tenant.credential.username, "canary-of-a-password")
    pools = with_credentials(logins, credentials)
    with pytest.raises(DatabaseError) as caught:
        read(pools, tenant.config())
    error: BaseException | None = caught.value
    while error is not None:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert "canary-of-a-password" not in "".join(shown.format())
        assert "canary-of-a-password" not in repr(vars(error))
        error = error.__cause__ or error.__context__
    assert "canary-of-a-password" not in caplog.text
    assert "canary-of-a-password" not in repr(credentials.vault)


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
            except BaseException as error:  # told to the test's own thread
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
    assert all(not tenant.total and not tenant.waiting for tenant in pools._ledger.tenants.values())


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
