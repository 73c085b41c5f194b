"""One SQLAlchemy engine, whichever tenant is current."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    Connection,
    Engine,
    NullPool,
    QueuePool,
    StaticPool,
    create_engine,
    engine_from_config,
    event,
    insert,
    select,
    text,
)
from sqlalchemy import inspect as sqlalchemy_inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from dataplane.context import no_tenant, use_tenant
from dataplane.errors import NoTenant, PoolExhausted, TenantChanged
from dataplane.pools import KeyedPools
from dataplane.settings import DataPlane
from dataplane.sqlalchemy import TenantEngineError, tenant_engine
from tests.dataplane.orm import URL, FlaskSession, Note
from tests.dataplane.tenants import TenantDatabase


@pytest.fixture
def engine() -> Engine:
    return tenant_engine()


def test_a_session_is_the_current_tenants(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    for _ in range(2):
        for tenant in tenants:
            with use_tenant(tenant.config(), pools), Session(engine) as session:
                bodies = session.scalars(select(Note.body).where(Note.body.like("canary%"))).all()
                assert bodies == [tenant.canary]
    assert pools.statistics.opened == 3, "given back and reused"
    with use_tenant(tenants[0].config(), pools), Session(engine) as session:
        session.add(Note(body="by the ORM"))
        session.commit()
        note = session.scalars(select(Note).where(Note.body == "by the ORM")).one()
        session.delete(note)
        session.commit()
    assert pools.open_connections == (3, 0)


def test_without_a_tenant_there_is_no_connection(engine: Engine) -> None:
    with pytest.raises(NoTenant):
        contextvars.Context().run(engine.connect)


def test_a_checked_out_connection_counts(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    config = tenants[0].config(pool_size=1)
    pools._timeout = 0.1
    with use_tenant(config, pools):
        with engine.connect(), pytest.raises(PoolExhausted):
            engine.connect()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("SET statement_timeout = '9s'"))
        with engine.connect() as conn:
            assert conn.execute(text("SHOW statement_timeout")).scalar() == "0"
            raw = conn.connection.driver_connection
            assert raw is not None
            assert not raw.autocommit
            assert not raw._notice_handlers, "nothing adds up on a connection that comes by often"


def test_a_connection_that_dies_in_use_is_thrown_away(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    tenant = tenants[0]
    with use_tenant(tenant.config(), pools):
        with engine.connect() as conn:
            pid = conn.execute(text("SELECT pg_backend_pid()")).scalar()
            with tenant.admin() as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            with pytest.raises(DBAPIError):
                conn.execute(text("SELECT 1"))
        with engine.connect() as conn:
            assert conn.execute(text("SELECT pg_backend_pid()")).scalar() != pid
    assert pools.open_connections == (1, 0)


def test_threads_share_the_engine(engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]) -> None:
    wrong: list[object] = []

    def work(tenant: TenantDatabase) -> None:
        for _ in range(30):
            with use_tenant(tenant.config(), pools), Session(engine) as session:
                seen = session.scalars(text("SELECT body FROM note WHERE body LIKE 'canary%'")).all()
                if seen != [tenant.canary]:
                    wrong.append(seen)

    threads = [threading.Thread(target=work, args=(tenant,)) for tenant in tenants * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


REFUSED: list[tuple[str, Any]] = [
    ("pool", QueuePool(lambda: None)),
    ("poolclass", QueuePool),
    ("poolclass", StaticPool),
    ("pool_size", 5),
    ("max_overflow", 0),
    ("pool_timeout", 3),
    ("pool_recycle", 60),
    ("pool_pre_ping", True),
    ("pool_use_lifo", True),
    ("pool_reset_on_return", "commit"),
    ("pool_events", [(len, "connect")]),
    ("creator", lambda: None),
    ("module", psycopg),
    ("connect_args", {"application_name": "mine"}),
    ("client_encoding", "latin1"),
    ("json_serializer", str),
    ("json_deserializer", str),
    ("native_inet_types", True),
    ("use_native_hstore", True),
    ("isolation_level", "SERIALIZABLE"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_arguments_that_would_have_no_effect_are_refused(name: str, value: Any) -> None:
    makers: list[Callable[..., Engine]] = [
        tenant_engine,
        lambda **options: create_engine(URL, **options),
        lambda **options: engine_from_config({"sqlalchemy.url": URL, f"sqlalchemy.{name}": value}),
    ]
    for make in makers:
        with pytest.raises(TenantEngineError, match=f"^{name}: not accepted by postgresql"):
            make(**{name: value})


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        ("/acme", "database"),
        ("db.example.com", "host"),
        ("db.example.com:5432/acme", "host, database, port"),
        ("me:secret-word@", "username, password"),
        ("?application_name=mine", "query"),
    ],
)
def test_a_url_that_names_a_database_is_refused(rest: str, named: str) -> None:
    with pytest.raises(TenantEngineError, match=f"got {named} too") as caught:
        create_engine(URL + rest)
    assert "secret-word" not in str(caught.value)


def test_what_changes_nothing_and_what_has_an_effect_is_accepted() -> None:
    harmless: dict[str, Any] = {"poolclass": NullPool, "connect_args": {}, "pool_pre_ping": False}
    engine = tenant_engine(echo=False, echo_pool=False, query_cache_size=10, **harmless)
    assert isinstance(engine.pool, NullPool)


def test_an_asyncio_engine_is_refused() -> None:
    with pytest.raises(TenantEngineError, match="tenant_connection_async"):
        create_async_engine(URL)


def test_a_listener_does_not_bring_a_connection_of_its_own(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    foreign: list[psycopg.Connection[Any]] = []

    @event.listens_for(engine, "do_connect")
    def connect(*_: Any) -> psycopg.Connection[Any]:
        foreign.append(tenants[1].admin())
        return foreign[0]

    with use_tenant(tenants[0].config(), pools), pytest.raises(TenantEngineError, match="do_connect"):
        engine.connect()
    assert foreign[0].closed


@pytest.mark.parametrize(
    "make", [lambda: create_engine(URL), lambda: engine_from_config({"sqlalchemy.url": URL}), tenant_engine]
)
def test_no_engine_hands_a_connection_to_another_tenant(
    make: Callable[[], Engine], pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    engine = make()
    for _ in range(2):
        for tenant in tenants:
            with use_tenant(tenant.config(), pools), engine.connect() as conn:
                assert conn.execute(text("SELECT current_database()")).scalar() == tenant.name


def test_flask_sqlalchemy_reads_the_own_rows(dataplane: DataPlane, tenants: list[TenantDatabase]) -> None:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = URL
    app.wsgi_app = dataplane.wsgi(app.wsgi_app)  # type: ignore[method-assign]
    db = SQLAlchemy(app, session_options={"class_": FlaskSession})

    @app.get("/")
    def canary() -> str:
        note = db.session.get(Note, 1)
        assert note is not None
        return note.body

    client = app.test_client()
    for tenant in (*tenants, tenants[0]):
        with client.get("/", headers={"Host": tenant.host}) as answer:
            assert answer.text == tenant.canary
    assert dataplane.pools.statistics.opened == len(tenants)


# ------------------------------------------------------------------- a connection that outlives its tenant

INSERT = "INSERT INTO note (body) VALUES ('by nobody')"


def driver(conn: Connection) -> psycopg.Connection[Any]:
    raw: Any = conn.connection.driver_connection
    return raw


def transaction_of_psycopg(conn: Connection) -> None:
    with driver(conn).transaction():
        raise AssertionError("begun")


def copy(conn: Connection) -> None:
    with driver(conn).cursor() as cursor, cursor.copy("COPY note TO STDOUT"):
        raise AssertionError("begun")


def ping(conn: Connection) -> None:
    driver(conn).rollback()
    conn.dialect.do_ping(conn.connection.dbapi_connection)  # type: ignore[arg-type]


USES: dict[str, Callable[[Connection], object]] = {
    "execute": lambda c: c.execute(text(INSERT)),
    "execute with parameters": lambda c: c.execute(text("SELECT :x"), {"x": 1}),
    "executemany": lambda c: c.execute(
        text("INSERT INTO note (body) VALUES (:body)"), [{"body": "a"}, {"body": "b"}]
    ),
    "insertmanyvalues": lambda c: c.execute(
        insert(Note).returning(Note.id, sort_by_parameter_order=True), [{"body": "a"}, {"body": "b"}]
    ),
    "driver SQL": lambda c: c.exec_driver_sql(INSERT),
    "driver SQL, many": lambda c: c.exec_driver_sql("INSERT INTO note (body) VALUES (%s)", [("a",), ("b",)]),
    "a server's cursor": lambda c: c.execution_options(yield_per=1).execute(text("SELECT body FROM note")),
    "a savepoint": lambda c: c.begin_nested(),
    "commit": lambda c: c.commit(),
    "DBAPI cursor": lambda c: c.connection.cursor().execute(INSERT),
    "DBAPI executemany": lambda c: c.connection.cursor().executemany(INSERT + " -- %s", [(1,)]),
    "DBAPI commit": lambda c: c.connection.commit(),
    "psycopg's execute": lambda c: driver(c).execute(INSERT),
    "psycopg's transaction": transaction_of_psycopg,
    "psycopg's copy": copy,
    "psycopg's stream": lambda c: next(driver(c).cursor().stream("SELECT 1")),
    "isolation tier": lambda c: c.get_isolation_level(),
    "ping": ping,
    "reflection": lambda c: sqlalchemy_inspect(c).get_table_names(),
    "prepared transactions": lambda c: c.recover_twophase(),
}


def bodies(tenant: TenantDatabase) -> list[str]:
    with tenant.admin() as admin:
        return [row[0] for row in admin.execute("SELECT body FROM app.note ORDER BY id")]


@pytest.fixture
def untouched(tenants: list[TenantDatabase]) -> Iterator[None]:
    before = [bodies(tenant) for tenant in tenants]
    yield
    assert [bodies(tenant) for tenant in tenants] == before


@pytest.mark.parametrize("use", USES)
def test_a_connection_does_nothing_for_another_tenant(
    use: str, engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants
    for other, error in ((use_tenant(globex.config(), pools), TenantChanged), (no_tenant(), NoTenant)):
        with use_tenant(acme.config(), pools):
            conn = engine.connect()
            conn.execute(text(INSERT))
        with other, pytest.raises(error):
            USES[use](conn)
        conn.close()
    with use_tenant(acme.config(), pools), engine.connect() as again:
        again.execute(text("SELECT 1"))
    assert pools.statistics.opened == 1, "it was given back and is used again"


def test_what_was_begun_is_not_ended_for_another_tenant(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants
    with use_tenant(acme.config(), pools):
        conn = engine.connect()
        outer = conn.begin()
        conn.execute(text(INSERT))
        inner = conn.begin_nested()
        conn.execute(text(INSERT))
    with use_tenant(globex.config(), pools):
        for transaction in (inner, outer):
            with pytest.raises(TenantChanged):
                transaction.commit()
    conn.close()
    with use_tenant(acme.config(), pools):
        conn = engine.connect()
        twophase = conn.begin_twophase()
        conn.execute(text(INSERT))
    with use_tenant(globex.config(), pools):
        for end in (twophase.prepare, twophase.commit):
            with pytest.raises(TenantChanged):
                end()
        with engine.connect() as own, pytest.raises(TenantChanged), use_tenant(acme.config(), pools):
            own.begin_twophase()
    conn.close()


def test_psycopgs_transaction_that_goes_on_under_another_tenant_is_rolled_back(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants

    def work(conn: Connection) -> None:
        with contextlib.ExitStack() as tenant, driver(conn).transaction():
            driver(conn).execute(INSERT)
            tenant.enter_context(use_tenant(globex.config(), pools))

    with use_tenant(acme.config(), pools), engine.connect() as conn, pytest.raises(TenantChanged):
        work(conn)


@pytest.mark.parametrize("options", [{}, {"yield_per": 2}, {"stream_results": True, "max_row_buffer": 1}])
def test_rows_that_were_not_fetched_yet_are_not_shown_to_another_tenant(
    options: dict[str, Any], engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    acme, globex, _ = tenants
    with use_tenant(acme.config(), pools):
        conn = engine.connect().execution_options(**options)
        rows = conn.execute(text("SELECT body, n FROM note, generate_series(1, 9) n"))
        assert rows.fetchone()
    for fetch in (rows.all, lambda: list(rows), rows.fetchall):
        with use_tenant(globex.config(), pools), pytest.raises(TenantChanged):
            fetch()
    with use_tenant(acme.config(), pools):
        conn.close()


def test_a_dbapi_connection_is_its_tenants(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants
    with use_tenant(acme.config(), pools):
        raw = engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute(INSERT)
        cursor.execute("SELECT body FROM note")
    with use_tenant(globex.config(), pools):
        for act in (
            cursor.fetchone,
            cursor.fetchmany,
            cursor.fetchall,
            lambda: next(iter(cursor)),
            raw.commit,
        ):
            with pytest.raises(TenantChanged):
                act()
    raw.close()
    assert pools.open_connections == (1, 0)


def test_an_isolation_level_of_one_use_costs_no_connection(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    with use_tenant(tenants[0].config(), pools):
        for tier in ("SERIALIZABLE", "AUTOCOMMIT", "REPEATABLE READ"):
            with engine.connect().execution_options(isolation_level=tier) as conn:
                shown = conn.execute(text("SHOW transaction_isolation")).scalar()
                assert shown == tier.lower() or tier == "AUTOCOMMIT"
        with engine.connect() as conn:
            assert conn.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
        with pools.connection(tenants[0].config()) as plain:
            assert type(plain) is psycopg.Connection
            assert type(plain.cursor()) is psycopg.Cursor
    assert pools.statistics.opened == 1


def test_a_plain_session_neither_refreshes_nor_writes_another_tenants_objects(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants
    session = Session(engine)
    with use_tenant(acme.config(), pools):
        note = session.get_one(Note, 1)
        session.commit()
    with use_tenant(globex.config(), pools):
        with pytest.raises(TenantChanged):
            assert note.body
        session.rollback()
        note.body = "of acme, in globex"
        with pytest.raises(TenantChanged):
            session.commit()
        session.close()
        assert session.get_one(Note, 1).body == globex.canary, "an empty session is nobody's"
        session.close()
