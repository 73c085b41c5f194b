"""The way to the registry: one pool for each process, and one place that says "the registry is down".

Services take a connection and open one transaction each. A connection that broke is thrown away by
the pool; whether the transaction took effect is then unknown, which is harmless because every
write here is either guarded (fencing token, revision, state) or idempotent.

Rows are frozen objects. What is selected derives from their class (`columns`), so that a column that is
added to a table reaches its readers by one line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache, partial
from typing import Any, LiteralString, TypeVar, get_type_hints
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import DictRow, dict_row, kwargs_row, scalar_row
from psycopg.sql import SQL, Composed, Identifier, Placeholder
from psycopg_pool import ConnectionPool, PoolTimeout

from controlplane.domain.errors import Conflict, NotFound, Retryable
from controlplane.domain.state import State

Connection = psycopg.Connection[DictRow]
Values = Sequence[Any] | Mapping[str, Any]
T = TypeVar("T")

IDLE_IN_TRANSACTION_TIMEOUT = 15.0
"""Seconds that a transaction may hold its locks without saying anything. A process that was stopped in the
middle of one (SIGSTOP, a machine that is gone) would keep others waiting for its rows. However much it
says, it ends after twice the time that one statement may take: its snapshot slows every claim down."""


_UNAVAILABLE = (
    PoolTimeout,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)


FRESH = 1.0
"""Seconds after its last use during which a connection is taken for good: a check is a round trip, and who
meets one that has broken since is told that the registry is unavailable, as who met it a moment later is."""
_used_at: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()


def _check(conn: Connection) -> None:
    if time.monotonic() - _used_at.get(conn, float("-inf")) > FRESH:
        ConnectionPool.check_connection(conn)


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
            check=_check,
            reconnect_timeout=wait,
            kwargs={
                "row_factory": dict_row,
                "autocommit": True,
                "connect_timeout": max(2, int(wait)),
                "application_name": "controlplane",
                "options": f"-c statement_timeout={int(statement_timeout * 1000)} -c TimeZone=UTC"
                f" -c idle_in_transaction_session_timeout={int(IDLE_IN_TRANSACTION_TIMEOUT * 1000)}"
                f" -c transaction_timeout={int(2000 * max(statement_timeout, IDLE_IN_TRANSACTION_TIMEOUT))}",
            },
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in autocommit mode. Raises RegistryUnavailable where there is none to be had
        or it breaks."""
        try:
            with self._pool.connection() as conn:
                try:
                    yield conn
                finally:  # not by the pool's `reset`: a pool that closes would leave this one open
                    _used_at[conn] = time.monotonic()
        except _UNAVAILABLE as error:
            raise RegistryUnavailable(f"the registry can't be reached ({type(error).__name__})") from error

    def close(self) -> None:
        self._pool.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.close()


# ---------------------------------------------------------------------------------------- rows


def one(row: T | None, what: str | None = None) -> T:
    """The row of a statement that must give one. Raises NotFound where `what` was asked for by its name, and
    LookupError where it must be there."""
    if row is not None:
        return row
    if what is not None:
        raise NotFound(f"{what} does not exist")
    raise LookupError("a statement that must return a row returned none")


def columns(row: type[Any], table: str = "") -> str:
    """The select list of a row class: its fields, as columns of the table that has this name or alias in the
    statement. What is no column has its SQL: `field(metadata={"sql": "keep_until <= now()"})`."""
    of = f"{table}." if table else ""
    return ", ".join(
        f"{column.metadata['sql']} AS {column.name}" if "sql" in column.metadata else of + column.name
        for column in fields(row)
    )


def query(
    conn: Connection, row: type[T], statement: str | Composed, values: Values | None = None
) -> psycopg.Cursor[T]:
    """Execute a statement whose result has the columns of `row`. Enums and what has a `from_json` are made
    of what the database has; for another type the field says how: `field(metadata={"read": …})`."""
    cursor = conn.cursor(row_factory=kwargs_row(partial(_read, row)))
    return cursor.execute(_plain(statement), values)


def select(
    conn: Connection, row: type[T], rest: str, values: Values | None = None, *, table: str = ""
) -> psycopg.Cursor[T]:
    """`SELECT`, the columns of `row`, and the rest from FROM on."""
    return query(conn, row, f"SELECT {columns(row, table)} {rest}", values)


class Together:
    """What several tables hold about one thing, by one statement: of each part a row of its class, or None.

        Together(t=(TenantRow, "FROM tenant WHERE id = %(id)s"), c=(ClusterRow, "FROM cluster WHERE …"))

    A part names those before it by their aliases. Each has one row at most, by its own conditions.
    """

    def __init__(self, **parts: tuple[type[Any], str]) -> None:
        self._rows = {alias: row for alias, (row, _) in parts.items()}
        listed = ", ".join(
            f'{alias}.{column} AS "{alias}.{column}"'
            for alias, row in self._rows.items()
            for column in ("_", *(found.name for found in fields(row)))
        )
        joined = " LEFT JOIN LATERAL ".join(
            f"(SELECT true AS _, {columns(row)} {rest}) AS {alias}{' ON true' if number else ''}"
            for number, (alias, (row, rest)) in enumerate(parts.items())
        )
        self._statement = _plain(f"SELECT {listed} FROM {joined}")  # noqa: S608 — row classes' own names

    def fetch(self, conn: Connection, values: Values) -> dict[str, Any] | None:
        """By alias; None where the first part has no row."""
        found = conn.execute(self._statement, values).fetchone()
        if found is None:
            return None
        return {
            alias: _read(row, **{column.name: found[f"{alias}.{column.name}"] for column in fields(row)})
            if found[f"{alias}._"]
            else None
            for alias, row in self._rows.items()
        }


