"""A copy of a tenant's database on its own cluster, migrated to see what would happen, and dropped.

The copy is made by CREATE DATABASE … TEMPLATE, which is quick and exact and needs the original to be
without sessions for that moment: one that is in use is not disturbed but reported as busy. While the
copy is migrated, by whatever tool, a session of the master looks at its locks every few milliseconds:
those that would hold up readers or writers of tables that were there before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from controlplane.domain.placement import Placement
from controlplane.workers.providers.databases.sessions import Master
from controlplane.workers.providers.ports import LockHeld

EVERY = 0.005  # seconds
PATIENCE = 3.0  # seconds for the original to be without sessions
STRONG = ("AccessExclusiveLock", "ExclusiveLock", "ShareRowExclusiveLock", "ShareLock")

_TABLES = (
    "SELECT c.oid, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p', 'm')"
)


def name_of(placement: Placement) -> str:
    return f"rehearsal_{placement.database}"


@contextmanager
def copy(master: Master, placement: Placement) -> Iterator[str]:
    """The copy's name. One that a killed rehearsal left is dropped first; this one in any case.
    Raises Retryable where the original is in use."""
    name = name_of(placement)
    try:
        with master.open() as conn:
            _drop(conn, name)
            _create(conn, name, placement)
            with conn.transaction():
                _let_the_migrator_in(conn, name, placement)
        yield name
    finally:
        with master.open() as conn:
            _drop(conn, name)


def _create(conn: psycopg.Connection, name: str, placement: Placement) -> None:
    """The master's, and closed: PUBLIC may connect to every new database, and to be in it is to read what
    its catalogues say of the original."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false").format(
        sql.Identifier(name), sql.Identifier(placement.database)
    )
    until = time.monotonic() + PATIENCE
    while True:
        try:
            conn.execute(statement)
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def _let_the_migrator_in(conn: psycopg.Connection, name: str, placement: Placement) -> None:
    for statement in (
        sql.SQL("REVOKE ALL ON DATABASE {copy} FROM PUBLIC"),
        sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {copy} TO {owner}"),
        sql.SQL("GRANT CONNECT ON DATABASE {copy} TO {migrator}"),
        sql.SQL("ALTER ROLE {migrator} IN DATABASE {copy} SET role = {owner}"),
        sql.SQL("ALTER ROLE {migrator} IN DATABASE {copy} SET search_path = app, pg_temp"),
        sql.SQL("ALTER DATABASE {copy} ALLOW_CONNECTIONS true"),
    ):
        conn.execute(
            statement.format(
                copy=sql.Identifier(name),
                migrator=sql.Identifier(placement.migrator_role),
                owner=sql.Identifier(placement.owner_role),
            )
        )


def _drop(conn: psycopg.Connection, name: str) -> None:
    conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass
class LockWatch:
    """Use around the migration. `held`: what was observed, longest first, once it is over."""

    master: Master
    database: str
    held: list[LockHeld] = field(default_factory=list)

    def __enter__(self) -> LockWatch:
        self._over = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="locks", daemon=True)
        self._thread.start()
        self._ready.wait(timeout=30)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join(timeout=30)

    def _watch(self) -> None:
        observed: dict[tuple[str, str], tuple[float, float]] = {}
        try:
            with self.master.open(self.database) as conn:
                before = dict(conn.execute(_TABLES).fetchall())
                self._ready.set()
                while not self._over.wait(EVERY):
                    for oid, mode in conn.execute(
                        "SELECT relation, mode FROM pg_locks WHERE granted AND relation = ANY(%s)"
                        " AND mode = ANY(%s) AND pid <> pg_backend_pid()"
                        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                        (list(before), list(STRONG)),
                    ):
                        now = time.monotonic()
                        first, _ = observed.get((before[oid], mode), (now, now))
                        observed[before[oid], mode] = (first, now)
        finally:
            self._ready.set()
            self.held = sorted(
                (
                    LockHeld(table, mode, round(last - first, 3))
                    for (table, mode), (first, last) in observed.items()
                ),
                key=lambda lock: -lock.seconds,
            )
