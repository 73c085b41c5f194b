"""What of a tenant's database has to be carried to another one, read from its catalogues.

Everything that the tenant's schema owns is made on the other side by its migrations; what is carried is
contents: tables, the positions of sequences, materialised views. Schema `platform` is the control plane's
and stays where it is, and what belongs to an extension comes with the extension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

_OURS = (
    "n.nspname <> 'platform' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass"
    "                  AND d.deptype = 'e')"
)
_TABLES = f"""
SELECT n.nspname::text AS schema, c.relname::text AS name,
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
              AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
              AND NOT a.attisdropped AND a.attidentity = 'a' ORDER BY a.attnum) AS always,
       c.relpersistence = 'p' AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
         AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))
         AS streams,
       pg_table_size(c.oid) AS size
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND {_OURS} ORDER BY 1, 2
"""  # noqa: S608 — constants
_SEQUENCES = f"""
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S' AND {_OURS} ORDER BY 1, 2
"""  # noqa: S608 — constants
_VIEWS = f"""
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'm' AND c.relispopulated AND {_OURS} ORDER BY c.oid
"""  # noqa: S608 — constants


@dataclass(frozen=True, slots=True)
class Table:
    """`columns`: those that have values of their own. `always`: identities that take no value unless told
    to. `streams`: do its changes say which row they are about (a key, and a log)? `size` in bytes."""

    schema: str
    name: str
    columns: list[str]
    always: list[str]
    streams: bool
    size: int

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def column_list(self) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.Identifier, self.columns))


def tables(conn: psycopg.Connection) -> list[Table]:
    """Tables with rows of their own: partitions, and not what they are partitions of."""
    with conn.cursor(row_factory=class_row(Table)) as cur:
        return cur.execute(_TABLES).fetchall()


def sequences(conn: psycopg.Connection) -> list[tuple[str, str]]:
    return conn.execute(_SEQUENCES).fetchall()


def materialised_views(conn: psycopg.Connection) -> list[tuple[str, str]]:
    """Those that hold something, in the order in which they were made."""
    return conn.execute(_VIEWS).fetchall()


def large_objects(conn: psycopg.Connection) -> bool:
    return conn.execute("SELECT FROM pg_largeobject_metadata LIMIT 1").fetchone() is not None


def carry_sequences(
    source: psycopg.Connection, target: psycopg.Connection, names: Sequence[tuple[str, str]]
) -> None:
    """Give the target's sequences the positions of the source's."""
    if not names:
        return
    positions = source.execute(
        sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}::text, last_value, is_called FROM {}").format(
                sql.Literal(sql.Identifier(*name).as_string(None)), sql.Identifier(*name)
            )
            for name in names
        )
    ).fetchall()
    target.execute(
        sql.SQL("SELECT ")
        + sql.SQL(", ").join(
            sql.SQL("setval({}::regclass, {}, {})").format(*map(sql.Literal, position))
            for position in positions
        )
    )
