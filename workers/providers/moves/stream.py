"""The source's log of changes: begun, read a piece at a time, ended.

A logical replication slot keeps the log; a publication says of which tables. Both are read through SQL by
an ordinary session of the master: no connection between the two clusters is needed, none of them has to
know a password of the other's, and nothing of a move stands in `pg_subscription`.

A slot that is left behind keeps the whole cluster's log until its disk is full. So it is named after the
move, and whoever looks at a tenant with a move looks for it.

Aurora tells a position in its log where `wal_level` is logical and nowhere else. So everything here is asked
of the source of a move, and nothing of a target or of the source of a clone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from controlplane.domain.errors import NeedsHuman
from controlplane.domain.placement import Placement
from controlplane.workers.providers.moves.pgoutput import RUNBOOK, Message, decode
from controlplane.workers.providers.moves.tables import Table
from controlplane.workers.providers.ports import Home

PIECE = 20_000
"""Changes that one look at the log asks for; it ends at the end of a transaction."""
ROWS_AT_ONCE = 2000
NOTE = "controlplane-move"


def name_of(source: Placement, target: Placement) -> str:
    """Of the slot and of the publication."""
    return f"move_{source.database}_{target.database}"


def exists(conn: psycopg.Connection, name: str) -> bool:
    """Is there all that it takes, with nothing lost? `conn`: to the source's database."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = %(name)s) AND EXISTS ("
        " SELECT FROM pg_replication_slots WHERE slot_name = %(name)s AND database = current_database()"
        " AND wal_status <> 'lost')",
        {"name": name},
    ).fetchone()
    return row is not None and bool(row[0])


def require_logical(conn: psycopg.Connection, source: Home) -> None:
    row = conn.execute("SELECT current_setting('wal_level')").fetchone()
    level = None if row is None else row[0]
    if level != "logical":
        raise NeedsHuman(
            f"cluster {source.placement.cluster_id} keeps no log that can be followed: wal_level is {level},"
            " expected logical. Set rds.logical_replication = 1 in the cluster's parameter group"
            " (CONTROLPLANE_CLUSTER_PARAMETER_GROUP) and reboot its writer: docs/moves.md, What it needs",
            runbook=RUNBOOK,
        )


def publish(owner: psycopg.Connection, name: str, tables: list[Table]) -> None:
    """`owner`: a session that acts as the tables' owner."""
    owner.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
    listed = sql.SQL(", ").join(sql.SQL("ONLY {}").format(table.identifier) for table in tables)
    owner.execute(
        sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(name))
        + (sql.SQL(" FOR TABLE {}").format(listed) if tables else sql.SQL(""))
    )


def unpublish(owner: psycopg.Connection, name: str) -> None:
    owner.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))


def keep(master: psycopg.Connection, name: str) -> None:
    master.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))


def drop(master: psycopg.Connection, name: str) -> None:
    """Whoever reads from it is ended first: the slot is ours, and so is he."""
    master.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
        " WHERE slot_name = %s AND active_pid IS NOT NULL",
        (name,),
    )
    master.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (name,)
    )


def end_of_log(master: psycopg.Connection) -> str:
    row = master.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None  # noqa: S101 — a SELECT without FROM
    return str(row[0])


def position_behind(reader: psycopg.Connection) -> int:
    """One behind all that the reader's transaction sees."""
    row = reader.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
    assert row is not None  # noqa: S101 — a SELECT without FROM
    return int(row[0])


def mark_end(master: psycopg.Connection) -> bytes:
    """Write a note into the log; who reads it has read all that was committed before."""
    content = uuid.uuid4().hex
    master.execute("SELECT pg_logical_emit_message(true, %s, %s)", (NOTE, content))
    return content.encode()


def read(master: psycopg.Connection, name: str) -> Iterator[Message]:
    """The next piece, from where `advance` has been to. Runs in a transaction of its own."""
    with master.transaction(), master.cursor("changes", row_factory=tuple_row) as cur:
        cur.itersize = ROWS_AT_ONCE
        cur.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, %s,"
            " 'proto_version', '1', 'publication_names', %s, 'messages', 'true')",
            (name, PIECE, name),
            binary=True,
        )
        for (data,) in cur:
            message = decode(bytes(data))
            if message is not None:
                yield message


def advance(master: psycopg.Connection, name: str, to: str) -> None:
    """The log up to there is not needed any more."""
    master.execute(
        "SELECT pg_replication_slot_advance(slot_name, %s::pg_lsn) FROM pg_replication_slots"
        " WHERE slot_name = %s AND confirmed_flush_lsn < %s::pg_lsn",
        (to, name, to),
    )


def lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
