"""SQLAlchemy through the same pools: one engine for all tenants, and sessions that stay with theirs.

    engine = tenant_engine()
    with TenantSession(engine) as session: ...   # inside of a tenant's request or `use_tenant`

A connection that the engine takes is the current tenant's at that moment, from the keyed pools, with
all that they assert and limit. The engine keeps none of its own: a pool of SQLAlchemy's would hand one
tenant's connection to the next, so the dialect accepts none, whoever makes the engine.

What SQLAlchemy holds can outlive the tenant that it was made for: a connection, a cursor, a Session that
nobody closed, the objects in it. So a connection that is lent here compares its tenant with the current
one before each statement, each row that is fetched and each commit. A Session that
has objects begins no transaction for another tenant. But what it has in memory needs no statement and no
transaction, which is why there is `TenantSession`: it belongs to the tenant that first uses it, and
the identity of each object that it loads or saves contains the tenant's id.

What SQLAlchemy caches with the engine (compiled statements, the server's version) is the same for every
tenant.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import psycopg
from sqlalchemy import URL, Connection, Engine, NullPool, Pool, create_engine, event, exc, inspect
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from dataplane.checkout import PooledConnection
from dataplane.context import current_pools, current_tenant
from dataplane.errors import TenantChanged
from dataplane.pooling import expect_not_failed
from dataplane.pools import KeyedPools

Conn = psycopg.Connection[Any]


class TenantEngineError(exc.ArgumentError):
    """An argument or a part of the URL that an engine for all tenants can't honour; the message names it."""


_POOL = (
    "connections are the data plane's: DATAPLANE_POOL_BUDGET limits them, and the tenant's pool_size; "
    "each is checked when it is lent and reset when it comes back"
)
_PSYCOPG = (
    "connections are opened by the data plane for every kind of use; convert in a TypeDecorator instead"
)
_INSTEAD = {
    "pool": _POOL,
    "poolclass": _POOL,
    "pool_size": _POOL,
    "max_overflow": _POOL,
    "pool_timeout": _POOL,
    "pool_recycle": _POOL,
    "pool_pre_ping": _POOL,
    "pool_use_lifo": _POOL,
    "pool_reset_on_return": _POOL,
    "pool_events": _POOL,
    "creator": "the tenant's configuration says where its database is",
    "module": "connections are psycopg's",
    "connect_args": "connections are opened by the data plane, its settings are DATAPLANE_*; "
    "for one transaction use SET LOCAL",
    "client_encoding": _PSYCOPG,
    "json_serializer": _PSYCOPG,
    "json_deserializer": _PSYCOPG,
    "native_inet_types": _PSYCOPG,
    "use_native_hstore": _PSYCOPG,
    "isolation_level": "set it for those connections that need it: "
    "engine.execution_options(isolation_level=…), or Session.connection(execution_options=…)",
}


class TenantDialect(PGDialect_psycopg):
    """psycopg's dialect, in which connecting is taking and closing is giving back."""

    driver = "dataplane"
    supports_statement_cache = True

    def __init__(  # noqa: PLR0917  # SQLAlchemy passes to a dialect what its signature names, by name
        self,
        pool: Any = None,
        poolclass: Any = None,
        pool_size: Any = None,
        max_overflow: Any = None,
        pool_timeout: Any = None,
        pool_recycle: Any = None,
        pool_pre_ping: Any = None,
        pool_use_lifo: Any = None,
        pool_reset_on_return: Any = None,
        pool_events: Any = None,
        creator: Any = None,
        module: Any = None,
        connect_args: Any = None,
        client_encoding: Any = None,
        json_serializer: Any = None,
        json_deserializer: Any = None,
        native_inet_types: Any = None,
        use_native_hstore: Any = None,
        isolation_level: Any = None,
        **options: Any,
    ) -> None:
        arguments = locals()
        for name, instead in _INSTEAD.items():
            value = arguments[name]
            if not (value is None or value is False or value == {} or value is NullPool):
                raise TenantEngineError(f"{name}: not accepted by postgresql+dataplane: {instead}")
        super().__init__(use_native_hstore=False, **options)  # type: ignore[no-untyped-call]

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return NullPool

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> NoReturn:
        raise TenantEngineError(
            "postgresql+dataplane: no asyncio engine is offered: in coroutines use "
            "`async with tenant_connection_async() as conn` of dataplane.context, "
            "or create_engine in code that runs in threads"
        )

    def create_connect_args(self, url: URL) -> Any:
        parts = url.translate_connect_args() | {"query": url.query}
        given = [name for name, value in parts.items() if value]
        if given:
            raise TenantEngineError(
                f"URL: expected postgresql+dataplane:// alone, got {', '.join(given)} too: "
                "the tenant's configuration says where its database is"
            )
        return [], {}

    def connect(self, *cargs: Any, **cparams: Any) -> Any:
        pools = current_pools()
        return _checkout(pools, pools.checkout(current_tenant()))

    def on_connect(self) -> Callable[[Any], None]:
        """Nothing is added: a connection comes by many times, and it would add up."""
        return _expect_checked_out

    def do_close(self, dbapi_connection: Any) -> None:
        with contextlib.suppress(psycopg.Error):  # what can't be rolled back is thrown away by the pools
            dbapi_connection.rollback()  # SQLAlchemy does not, after a commit that failed
        pools, held = dbapi_connection.pools, dbapi_connection.held
        del dbapi_connection.pools, dbapi_connection.held
        dbapi_connection.__class__ = psycopg.Connection
        pools.checkin(held)

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.close()  # broken: the pool throws it away
        self.do_close(dbapi_connection)

    def reset_isolation_level(self, dbapi_conn: Any) -> None:
        """To none of its own: one that has a level, be it the default, is not used again by the pools."""
        dbapi_conn.autocommit = False
        dbapi_conn.isolation_level = None


