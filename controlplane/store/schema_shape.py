"""Shapes of tenants' schemas: whose is like whose, and since which look."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from controlplane.store.registry import Connection, select


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """The tenants of one release whose schemas are the same. `examples`: some of their slugs."""

    release: str | None
    digest: str
    tenants: int
    examples: list[str]
    seen_at: datetime
    lines: list[str]


def see(conn: Connection, tenant_id: str, *, release: str | None, lines: Sequence[str]) -> None:
    """What was observed of a tenant now; the lines are kept once for all that have them."""
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    conn.execute(
        "INSERT INTO schema_shape (digest, lines) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [digest, Jsonb(list(lines))],
    )
    conn.execute(
        "INSERT INTO tenant_schema (tenant_id, release, digest) VALUES (%s, %s, %s)"
        " ON CONFLICT (tenant_id) DO UPDATE SET release = excluded.release, digest = excluded.digest,"
        "  seen_at = clock_timestamp()",
        [tenant_id, release, digest],
    )


def groups(conn: Connection) -> list[ShapeRow]:
    """By release, newest first, the most common shape of each first. Closed tenants are left out."""
    return select(
        conn,
        ShapeRow,
        "FROM (SELECT s.release, s.digest, count(*) AS tenants, (array_agg(t.slug ORDER BY t.slug))[1:5]"
        "         AS examples, max(s.seen_at) AS seen_at"
        "    FROM tenant_schema s JOIN tenant t ON t.id = s.tenant_id"
        "   WHERE t.spec->>'lifecycle' <> 'closed' GROUP BY 1, 2) g JOIN schema_shape s USING (digest)"
        " ORDER BY g.release DESC NULLS LAST, g.tenants DESC, g.digest LIMIT 200",
    ).fetchall()
