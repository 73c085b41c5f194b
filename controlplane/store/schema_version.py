"""The registry's own schema: numbered SQL files, applied in order, each in a transaction.

Expand and contract: a file that is on main is never edited, and a release must run against the schema
of its predecessor and its successor, since workers of two releases share the registry in a deploy. So a
database that is ahead of this release is no error, but one whose history is another is. `make lint` runs
the linter of tenants' migrations over these files too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from controlplane.domain.errors import Refused
from controlplane.domain.release import transactional
from controlplane.store.registry import Connection, one

_ADVISORY_LOCK = 0x7C9_0001
_ASK_AGAIN = 0.2  # seconds
_LOCK_TIMEOUT = "5s"
"""A statement that waits for a table's lock holds up whoever comes behind it."""


def migrations() -> list[tuple[str, str]]:
    """(name, SQL) of every schema file, in order."""
    folder = files("controlplane.store").joinpath("schema")
    return sorted((f.name, f.read_text()) for f in folder.iterdir() if f.name.endswith(".sql"))


def upgrade(conn: Connection) -> list[str]:
    """Bring the schema up to date; the names of the files applied now. Safe to run at once from
    several places.

    Raises Refused where an applied file was changed afterwards, and where there is something to apply to a
    database that has files which this release does not know.
    """
    known = migrations()
    with _alone(conn):
        conn.execute(
            "CREATE TABLE IF NOT EXISTS registry_schema (name text PRIMARY KEY, digest text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        done = {
            row["name"]: row["digest"] for row in conn.execute("SELECT name, digest FROM registry_schema")
        }
        for name, sql in known:
            if done.get(name, _digest(sql)) != _digest(sql):
                raise Refused(f"registry schema {name} was changed after it had been applied")
        missing = [(name, sql) for name, sql in known if name not in done]
        unknown = sorted(done.keys() - dict(known).keys())
        if missing and unknown:
            raise Refused(
                f"the registry has {', '.join(unknown)}, which this release does not know, and lacks"
                f" {missing[0][0]}: expected a registry that this release or one next to it has made"
            )
        for name, sql in missing:
            _apply(conn, name, sql)
    return [name for name, _ in missing]


def _apply(conn: Connection, name: str, sql: str) -> None:
    """As tenants' migrations: a file that starts with `-- no-transaction` is one statement that can be
    repeated, recorded after it."""
    if not transactional(sql.encode()):
        conn.execute(sql.encode())
        _refuse_invalid_indexes(conn)
    with conn.transaction():
        if transactional(sql.encode()):
            conn.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'".encode())
            conn.execute(sql.encode())
        conn.execute("INSERT INTO registry_schema (name, digest) VALUES (%s, %s)", [name, _digest(sql)])


def _refuse_invalid_indexes(conn: Connection) -> None:
    """CREATE INDEX CONCURRENTLY leaves one behind where it is cut short, and IF NOT EXISTS is content
    with it."""
    found = conn.execute(
        "SELECT string_agg(indexrelid::regclass::text, ', ') AS names FROM pg_index WHERE NOT indisvalid"
    ).fetchone()
    if one(found)["names"] is not None:
        raise Refused(
            f"the registry's index {one(found)['names']} is invalid, an earlier upgrade was cut short:"
            " DROP INDEX CONCURRENTLY it and upgrade again"
        )


@contextmanager
def _alone(conn: Connection) -> Iterator[None]:
    """One upgrade at a time. Asked for again and again and not waited for: a statement that waits holds a
    snapshot, whose end CREATE INDEX CONCURRENTLY would wait for in its turn."""
    while not one(conn.execute("SELECT pg_try_advisory_lock(%s) AS mine", [_ADVISORY_LOCK]).fetchone())[
        "mine"
    ]:
        time.sleep(_ASK_AGAIN)
    try:
        yield
    finally:
        conn.execute("SELECT pg_advisory_unlock(%s)", [_ADVISORY_LOCK])


def _digest(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()


def is_current(conn: Connection) -> bool:
    """Are all schema files applied?"""
    known = one(conn.execute("SELECT to_regclass('registry_schema') AS t").fetchone())["t"]
    if known is None:
        return False
    done = {row["name"] for row in conn.execute("SELECT name FROM registry_schema")}
    return all(name in done for name, _ in migrations())
