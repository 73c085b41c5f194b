"""What the last look at something as a whole found: the warm pool, the comparison with the billing source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.store.registry import Connection


class About(StrEnum):
    POOL = "pool"
    COMPARISON = "comparison"


@dataclass(frozen=True, slots=True)
class Report:
    content: dict[str, Any]
    observed_at: datetime


def read(conn: Connection, about: About) -> Report | None:
    """None before the first look."""
    row = conn.execute("SELECT content, observed_at FROM report WHERE about = %s", [about.value]).fetchone()
    return None if row is None else Report(row["content"], row["observed_at"])


def write(conn: Connection, about: About, content: dict[str, Any], *, at_most_every: float = 0.0) -> None:
    """Written where it says something new, and else only every so many seconds, as a sign of life."""
    conn.execute(
        "INSERT INTO report AS r (about, content) VALUES (%(about)s, %(content)s)"
        " ON CONFLICT (about) DO UPDATE SET content = excluded.content, observed_at = clock_timestamp()"
        " WHERE r.content <> excluded.content"
        "    OR r.observed_at < clock_timestamp() - make_interval(secs => %(every)s)",
        {"about": about.value, "content": Jsonb(content), "every": at_most_every},
    )