def returning(
    conn: Connection, row: type[T], write: str, values: Values | None = None, *, table: str = ""
) -> psycopg.Cursor[T]:
    """The statement, `RETURNING` and the columns of `row`."""
    return query(conn, row, f"{write} RETURNING {columns(row, table)}", values)


def exists(conn: Connection, statement: LiteralString | SQL | Composed, values: Values | None = None) -> bool:
    """Does the statement find a row? What it selects does not matter."""
    return conn.execute(statement, values).fetchone() is not None


def column(conn: Connection, statement: str | Composed, values: Values | None = None) -> list[Any]:
    """Of each row of the result its only value."""
    return conn.cursor(row_factory=scalar_row).execute(_plain(statement), values).fetchall()


def _plain(statement: str | Composed) -> bytes | Composed:
    return statement.encode() if isinstance(statement, str) else statement


def _read(row: Any, /, **values: Any) -> Any:
    for name, read in _readers(row).items():
        values[name] = read(values[name])
    return row(**values)


@cache
def _readers(row: Any) -> dict[str, Callable[[Any], Any]]:
    types = get_type_hints(row)
    found = {column.name: _reader(types[column.name], column.metadata) for column in fields(row)}
    return {name: read for name, read in found.items() if read is not None}


def _reader(annotated: Any, metadata: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    if isinstance(annotated, type) and issubclass(annotated, StrEnum):
        return annotated
    return metadata.get("read") or getattr(annotated, "from_json", None)


# ------------------------------------------------------------------------------------ snapshots


@dataclass(frozen=True, slots=True)
class OldSnapshot:
    """`who`: the session, the prepared transaction or the replication slot that keeps it."""

    who: str
    seconds: float


def oldest_snapshot(conn: Connection) -> OldSnapshot | None:
    """What keeps rows that have ended from being cleared away, in this database. An old snapshot is what
    kills a queue: 10,000 claims under one turn half a millisecond into twenty-two."""
    return query(
        conn,
        OldSnapshot,
        "SELECT who, extract(epoch FROM clock_timestamp() - since)::float8 AS seconds FROM ("
        " SELECT format('session %s (%s, %s)', pid, usename, application_name) AS who, xact_start AS since"
        "   FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND xact_start IS NOT NULL"
        "    AND pid <> pg_backend_pid() AND datname = current_database()"
        "    AND backend_type = 'client backend'"
        " UNION ALL SELECT format('prepared transaction %s', gid), prepared FROM pg_prepared_xacts"
        "  WHERE database = current_database()"
        " ) AS found ORDER BY since LIMIT 1",
    ).fetchone()


# -------------------------------------------------------------------------------------- states


def transition(
    conn: Connection,
    table: str,
    key: Mapping[str, Any],
    to: State,
    changes: LiteralString = "",
    *,
    error: Callable[[str], Exception] = Conflict,
    sources: Sequence[str] = (),
    column: str = "state",
    **values: Any,
) -> None:
    """Bring the row that has all of `key` to this state, from one that it is reached from (or one of
    `sources`, of which there are fewer), and make `changes`, which take their values from `values`.

    Raises `error` where the row is in another state, and where there is none: Conflict to whoever asked,
    LeaseLost to a worker whose hold has run out, LookupError where a lease's guard makes it impossible.
    """
    given = {f"key_{name}": value for name, value in key.items()}
    where = SQL(" AND ").join(SQL("{} = {}").format(Identifier(n), Placeholder(f"key_{n}")) for n in key)
    names = {"table": Identifier(table), "column": Identifier(column), "where": where}
    write = SQL(
        "UPDATE {table} SET {changes} {column} = %(to)s WHERE {where} AND {column} = ANY(%(sources)s)"
        " RETURNING true"  # fetched and not counted: within a pipeline a count is not known yet
    ).format(changes=SQL(f"{changes}," if changes else ""), **names)
    allowed = list(sources or to.sources)
    if conn.execute(write, {**values, **given, "to": to, "sources": allowed}).fetchone() is None:
        found = conn.execute(
            SQL("SELECT {column} AS state FROM {table} WHERE {where}").format(**names), given
        ).fetchone()
        state = "not there, or in other hands" if found is None else found["state"]
        raise error(
            f"{table} {next(iter(key.values()))} is {state}:"
            f" only one that is {' or '.join(allowed)} can be {to}"
        )