def tenant_engine(**options: Any) -> Engine:
    """The same as `create_engine("postgresql+dataplane://", **options)`. Raises TenantEngineError for an
    option that would have no effect, or a wrong one: those of pools and of connections (`connect_args`,
    JSON functions), and `isolation_level`, which is set by execution options."""
    return create_engine("postgresql+dataplane://", **options)


registry.register("postgresql.dataplane", "dataplane.sqlalchemy", "TenantDialect")


# ----------------------------------------------------------------------------------- connections


class _CheckedOutConnection(psycopg.Connection[Any]):
    """A connection of the pools while SQLAlchemy has it. It is the pools' own object, whose class is
    changed for that time: a wrapper would not be taken by what asks for psycopg's class, such as
    `TypeInfo.fetch` and all that registers types with it."""

    pools: KeyedPools
    held: PooledConnection[Conn]

    def assert_current(self) -> None:
        _assert_current(self.held.target.tenant_id, "this connection")

    def commit(self) -> None:
        self.assert_current()
        expect_not_failed(self)
        super().commit()

    @contextlib.contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        self.assert_current()
        with super().transaction(savepoint_name, force_rollback) as transaction:
            yield transaction
            self.assert_current()

    def tpc_begin(self, xid: psycopg.Xid | str) -> None:
        self.assert_current()
        super().tpc_begin(xid)

    def tpc_prepare(self) -> None:
        self.assert_current()
        super().tpc_prepare()

    def tpc_commit(self, xid: psycopg.Xid | str | None = None) -> None:
        self.assert_current()
        super().tpc_commit(xid)


_STATEMENTS_AND_ROWS = (
    *("execute", "executemany", "stream", "copy", "scroll"),
    *("fetchone", "fetchmany", "fetchall", "__next__"),
)


