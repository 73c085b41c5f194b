"""The tenant application's schema migrations: numbered SQL files, applied once, in order.

`NNNN_name.sql`, from 0001 without a gap. Each file runs in one transaction together with its row in
`platform.schema_migration`, so it happened if and only if it is recorded. A file that was applied
somewhere is history: its checksum is recorded, and a file that no longer fits it stops the tenant
before anything else happens to it, as does a database that has had migrations which the files lack.

A file whose first line is `-- no-transaction` holds one statement that PostgreSQL refuses to run in a
transaction, and is recorded after it. Between the two a crash may fall, so the statement should say IF
NOT EXISTS: an index that a crash left invalid is dropped before it is run again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.domain.release import MigrationFailed, Release, digest_of, sql_file_fault, transactional
from controlplane.domain.sql_statements import Statement, statements
from controlplane.workers.providers.databases.errors import describe, statement_error
from controlplane.workers.providers.ports import FileRun

RUNBOOK = "tenant-migration"
# One per database: two migrators of one tenant wait for each other, those of different tenants do not.
LOCK = 7_040_516_830_293_101
_READ = "SELECT number, name, sha256 FROM platform.schema_migration"
_LOCK_AND_READ = f"SELECT pg_advisory_lock({LOCK}); {_READ}".encode()
_INDEX = re.compile(
    r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+\"?([A-Za-z_][\w$]*)\"?", re.I
)


@dataclass(frozen=True, slots=True)
class Migration:
    number: str  # "0001"
    name: str  # the file's name
    sql: bytes

    @property
    def sha256(self) -> str:
        return digest_of(self.sql)


def load(folder: Path, *, up_to: str | None = None) -> list[Migration]:
    """The migrations of a folder, in order; those `up_to` a number where one is given. Raises
    NeedsHuman("tenant-migration"), naming the file, for a name that is not NNNN_name.sql, a number twice, a
    gap, and where there are none at all."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".sql")
    except OSError as error:
        raise _wrong(f"{folder}: {error.strerror}") from error
    if not paths:
        raise _wrong(f"{folder}: no migrations there, expected at least 0001_<name>.sql")
    found = [_load_file(path, position) for position, path in enumerate(paths, start=1)]
    return [file for file in found if up_to is None or file.number <= up_to]


def _load_file(path: Path, position: int) -> Migration:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise _wrong(f"{path.name}: {error.strerror}") from error
    fault = sql_file_fault(path.name, position, text)
    if fault is not None:
        raise _wrong(fault)
    return Migration(path.name[:4], path.name, text)


def of_release(release: Release) -> list[Migration]:
    """The migrations of a release of numbered SQL, which carries its files' contents."""
    found = []
    for file in release.files:
        if file.body is None or digest_of(file.body) != file.sha256:
            raise _wrong(f"{file.name}: its contents are not those of release {release.number}")
        found.append(Migration(file.name[:4], file.name, file.body))
    return found


def unapplied(migrations: list[Migration], applied: dict[str, tuple[str, str]]) -> list[Migration]:
    """Those still to come. `applied`: number → (file's name, SHA-256), as recorded. Raises
    NeedsHuman("tenant-migration") where the past is not what the files say."""
    known = {migration.number: migration for migration in migrations}
    for number, (name, sha256) in sorted(applied.items()):
        migration = known.get(number)
        if migration is None:
            raise _wrong(f"{name}: was applied to this database, but is not among the migrations")
        if migration.sha256 != sha256:
            raise _wrong(f"{migration.name}: was changed after it had been applied as {name}")
    return [migration for migration in migrations if migration.number not in applied]


