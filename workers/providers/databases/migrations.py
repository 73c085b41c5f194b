"""The tenant application's schema migrations: numbered SQL files, applied once, in order.

`NNNN_name.sql`, from 0001 without a gap. Each file runs in one transaction together with its row in
`platform.schema_migration`, so it happened if and only if it is recorded. A file that was applied
somewhere is history: its checksum is recorded, and a file that no longer fits it stops the tenant
before anything else happens to it, as does a database that has had migrations which the directory lacks.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import psycopg

from controlplane.domain.errors import NeedsHuman
from workers.providers.databases.errors import statement_error

RUNBOOK = "tenant-migration"
FILE_NAME = re.compile(r"^([0-9]{4})_[a-z0-9_]{1,100}\.sql$")
MAX_FILE_BYTES = 1024 * 1024
EXCERPT_CHARACTERS = 120
TRANSACTION_CONTROL = re.compile(
    rb"^[ \t]*(begin|commit|rollback|start[ \t]+transaction)([ \t]+(work|transaction))?[ \t]*;", re.I | re.M
)
# One per database: two migrators of one tenant wait for each other, those of different tenants do not.
LOCK = 7_040_516_830_293_101


@dataclass(frozen=True, slots=True)
class Migration:
    number: str  # "0001"
    name: str  # the file's name
    sql: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


def load(folder: Path) -> list[Migration]:
    """The migrations of a folder, in order. Raises NeedsHuman("tenant-migration"), naming the file,
    for a name that is not NNNN_name.sql, a number twice, a gap, and where there are none at all."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".sql")
    except OSError as error:
        raise _wrong(f"{folder}: {error.strerror}") from error
    if not paths:
        raise _wrong(f"{folder}: no migrations there, expected at least 0001_<name>.sql")
    return [_load_file(path, number) for number, path in enumerate(paths, start=1)]


def _load_file(path: Path, expected: int) -> Migration:
    match = FILE_NAME.match(path.name)
    if match is None:
        raise _wrong(f"{path.name}: expected a name like 0001_create_notes.sql (a-z, 0-9, _)")
    number = match.group(1)
    if int(number) < expected:
        raise _wrong(f"{path.name}: the number {number} is there twice")
    if int(number) > expected:
        raise _wrong(f"{path.name}: expected the number {expected:04d} next, there is a gap")
    try:
        text = path.read_bytes()
        text.decode("utf-8")
    except OSError as error:
        raise _wrong(f"{path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong(f"{path.name}: expected UTF-8") from error
    if len(text) > MAX_FILE_BYTES or b"\0" in text:
        raise _wrong(f"{path.name}: expected at most {MAX_FILE_BYTES} bytes and no NUL")
    if TRANSACTION_CONTROL.search(text):
        raise _wrong(f"{path.name}: runs in a transaction already, leave out its BEGIN, COMMIT, ROLLBACK")
    return Migration(number, path.name, text)


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


def apply(conn: psycopg.Connection, migrations: list[Migration]) -> str:
    """`conn`: the migrator's, in autocommit mode. Returns the newest number.

    Raises Retryable where a lock could not be had in time or the server went away, else
    NeedsHuman("tenant-migration") with file, place and the server's message.
    """
    try:
        conn.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        applied = {
            number: (name, sha256)
            for number, name, sha256 in conn.execute(
                "SELECT number, name, sha256 FROM platform.schema_migration"
            )
        }
    except psycopg.Error as error:
        raise statement_error(error, "reading the applied migrations", runbook=RUNBOOK) from error
    for migration in unapplied(migrations, applied):
        _apply_one(conn, migration)
    return migrations[-1].number


def _apply_one(conn: psycopg.Connection, migration: Migration) -> None:
    try:
        with conn.transaction():
            before = _transaction(conn)
            _run(conn, migration)
            if _transaction(conn) != before:
                raise _wrong(
                    f"{migration.name}: ended the transaction it ran in, so a part of it may have stayed; "
                    "undo that by hand and take its COMMIT out"
                )
            conn.execute(
                "INSERT INTO platform.schema_migration (number, name, sha256) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.sha256),
            )
        # What one file SET, the next must not see.
        conn.execute("RESET ALL")
        conn.execute("RESET ROLE")
    except psycopg.Error as error:
        raise statement_error(error, f"recording {migration.name}", runbook=RUNBOOK) from error


def _run(conn: psycopg.Connection, migration: Migration) -> None:
    """The file as a whole and without parameters: the server splits it, nobody else has to."""
    try:
        conn.execute(migration.sql)
    except psycopg.Error as error:
        place = _place(error, migration.sql.decode())
        raise statement_error(error, migration.name + place, runbook=RUNBOOK) from error


def _place(error: psycopg.Error, text: str) -> str:
    """ " line 3 “ALTER TABLE …”", where the server says at which character it stopped."""
    position = error.diag.statement_position
    if position is None:
        return ""
    start = int(position) - 1
    excerpt = " ".join(text[start : start + EXCERPT_CHARACTERS].split())
    return f" line {text.count(chr(10), 0, start) + 1} “{excerpt}”"


def _transaction(conn: psycopg.Connection) -> tuple[str, ...] | None:
    return conn.execute("SELECT pg_current_xact_id()::text").fetchone()


def _wrong(message: str) -> NeedsHuman:
    return NeedsHuman(message, runbook=RUNBOOK)
