"""The registry's own schema: numbered SQL files, applied in order, each in a transaction.

Expand and contract: a file that is on main is never edited, and a release must run against the schema
of its predecessor and its successor, since workers of two releases share the registry in a deploy.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from controlplane.domain.errors import Refused
from controlplane.store.registry import Connection, one

_ADVISORY_LOCK = 0x7C9_0001


def migrations() -> list[tuple[str, str]]:
    """(name, SQL) of every schema file, in order."""
    folder = files("controlplane.store").joinpath("schema")
    return sorted((f.name, f.read_text()) for f in folder.iterdir() if f.name.endswith(".sql"))


def upgrade(conn: Connection) -> list[str]:
    """Bring the schema up to date; the names of the files applied now. Safe to run at once from
    several places. Raises Refused where an applied file was changed afterwards."""
    applied_now = []
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
        conn.execute(
            "CREATE TABLE IF NOT EXISTS registry_schema (name text PRIMARY KEY, digest text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        done = {
            row["name"]: row["digest"] for row in conn.execute("SELECT name, digest FROM registry_schema")
        }
        for name, sql in migrations():
            digest = hashlib.sha256(sql.encode()).hexdigest()
            if name in done:
                if done[name] != digest:
                    raise Refused(f"registry schema {name} was changed after it had been applied")
                continue
            conn.execute(sql.encode())
            conn.execute("INSERT INTO registry_schema (name, digest) VALUES (%s, %s)", [name, digest])
            applied_now.append(name)
    return applied_now


def is_current(conn: Connection) -> bool:
    """Are all schema files applied?"""
    known = one(conn.execute("SELECT to_regclass('registry_schema') AS t").fetchone())["t"]
    if known is None:
        return False
    done = {row["name"] for row in conn.execute("SELECT name FROM registry_schema")}
    return all(name in done for name, _ in migrations())