def _guarded(base: type[Any]) -> type[Any]:
    """The class of cursors whose every statement and row is for the tenant that they were made for."""

    def begin(self: Any, connection: _CheckedOutConnection, **options: Any) -> None:
        base.__init__(self, connection, **options)
        self.tenant_id = connection.held.target.tenant_id

    def checked(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def check_first(self: Any, *args: Any, **options: Any) -> Any:
            _assert_current(self.tenant_id, "this cursor")
            return method(self, *args, **options)

        return check_first

    methods = {name: checked(getattr(base, name)) for name in _STATEMENTS_AND_ROWS}
    return type(base.__name__, (base,), {"__init__": begin, **methods})


_CheckedOutCursor, _CheckedOutServerCursor = _guarded(psycopg.Cursor), _guarded(psycopg.ServerCursor)


def _checkout(pools: KeyedPools, held: PooledConnection[Conn]) -> _CheckedOutConnection:
    conn: Any = held.conn
    conn.__class__ = _CheckedOutConnection
    conn.pools, conn.held = pools, held
    conn.cursor_factory, conn.server_cursor_factory = (
        _CheckedOutCursor,
        _CheckedOutServerCursor,
    )  # till it comes back
    checked_out: _CheckedOutConnection = conn
    return checked_out


def _expect_checked_out(conn: Any) -> None:
    if not isinstance(conn, _CheckedOutConnection):
        conn.close()
        raise TenantEngineError(
            "do_connect: a listener of this event has made a connection of its own: "
            "expected None, connections are the data plane's"
        )


def _assert_current(tenant_id: str, what: str) -> None:
    """Raises NoTenant, TenantChanged."""
    current = current_tenant().tenant_id
    if current != tenant_id:
        raise TenantChanged(
            f"{what} is {tenant_id}'s, the current tenant is {current}: open a session or connection for "
            "each request and job, and close it (scoped_session: `remove()`) before its tenant ends"
        )


# ----------------------------------------------------------------------------------- sessions


_BEGUN_FOR = "dataplane_tenant"  # in the `info` of a Session


class TenantSession(Session):
    """A Session of one tenant: of the one that is current when it is first used, until it is closed.

    All that it is asked for another tenant raises TenantChanged, with or without a statement: `get`,
    lazy loads and refreshes, `merge`, flushes, commits. So does each object of another tenant that it is
    given, attached or detached, pickled or cached, and a persistent one that no TenantSession has loaded,
    whose tenant nobody knows. NoTenant is raised outside of a tenant.

    The tenant's id is the objects' identity token: `inspect(note).identity_key[2]`.
    """

    _tenant_id: str | None = None

    def get_bind(self, *args: Any, **options: Any) -> Any:
        """Each statement, flush and bulk method asks for its engine or connection here."""
        self._own()
        return super().get_bind(*args, **options)

    def merge(self, instance: Any, **options: Any) -> Any:
        self._own()
        return super().merge(instance, **options)

    def bulk_save_objects(self, objects: Iterable[Any], *args: Any, **options: Any) -> None:
        objects = list(objects)
        for instance in objects:
            self._admit(instance)
        super().bulk_save_objects(objects, *args, **options)

    def expunge_all(self) -> None:
        """Also the beginning of `close` and `reset`: without objects the session is nobody's."""
        super().expunge_all()
        self._tenant_id = None

    def _identity_lookup(  # type: ignore[override]  # `options`: what it has beside
        self, mapper: Mapper[Any], primary_key_identity: Any, identity_token: Any = None, **options: Any
    ) -> Any:
        """Where `get` and many-to-one attributes look for an object in memory."""
        return super()._identity_lookup(
            mapper, primary_key_identity, identity_token=self._own(identity_token), **options
        )

    def _own(self, identity_token: str | None = None) -> str:
        """The id of the tenant whose session it is. Raises NoTenant, TenantChanged."""
        if self._tenant_id is None:
            self._tenant_id = current_tenant().tenant_id
        _assert_current(self._tenant_id, "this session")
        if identity_token is not None:
            _assert_current(identity_token, "this object")
        return self._tenant_id

    def _admit(self, instance: object) -> None:
        """An object is about to become one of this session's."""
        state: Any = inspect(instance)
        token = state.identity_token if state.key is None else state.key[2]
        tenant_id = self._own(token)
        if token is None and state.key is not None:
            raise TenantChanged(
                f"{instance.__class__.__name__}: no TenantSession has loaded or saved this object, so nobody "
                f"knows whose it is; the current tenant is {tenant_id}: load it with this session"
            )
        state.identity_token = tenant_id


@event.listens_for(TenantSession, "before_attach")
def _before_attach(session: TenantSession, instance: object) -> None:
    session._admit(instance)


@event.listens_for(TenantSession, "do_orm_execute")
def _do_orm_execute(state: ORMExecuteState) -> None:
    session: Any = state.session
    token = state.load_options._identity_token if state.is_orm_statement and state.is_select else None
    state.update_execution_options(identity_token=session._own(token))


@event.listens_for(Session, "after_begin")
def _after_begin(session: Session, _transaction: Any, connection: Connection) -> None:
    """Of every Session on our dialect, plain ones too: objects that it still has are not refreshed from
    another tenant's database, and not written to it."""
    if isinstance(connection.dialect, TenantDialect):
        if session.identity_map or session.new:
            _assert_current(session.info.get(_BEGUN_FOR, current_tenant().tenant_id), "this session")
        session.info[_BEGUN_FOR] = current_tenant().tenant_id
