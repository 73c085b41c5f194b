"""Drift: which tenants of one release do not have the schema that the others have?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from controlplane.store import schema_shape
from controlplane.store.registry import Connection

MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class Drift:
    """Tenants of one release with one shape. `missing` and `extra`: lines against the release's most
    common shape, both empty for that one itself."""

    release: str | None
    digest: str
    tenants: int
    examples: list[str]
    seen_at: datetime
    missing: list[str]
    extra: list[str]


def drift(conn: Connection) -> list[Drift]:
    """As last observed, which is after each change of a tenant's release and each `reprovision`."""
    found: list[Drift] = []
    common: dict[str | None, Counter[str]] = {}
    for row in schema_shape.groups(conn):
        lines = Counter(row.lines)
        usual = common.setdefault(row.release, lines)
        found.append(
            Drift(
                release=row.release,
                digest=row.digest,
                tenants=row.tenants,
                examples=row.examples,
                seen_at=row.seen_at,
                missing=sorted((usual - lines).elements())[:MAX_LINES],
                extra=sorted((lines - usual).elements())[:MAX_LINES],
            )
        )
    return found
