"""A fake server's memory: JSON objects by kind and id, in SQLite.

On disk with a data directory (a restarted demo finds its customers again), in memory without. Every
API call is one transaction under one lock: a call that is refused half-way leaves nothing, as with
the vendor, and calls never see each other's halves.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Object = dict[str, Any]
CHUNK = 200


class ObjectStore:
    """Objects keep the order in which they were inserted; `due` is when one wants to be looked at."""

    def __init__(self, path: Path | None) -> None:
        """`path`: the database file, made where it is missing; None keeps everything in memory."""
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        self._db = sqlite3.connect(
            ":memory:" if path is None else str(path), isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(
            """
            CREATE TABLE IF NOT EXISTS object (
                seq INTEGER PRIMARY KEY AUTOINCREMENT,
                kind TEXT NOT NULL,
                id TEXT NOT NULL,
                created REAL NOT NULL,
                due REAL,
                body TEXT NOT NULL,
                UNIQUE (kind, id)
            );
            CREATE INDEX IF NOT EXISTS object_by_kind ON object (kind, seq);
            CREATE INDEX IF NOT EXISTS object_by_age ON object (kind, created);
            CREATE INDEX IF NOT EXISTS object_by_due ON object (kind, due) WHERE due IS NOT NULL;
            """
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; one inside another joins it."""
        with self._lock:
            if self._depth == 0:
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._db.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._db.execute("COMMIT")

    def put(self, kind: str, key: str, body: Object, *, created: float, due: float | None = None) -> None:
        """Insert, or replace in place: order and `created` stay those of the first time."""
        with self._lock:
            self._db.execute(
                """
                INSERT INTO object (kind, id, created, due, body) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (kind, id) DO UPDATE SET due = excluded.due, body = excluded.body
                """,
                (kind, key, created, due, json.dumps(body)),
            )

    def get(self, kind: str, key: str) -> Object | None:
        with self._lock:
            row = self._db.execute(
                "SELECT body FROM object WHERE kind = ? AND id = ?", (kind, key)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def delete(self, kind: str, key: str) -> bool:
        with self._lock:
            return self._db.execute("DELETE FROM object WHERE kind = ? AND id = ?", (kind, key)).rowcount > 0

    def prune(self, kind: str, *, before: float) -> None:
        """Forget what was created before then."""
        with self._lock:
            self._db.execute("DELETE FROM object WHERE kind = ? AND created < ?", (kind, before))

    def count(self, kind: str) -> int:
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM object WHERE kind = ?", (kind,)).fetchone()[0])

    def tally(self, kind: str, field: str) -> dict[str, int]:
        """How many objects there are for each value of one of their fields."""
        with self._lock:
            rows = self._db.execute(
                "SELECT json_extract(body, '$.' || ?), count(*) FROM object WHERE kind = ? GROUP BY 1",
                (field, kind),
            ).fetchall()
        return dict(rows)

    def position(self, kind: str, key: str) -> int | None:
        """Where an object stands in the order of insertion."""
        with self._lock:
            row = self._db.execute("SELECT seq FROM object WHERE kind = ? AND id = ?", (kind, key)).fetchone()
        return None if row is None else int(row[0])

    def newest(self, kind: str, *, before: int | None = None) -> Iterator[Object]:
        """The latest inserted first; `before`: only those that stand before this position."""
        edge = before if before is not None else 2**62
        while True:
            with self._lock:
                rows = self._db.execute(
                    "SELECT seq, body FROM object WHERE kind = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
                    (kind, edge, CHUNK),
                ).fetchall()
            for _, body in rows:
                yield json.loads(body)
            if len(rows) < CHUNK:
                return
            edge = rows[-1][0]

    def oldest(self, kind: str, *, after: int = 0) -> Iterator[Object]:
        """The first inserted first; `after`: only those that stand behind this position."""
        edge = after
        while True:
            with self._lock:
                rows = self._db.execute(
                    "SELECT seq, body FROM object WHERE kind = ? AND seq > ? ORDER BY seq LIMIT ?",
                    (kind, edge, CHUNK),
                ).fetchall()
            for _, body in rows:
                yield json.loads(body)
            if len(rows) < CHUNK:
                return
            edge = rows[-1][0]

    def first_due(self, kind: str, *, until: float) -> tuple[float, Object] | None:
        """The object that is due earliest, with its time; None where nothing is due until then."""
        with self._lock:
            row = self._db.execute(
                "SELECT due, body FROM object WHERE kind = ? AND due <= ? ORDER BY due, seq LIMIT 1",
                (kind, until),
            ).fetchone()
        return None if row is None else (float(row[0]), json.loads(row[1]))

    def close(self) -> None:
        with self._lock:
            self._db.close()
