"""A release: an immutable, ordered set of tenant schema migrations, known by its checksum.

A release is named by a number, `0001` to `9999`, that orders it among all releases; it is what a
tenant database records as its version. For numbered SQL it is the number of the newest file, and every
release holds all files from 0001 on, so a new tenant is brought to it from nothing. For a tool that
keeps a record of its own (Alembic, Django, Drizzle, …) releases are counted, and the files are those whose
change makes another release: they are not kept here, only their digests, and the worker that runs the
tool compares its own copies with them first.

What is refused here is refused before the first tenant sees it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.domain.errors import Conflict, Invalid, NeedsHuman
from controlplane.domain.sql_statements import statements

RELEASE_NUMBER = re.compile(r"^[0-9]{4}\Z")
SQL_FILE = re.compile(r"^([0-9]{4})_[a-z0-9_]{1,100}\.sql\Z")
OTHER_FILE = re.compile(r"^(?!/)(?!.*(?:^|/)\.\.?(?:/|\Z))[A-Za-z0-9._/-]{1,200}\Z")
SHA256 = re.compile(r"^[0-9a-f]{64}\Z")
MAX_FILE_BYTES = 1024 * 1024
MAX_FILES = 9999
NO_TRANSACTION = "-- no-transaction"


class Adapter(StrEnum):
    SQL = "sql"
    ALEMBIC = "alembic"
    COMMAND = "command"


class MigrationFailed(NeedsHuman):
    """A migration failed in a tenant's database, and time will not repair it.

    `file`, `statement` (shortened, "" where it is not known) and `error` (the database's, without any
    row's contents) are kept apart, so that a fleet's failures can be grouped.
    """

    def __init__(self, message: str, *, file: str, statement: str, error: str) -> None:
        super().__init__(message, runbook="tenant-migration")
        self.file = file
        self.statement = statement
        self.error = error


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """`body` is None where only the digest is kept."""

    name: str
    sha256: str
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Release:
    number: str
    adapter: Adapter
    files: tuple[ReleaseFile, ...]

    @property
    def checksum(self) -> str:
        """Over adapter, names, contents and order."""
        digest = hashlib.sha256(self.adapter.encode())
        for file in self.files:
            digest.update(f"\n{file.name}\0{file.sha256}".encode())
        return digest.hexdigest()

    def up_to(self, number: str) -> Release:
        """The earlier release that this one contains; numbered SQL alone. Raises Invalid."""
        if self.adapter is not Adapter.SQL or not "0001" <= number <= self.number:
            raise Invalid(
                "release", f"a number that release {self.number} ({self.adapter}) holds", got=number
            )
        return Release(number, self.adapter, tuple(f for f in self.files if f.name[:4] <= number))


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def transactional(body: bytes) -> bool:
    """False where the first line says `-- no-transaction`: one statement, such as CREATE INDEX
    CONCURRENTLY, that PostgreSQL refuses to run in a transaction."""
    first = body.lstrip().partition(b"\n")[0].strip().lower()
    return first != NO_TRANSACTION.encode()


def sql_file_fault(name: str, position: int, body: bytes) -> str | None:
    """What is wrong with a numbered SQL file at this position, counted from 1; None if nothing is."""
    match = SQL_FILE.match(name)
    if match is None:
        return f"{name}: expected a name like 0001_create_notes.sql (a-z, 0-9, _)"
    number = match.group(1)
    if int(number) != position:
        twice = int(number) < position
        return f"{name}: " + (
            f"the number {number} is there twice"
            if twice
            else f"expected the number {position:04d} next, there is a gap"
        )
    fault = _contents_fault(body)
    return None if fault is None else f"{name}: {fault}"


def _contents_fault(body: bytes) -> str | None:
    if len(body) > MAX_FILE_BYTES or b"\0" in body:
        return f"expected at most {MAX_FILE_BYTES} bytes and no NUL"
    try:
        found = statements(body.decode("utf-8"))
    except UnicodeDecodeError:
        return "expected UTF-8"
    if not transactional(body):
        one = len(found) == 1
        return None if one else f"{NO_TRANSACTION} goes with one statement, this has {len(found)}"
    ends = next((statement for statement in found if statement.ends_transaction), None)
    if ends is None:
        return None
    return f"line {ends.line} runs in a transaction already, leave out its BEGIN, COMMIT, ROLLBACK"


def compose(adapter: Adapter, files: Sequence[ReleaseFile], newest: Release | None) -> Release:
    """The release that these files are, after `newest`. Raises Invalid for a file that can't be part of
    one, Conflict where the files rewrite what was released before, or change nothing."""
    if not 1 <= len(files) <= MAX_FILES:
        raise Invalid("files", f"1 to {MAX_FILES} of them", got=len(files))
    if newest is not None and newest.adapter is not adapter:
        raise Conflict(f"the fleet's releases are of {newest.adapter}, a database can't change its tool here")
    if len({file.name for file in files}) < len(files):
        raise Invalid("files", "each name once")
    for position, file in enumerate(files, start=1):
        _check_file(adapter, file, position)
    number = (
        files[-1].name[:4] if adapter is Adapter.SQL else f"{int(newest.number if newest else 0) + 1:04d}"
    )
    release = Release(number, adapter, tuple(files))
    if newest is not None:
        _check_history(release, newest)
    return release


def _check_file(adapter: Adapter, file: ReleaseFile, position: int) -> None:
    if not SHA256.match(file.sha256):
        raise Invalid("sha256", "64 hexadecimal digits", got=file.sha256)
    if adapter is Adapter.SQL:
        if file.body is None:
            raise Invalid("files", f"the contents of {file.name}")
        fault = sql_file_fault(file.name, position, file.body)
        if fault is not None:
            raise Invalid("files", fault)
    elif not OTHER_FILE.match(file.name):
        raise Invalid("files", "relative paths of letters, digits, '.', '_' and '-'", got=file.name)
    if file.body is not None and digest_of(file.body) != file.sha256:
        raise Invalid("sha256", f"the digest of {file.name}")


def _check_history(release: Release, newest: Release) -> None:
    if release.checksum == newest.checksum:
        raise Conflict(f"these files are release {newest.number} already")
    if release.adapter is not Adapter.SQL:
        return
    for old, new in zip(newest.files, release.files, strict=False):
        if (old.name, old.sha256) != (new.name, new.sha256):
            raise Conflict(f"{new.name} differs from {old.name} of release {newest.number}, which is history")
    if release.number <= newest.number:
        raise Conflict(f"release {newest.number} has more files than these")