@contextmanager
def locked(conn: psycopg.Connection) -> Iterator[dict[str, tuple[str, str]]]:
    """Hold the database's migration lock until the session ends; what is recorded: number → (name,
    SHA-256). `conn`: the migrator's, in autocommit mode. Raises Retryable where somebody else holds the
    lock for longer than `lock_timeout`."""
    try:
        cursor = conn.execute(_LOCK_AND_READ)
        cursor.nextset()
        applied = {number: (name, sha256) for number, name, sha256 in cursor}
    except psycopg.Error as error:
        raise statement_error(error, "reading the applied migrations", runbook=RUNBOOK) from error
    yield applied


def apply(conn: psycopg.Connection, migrations: list[Migration]) -> list[FileRun]:
    """Apply those that are not applied yet; which were, with their times.

    Raises Retryable where a lock could not be had in time or the server went away, else
    MigrationFailed with file, place and the server's message.
    """
    with locked(conn) as applied:
        return [_apply_one(conn, migration) for migration in unapplied(migrations, applied)]


def record(
    conn: psycopg.Connection, number: str, name: str, sha256: str, *, then: LiteralString = ""
) -> None:
    """`then`: what follows in the same round trip."""
    row = sql.SQL("INSERT INTO platform.schema_migration (number, name, sha256) VALUES ({}, {}, {});").format(
        number, name, sha256
    )
    conn.execute(row + sql.SQL(then))


def _apply_one(conn: psycopg.Connection, migration: Migration) -> FileRun:
    began = time.monotonic()
    found = _statements(migration.sql)
    in_transaction = transactional(migration.sql)
    try:
        for position, statement in enumerate(found):
            if not in_transaction:
                _drop_invalid_index(conn, statement)
            _run(conn, migration, statement, first=in_transaction and position == 0)
        if in_transaction and conn.info.transaction_status is not TransactionStatus.INTRANS:
            raise _wrong(
                f"{migration.name}: ended the transaction it ran in, so a part of it may have"
                " stayed; undo that by hand and take its COMMIT out"
            )
        # What one file SET, the next must not see.
        then: LiteralString = "COMMIT; RESET ALL; RESET ROLE" if in_transaction else "RESET ALL; RESET ROLE"
        record(conn, migration.number, migration.name, migration.sha256, then=then)
    except psycopg.Error as error:
        raise statement_error(error, f"recording {migration.name}", runbook=RUNBOOK) from error
    return FileRun(migration.name, time.monotonic() - began)


@lru_cache(maxsize=1024)
def _statements(text: bytes) -> tuple[Statement, ...]:
    """The same files run in every database of a fleet."""
    return tuple(statements(text.decode())) or (Statement("", 1, ()),)


def _run(conn: psycopg.Connection, migration: Migration, statement: Statement, *, first: bool) -> None:
    """Without parameters, so that nothing in it has to be escaped. The first one brings the BEGIN; a
    session that is left with an open transaction is closed by its owner, which rolls it back."""
    try:
        conn.execute((b"BEGIN;\n" if first else b"") + statement.text.encode())
    except psycopg.Error as error:
        what = f"{migration.name} line {statement.line} “{statement.excerpt}”"
        judged = statement_error(error, what, runbook=RUNBOOK)
        if isinstance(judged, Retryable):
            raise judged from error
        raise MigrationFailed(
            str(judged), file=migration.name, statement=statement.excerpt, error=describe(error)
        ) from error


def _drop_invalid_index(conn: psycopg.Connection, statement: Statement) -> None:
    """CREATE INDEX CONCURRENTLY that was cut off leaves an index that is never used and always updated,
    and IF NOT EXISTS would take it for the one that is wanted."""
    match = _INDEX.search(statement.text)
    if match is None:
        return
    row = conn.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE NOT i.indisvalid AND c.relname IN (%s, lower(%s))"
        " AND n.nspname = ANY(current_schemas(false))",
        (match.group(1), match.group(1)),
    ).fetchone()
    if row is not None:
        conn.execute(sql.SQL("DROP INDEX CONCURRENTLY {}.{}").format(*map(sql.Identifier, row)))


def _wrong(message: str) -> NeedsHuman:
    return NeedsHuman(message, runbook=RUNBOOK)
