"""What the fakes remember.

They must outlive the worker that a test kills in the middle of a call, so it is kept
in SQLite on disk, one row a thing, committed at each change: after `os._exit(137)` or `kill -9` the
next worker finds just what AWS would have kept. `crash` is asked before and after every outside call.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class World:
    """Things by kind and key; values are JSON. `path` ":memory:" for one process alone."""

    def __init__(self, path: Path | str = ":memory:", *, crash: Callable[[str], None] | None = None) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS thing (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key))"
        )
        self._crash = crash or (lambda _point: None)

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Wrap one outside call, `name` as "secrets.write": a crash point before and after it."""
        self._crash(f"{name}:before")
        yield
        self._crash(f"{name}:after")

    def get(self, kind: str, key: str) -> Any | None:
        with self._lock:
            row = self._db.execute(
                "SELECT value FROM thing WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, kind: str, key: str, value: Any) -> None:
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO thing VALUES (?, ?, ?)", (kind, key, json.dumps(value)))

    def swap(self, kind: str, key: str, found: Any | None, value: Any) -> bool:
        """Put it where what was found is still there (None for nothing): a writer that was stopped between
        its reading and its writing puts nothing over what others wrote since."""
        new = json.dumps(value)
        with self._lock:
            if found is None:
                done = self._db.execute("INSERT OR IGNORE INTO thing VALUES (?, ?, ?)", (kind, key, new))
            else:
                done = self._db.execute(
                    "UPDATE thing SET value = ? WHERE kind = ? AND key = ? AND value = ?",
                    (new, kind, key, json.dumps(found)),
                )
        return done.rowcount > 0

    def drop(self, kind: str, key: str) -> bool:
        """True where there was something to drop."""
        with self._lock:
            return self._db.execute("DELETE FROM thing WHERE kind = ? AND key = ?", (kind, key)).rowcount > 0

    def all(self, kind: str) -> dict[str, Any]:
        with self._lock:
            rows = self._db.execute(
                "SELECT key, value FROM thing WHERE kind = ? ORDER BY key", (kind,)
            ).fetchall()
        return {key: json.loads(value) for key, value in rows}

    def count(self, kind: str, key: str) -> int:
        """Add one to a counter and return it: how often a fake was asked for something."""
        with self._lock:
            self._db.execute(
                "INSERT INTO thing VALUES (?, ?, '1')"
                " ON CONFLICT (kind, key) DO UPDATE SET value = value + 1",
                (kind, key),
            )
            return int(
                self._db.execute(
                    "SELECT value FROM thing WHERE kind = ? AND key = ?", (kind, key)
                ).fetchone()[0]
            )

    def close(self) -> None:
        self._db.close()
