"""Are two databases' rows the same? A count and a checksum for each table.

The checksum is the sum of a 64-bit hash of each row's text, so it asks for no order and no key. It is
computed by the servers, and what is compared is a number: no row leaves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from controlplane.workers.providers.moves.tables import Table
from controlplane.workers.providers.ports import TableCompared

SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "row_security": "off",  # an error instead of rows that are left out
}
"""Of both sessions: what a row's text depends on."""


@dataclass(frozen=True, slots=True)
class Sum:
    rows: int
    checksum: str | None


def measure(conn: psycopg.Connection, tables: Sequence[Table], *, checksums: bool) -> dict[str, Sum]:
    """By the table's label."""
    found = {}
    for table in tables:
        row = conn.execute(
            sql.SQL("SELECT count(*), {} FROM ONLY {} AS t").format(
                sql.SQL('coalesce(sum(hashtextextended(t::text COLLATE "C", 0)::numeric), 0)::text')
                if checksums
                else sql.SQL("NULL"),
                table.identifier,
            )
        ).fetchone()
        assert row is not None  # noqa: S101 — an aggregate without GROUP BY
        found[table.label] = Sum(*row)
    return found


def compare(source: dict[str, Sum], target: dict[str, Sum]) -> list[TableCompared]:
    return [
        TableCompared(
            name=name,
            rows=here.rows,
            checksum=here.checksum,
            same=target.get(name) == here,
        )
        for name, here in source.items()
    ]
