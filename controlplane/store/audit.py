"""The audit trail: every mutation with its actor, in a chain of hashes (I11).

Each row's hash covers its own content and the hash before it, so a row that is edited or removed in
the middle breaks every row behind it. Appends take a transaction-level advisory lock, which makes the
chain a single line; they come last in a transaction, so that the lock is short.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.store.registry import Connection, one

_ADVISORY_LOCK = 0x7C9_0002
_GENESIS = b"\0" * 32


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """The first row whose hash does not fit, and why."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Entry:
    seq: int
    at: datetime
    actor: str
    action: str
    resource: str
    detail: dict[str, Any]

    def hash_after(self, before: bytes) -> bytes:
        at = self.at.astimezone(UTC).isoformat()
        text = json.dumps(
            [self.seq, at, self.actor, self.action, self.resource, self.detail],
            sort_keys=True,
            ensure_ascii=True,
        )
        return hashlib.sha256(before + text.encode()).digest()


def hold(conn: Connection) -> None:
    """Take the chain's lock early, in a transaction that takes other locks after its first entry."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])


def append(conn: Connection, *, actor: str, action: str, resource: str, detail: dict[str, Any]) -> None:
    hold(conn)
    last = conn.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, before = (last["seq"] + 1, bytes(last["hash"])) if last else (1, _GENESIS)
    at = one(conn.execute("SELECT clock_timestamp() AS now").fetchone())["now"]
    entry = _Entry(seq, at, actor, action, resource, detail)
    conn.execute(
        "INSERT INTO audit (seq, at, actor, action, resource, detail, hash)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [seq, at, actor, action, resource, Jsonb(detail), entry.hash_after(before)],
    )


def first_break(conn: Connection) -> ChainBreak | None:
    """Walk the whole chain; None where it holds."""
    before, expected = _GENESIS, 1
    with conn.transaction(), conn.cursor("audit_walk") as cur:
        cur.execute("SELECT seq, at, actor, action, resource, detail, hash FROM audit ORDER BY seq")
        for row in cur:
            stored = bytes(row.pop("hash"))
            entry = _Entry(**row)
            if entry.seq != expected:
                return ChainBreak(expected, f"row {expected} is missing")
            before = entry.hash_after(before)
            if before != stored:
                return ChainBreak(entry.seq, f"row {entry.seq} was changed")
            expected += 1
    return None
