"""The audit trail: every mutation with its actor, in a chain of hashes (I11).

A row is written in the transaction of the change and waits for no other: a chain that each writer prolonged
would be one lock for the whole fleet. A duty seals what was written since, every few seconds: each row gets
its place in the chain and a hash over its own content and the hash before it, so a row that is edited or
removed afterwards breaks every row behind it. What is committed late is sealed late; the chain's order is
that of the sealing, which is none that anybody could choose.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.store.registry import Connection, select

_ADVISORY_LOCK = 0x7C9_0002
_GENESIS = b"\0" * 32


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """The first place whose hash does not fit, and why."""

    place: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Entry:
    seq: int
    at: datetime
    actor: str
    action: str
    resource: str
    detail: dict[str, Any]

    def hash_after(self, before: bytes, place: int) -> bytes:
        at = self.at.astimezone(UTC).isoformat()
        text = json.dumps(
            [place, self.seq, at, self.actor, self.action, self.resource, self.detail],
            sort_keys=True,
            ensure_ascii=True,
        )
        return hashlib.sha256(before + text.encode()).digest()


def append(conn: Connection, *, actor: str, action: str, resource: str, detail: dict[str, Any]) -> None:
    conn.execute(
        "INSERT INTO audit (actor, action, resource, detail) VALUES (%s, %s, %s, %s)",
        [actor, action, resource, Jsonb(detail)],
    )


def seal(conn: Connection, *, limit: int) -> int:
    """Give the oldest that have none their places in the chain, in one transaction; how many. None while
    somebody else is at it."""
    with conn.transaction():
        mine = conn.execute("SELECT pg_try_advisory_xact_lock(%s) AS mine", [_ADVISORY_LOCK]).fetchone()
        if mine is None or not mine["mine"]:
            return 0
        last = conn.execute("SELECT place, hash FROM audit ORDER BY place DESC NULLS LAST LIMIT 1").fetchone()
        sealed = last is not None and last["place"] is not None
        place, before = (last["place"], bytes(last["hash"])) if last and sealed else (0, _GENESIS)
        rows = select(
            conn, _Entry, "FROM audit WHERE place IS NULL ORDER BY seq LIMIT %s", [limit]
        ).fetchall()
        hashes = []
        for number, entry in enumerate(rows, start=place + 1):
            before = entry.hash_after(before, number)
            hashes.append(before)
        conn.execute(
            "UPDATE audit SET place = sealed.place, hash = sealed.hash"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[]) AS sealed (seq, place, hash)"
            " WHERE audit.seq = sealed.seq",
            [[entry.seq for entry in rows], list(range(place + 1, place + 1 + len(rows))), hashes],
        )
    return len(rows)


def first_break(conn: Connection) -> ChainBreak | None:
    """Walk the whole chain; None where it holds. What is not sealed yet is no part of it."""
    before, expected = _GENESIS, 1
    with conn.transaction(), conn.cursor("audit_walk") as cur:
        cur.execute(
            "SELECT seq, at, actor, action, resource, detail, place, hash FROM audit"
            " WHERE place IS NOT NULL ORDER BY place"
        )
        for row in cur:
            stored, place = bytes(row.pop("hash")), row.pop("place")
            if place != expected:
                return ChainBreak(expected, f"row {expected} is missing")
            before = _Entry(**row).hash_after(before, place)
            if before != stored:
                return ChainBreak(place, f"row {place} was changed")
            expected += 1
    return None
