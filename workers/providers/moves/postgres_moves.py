"""`ports.Moves` over PostgreSQL 15 and later: a worker stands between the two databases and carries.

PostgreSQL's own subscriptions would need a way from one cluster to the other and the password of one in the
catalogue of the other. Here the worker has what it needs already: a session on each end.

    begin       publication and slot: from here on every change is kept
    copy        all rows of one snapshot, one transaction on the target, with the snapshot's name beside
    follow      changes in the order of their commits; those that the snapshot saw are passed over
    hand_over   writing ends → a note is put into the log → when the note comes out at the other end, the two
                are the same: sequences, comparison, cut

The rows are read and written by the tenants' migrators, which act as the tables' owner: code that a
tenant's schema holds (a check, a generated column) is never run with the master's rights. For the length of
a copy the target's migrator is set to `session_replication_role = replica`, so that triggers and foreign
keys don't act on changes which they have acted on before. docs/adr/0008 argues all this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.domain.placement import Placement
from controlplane.workers.providers.databases import shape
from controlplane.workers.providers.databases.errors import DatabaseClosed, NoSuchDatabase
from controlplane.workers.providers.databases.logins import LEFT_OPEN_SECONDS, end_left_open
from controlplane.workers.providers.databases.recipe import APP_SCHEMA
from controlplane.workers.providers.databases.sessions import Sessions
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.moves import comparing, progress, stream
from controlplane.workers.providers.moves import tables as catalogue
from controlplane.workers.providers.moves.following import Ends, follow_a_piece
from controlplane.workers.providers.moves.pgoutput import RUNBOOK
from controlplane.workers.providers.moves.tables import Table
from controlplane.workers.providers.ports import Copied, HandedOver, Home, MoveDescription, MoveRun, Secrets

CLONE = "clone"
LITTLE = 500
"""Changes: once a read of the log finds no more than these, the rest is left to the hand-over."""
CHECK_BETWEEN_BYTES = 16 * 2**20
"""Databases up to this size are compared by checksum before the cut, larger ones after it."""
CARRY_IN_PAUSE_BYTES = 256 * 2**20
"""Of all tables together whose changes can't be followed."""
OLD_TRANSACTIONS_SECONDS = 60.0


class PostgresMoves:
    """`sslmode`, `sslrootcert`, `connect_timeout` as of `PostgresDatabases`. `statement_timeout`: seconds
    for one statement, the copy of a whole table among them. `patience`: seconds that `follow` tries to
    come up with a source that is being written to. `left_open`: seconds after which a transaction that an
    application left idle is ended. `check_between`: bytes, see CHECK_BETWEEN_BYTES."""

    def __init__(
        self,
        secrets: Secrets,
        endpoint_map: EndpointMap,
        *,
        sslmode: str = "verify-full",
        sslrootcert: Path | None = None,
        connect_timeout: int = 20,
        statement_timeout: float = 6 * 3600,
        lock_timeout: float = 20,
        patience: float = 900,
        left_open: float = LEFT_OPEN_SECONDS,
        check_between: int = CHECK_BETWEEN_BYTES,
        connection_class: type[psycopg.Connection] = psycopg.Connection,
    ) -> None:
        self._patience = patience
        self._left_open = left_open
        self._check_between = check_between
        self._sessions = Sessions(
            secrets,
            endpoint_map,
            sslmode=sslmode,
            sslrootcert=sslrootcert,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            connection_class=connection_class,
        )

    # ------------------------------------------------------------------------------------- the port

    def observe(self, source: Home, target: Home) -> MoveDescription:
        name = stream.name_of(source.placement, target.placement)
        with self._master(source) as conn:
            streaming = stream.exists(conn, name)
        try:
            with self._master(target) as conn:
                observed = progress.see(conn)
        except (NoSuchDatabase, DatabaseClosed):
            observed = None
        copied = observed is not None and observed.slot == name and observed.snapshot is not None
        return MoveDescription(streaming=streaming, copied=streaming and copied)

    def require_followable(self, source: Home) -> None:
        with self._master(source) as conn:
            stream.require_logical(conn, source)

    def begin(self, source: Home, target: Home, run: MoveRun) -> None:
        name = stream.name_of(source.placement, target.placement)
        with self._master(target) as there, self._master(source) as here:
            _require_same_shape(here, there)
            if stream.exists(here, name):
                return
            stream.require_logical(here, source)
            _require_carriable(here)
            run.check()
            progress.make(there, target.placement)
            there.execute(_replica(target.placement, on=True))
            progress.start(there, name, run.fencing_token)
            stream.drop(here, name)
            with self._migrator(source) as reader:
                stream.publish(reader, name, [t for t in catalogue.tables(reader) if t.streams])
            run.check()
            end_left_open(here, seconds=self._left_open)
            stream.keep(here, name)

    def copy(self, source: Home, target: Home, run: MoveRun) -> Copied:
        began = time.monotonic()
        run.check()
        with self._master(target) as there:
            _end_others(there, target.placement)
        with self._master(source) as here:
            end_left_open(here, seconds=self._left_open)
        with self._ends(source, target) as ends:
            tables = catalogue.tables(ends.reader)
            carried = [table for table in tables if table.streams]
            _await_old_transactions(ends.reader)
            rows = size = 0
            with _snapshot(ends.reader) as snapshot, ends.writer.transaction():
                position = stream.position_behind(ends.reader)
                progress.take(ends.writer, run.fencing_token)
                _empty(ends.writer, catalogue.tables(ends.writer))
                for table in carried:
                    more_rows, more = self._carry(ends, table, run)
                    rows, size = rows + more_rows, size + more
                _refresh(ends)
                progress.copied(ends.writer, snapshot=snapshot, copied_to=position)
            for table in carried:
                ends.writer.execute(sql.SQL("ANALYZE {}").format(table.identifier))
        return Copied(len(carried), rows, size, time.monotonic() - began)

    def clone(self, source: Home, target: Home, run: MoveRun) -> Copied:
        """The progress row stays in the target: it keeps the fencing token, since a clone is served once this
        is recorded and a worker that slept must not empty it then."""
        began = time.monotonic()
        with self._master(target) as there, self._master(source) as here:
            _require_same_shape(here, there)
            if catalogue.large_objects(here):
                raise NeedsHuman("the database has large objects, which are not carried", runbook=RUNBOOK)
            run.check()
            progress.make(there, target.placement)
            progress.start(there, CLONE, run.fencing_token)
            _end_others(there, target.placement)
            there.execute(_replica(target.placement, on=True))
        with self._ends(source, target) as ends:
            tables = catalogue.tables(ends.reader)
            rows = size = 0
            with _snapshot(ends.reader), ends.writer.transaction():
                progress.take(ends.writer, run.fencing_token)
                _empty(ends.writer, catalogue.tables(ends.writer))
                for table in tables:
                    more_rows, more = self._carry(ends, table, run)
                    rows, size = rows + more_rows, size + more
                catalogue.carry_sequences(ends.reader, ends.writer, catalogue.sequences(ends.reader))
                _refresh(ends)
                sums = self._compare(ends, tables)
                if sums.differing:
                    raise NeedsHuman(f"the copy differs in {', '.join(sums.differing[:10])}", runbook=RUNBOOK)
            for table in tables:
                ends.writer.execute(sql.SQL("ANALYZE {}").format(table.identifier))
        with self._master(target) as there:
            there.execute(_replica(target.placement, on=False))
        return Copied(len(tables), rows, size, time.monotonic() - began, tuple(sums.tables))

    def follow(self, source: Home, target: Home, run: MoveRun) -> int:
        with self._ends(source, target) as ends:
            return self._follow(ends, run)

    def hand_over(
        self,
        source: Home,
        target: Home,
        run: MoveRun,
        *,
        pause: Callable[[], None],
        cut: Callable[[], None],
    ) -> HandedOver:
        with self._ends(source, target) as ends, ExitStack() as held:
            self._follow(ends, run)
            tables = catalogue.tables(ends.reader)
            sequences = catalogue.sequences(ends.reader)
            there = held.enter_context(self._master(target))
            small = sum(table.size for table in tables) <= self._check_between
            began = time.monotonic()
            pause()
            _require_same_shape(ends.master, there)
            _require_carriable(ends.master)
            self._drain(ends, run)
            self._finish(ends, tables, sequences, run)
            held.enter_context(_snapshot(ends.writer))
            if small:
                sums = self._compare(ends, tables)
                if sums.differing:
                    raise NeedsHuman(f"the copy differs in {', '.join(sums.differing[:10])}", runbook=RUNBOOK)
            run.check()
            cut()
            seconds = time.monotonic() - began
            if not small:
                sums = self._compare(ends, tables)
            return HandedOver(sums.tables, "before" if small else "after", seconds)

    def clear(self, source: Home, target: Home | None) -> None:
        with self._master(source) as conn:
            rows = conn.execute(
                "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()"
                " AND starts_with(slot_name::text, %s)",
                (f"move_{source.placement.database}_",),
            ).fetchall()
            for (name,) in rows:
                stream.drop(conn, name)
        with self._migrator(source) as reader:
            rows = reader.execute(
                "SELECT pubname::text FROM pg_publication WHERE starts_with(pubname::text, %s)",
                (f"move_{source.placement.database}_",),
            ).fetchall()
            for (name,) in rows:
                stream.unpublish(reader, name)
        if target is not None:
            try:
                with self._master(target) as conn:
                    conn.execute(_replica(target.placement, on=False))
                    progress.drop(conn)
            except (NoSuchDatabase, DatabaseClosed):
                return

    # ------------------------------------------------------------------------------------- carrying

    def _carry(self, ends: Ends, table: Table, run: MoveRun) -> tuple[int, int]:
        """(rows, bytes). As text: the binary form holds numbers of types, which differ from one database
        to another."""
        if not table.columns:
            return 0, 0
        size = 0
        out = sql.SQL("COPY {} ({}) TO STDOUT").format(table.identifier, table.column_list)
        into = sql.SQL("COPY {} ({}) FROM STDIN").format(table.identifier, table.column_list)
        with ends.reader.cursor() as reader, ends.writer.cursor() as writer:
            with reader.copy(out) as rows, writer.copy(into) as copy:
                for number, row in enumerate(rows):
                    if number % 1000 == 0:
                        run.check()
                    copy.write(row)
                    size += len(row)
            return writer.rowcount, size

    def _follow(self, ends: Ends, run: MoveRun) -> int:
        deadline = time.monotonic() + self._patience
        total = 0
        while True:
            changes, _ = follow_a_piece(ends, run, None)
            total += changes
            if changes <= LITTLE:
                return total
            if time.monotonic() > deadline:
                raise Retryable("the database is written to faster than the copy follows", after=60.0)

    def _drain(self, ends: Ends, run: MoveRun) -> None:
        """All that was committed before this call."""
        note = stream.mark_end(ends.master)
        deadline = time.monotonic() + self._patience
        while not follow_a_piece(ends, run, note)[1]:
            if time.monotonic() > deadline:
                raise Retryable("the end of the log did not come")

    def _finish(
        self, ends: Ends, tables: Sequence[Table], sequences: Sequence[tuple[str, str]], run: MoveRun
    ) -> None:
        """What no stream carries: the positions of sequences, and tables without a key."""
        silent = [table for table in tables if not table.streams]
        with ends.writer.transaction():
            progress.take(ends.writer, run.fencing_token)
            for table in silent:
                ends.writer.execute(sql.SQL("DELETE FROM ONLY {}").format(table.identifier))
                self._carry(ends, table, run)
            catalogue.carry_sequences(ends.reader, ends.writer, sequences)

    def _compare(self, ends: Ends, tables: Sequence[Table]) -> HandedOver:
        sums = [comparing.measure(conn, tables, checksums=True) for conn in (ends.reader, ends.writer)]
        return HandedOver(comparing.compare(*sums), "", 0.0)

    # ------------------------------------------------------------------------------------- sessions

    def _master(self, home: Home) -> AbstractContextManager[psycopg.Connection]:
        return self._sessions.master(home.at).open(home.placement.database)

    @contextmanager
    def _migrator(self, home: Home) -> Iterator[psycopg.Connection]:
        with self._sessions.migrator(home.at, home.placement) as conn:
            for name, value in comparing.SETTINGS.items():
                conn.execute("SELECT set_config(%s, %s, false)", (name, value))
            yield conn

    @contextmanager
    def _ends(self, source: Home, target: Home) -> Iterator[Ends]:
        name = stream.name_of(source.placement, target.placement)
        with (
            self._master(source) as master,
            self._migrator(source) as reader,
            self._migrator(target) as writer,
        ):
            yield Ends(name, master, reader, writer)


def _replica(target: Placement, *, on: bool) -> sql.Composed:
    change = sql.SQL("SET session_replication_role = replica" if on else "RESET session_replication_role")
    return (
        sql.SQL("ALTER ROLE {} IN DATABASE {} ").format(
            sql.Identifier(target.migrator_role), sql.Identifier(target.database)
        )
        + change
    )


def _require_same_shape(source: psycopg.Connection, target: psycopg.Connection) -> None:
    here, there = (frozenset(shape.lines(conn, APP_SCHEMA)) for conn in (source, target))
    if here != there:
        lines = [f"only in the source: {line}" for line in sorted(here - there)]
        lines += [f"only in the target: {line}" for line in sorted(there - here)]
        raise NeedsHuman(
            f"the two databases differ in {len(lines)} lines of their schema; {lines[0]}", runbook=RUNBOOK
        )


def _require_carriable(source: psycopg.Connection) -> None:
    if catalogue.large_objects(source):
        raise NeedsHuman("the database has large objects, which are not carried", runbook=RUNBOOK)
    silent = [table for table in catalogue.tables(source) if not table.streams]
    size = sum(table.size for table in silent)
    if size > CARRY_IN_PAUSE_BYTES:
        names = ", ".join(table.label for table in silent[:10])
        raise NeedsHuman(
            f"tables without a primary key hold {size} bytes, more than {CARRY_IN_PAUSE_BYTES}: {names}",
            runbook=RUNBOOK,
        )


def _empty(writer: psycopg.Connection, tables: Sequence[Table]) -> None:
    """What the schema's migrations put there, and what an earlier try left."""
    if tables:
        names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(table.identifier) for table in tables)
        writer.execute(sql.SQL("TRUNCATE {}").format(names))


def _refresh(ends: Ends) -> None:
    for view in catalogue.materialised_views(ends.reader):
        ends.writer.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(*view)))


def _end_others(master: psycopg.Connection, target: Placement) -> None:
    """A worker that slept through its lease may hold locks here, in a transaction that must not end well."""
    while master.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s AND datname = %s",
        (target.migrator_role, target.database),
    ).fetchall():
        continue


def _await_old_transactions(conn: psycopg.Connection) -> None:
    """A transaction whose commit is in the log already may, for a moment, still look as if it ran; one such
    would be missing from the snapshot and from the changes behind it. So whoever runs now has to end."""
    newest = _value(conn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    deadline = time.monotonic() + OLD_TRANSACTIONS_SECONDS
    while _value(conn, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint") < newest:
        if time.monotonic() > deadline:
            raise Retryable("a transaction on the cluster has been open for long; the copy waits for its end")
        time.sleep(0.05)


def _value(conn: psycopg.Connection, query: LiteralString) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None  # noqa: S101 — a SELECT without FROM
    return int(row[0])


@contextmanager
def _snapshot(conn: psycopg.Connection) -> Iterator[str]:
    """A transaction that sees one moment, which is the name of its snapshot."""
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        with conn.transaction():
            row = conn.execute("SELECT pg_current_snapshot()::text").fetchone()
            assert row is not None  # noqa: S101 — a SELECT without FROM
            yield row[0]
    finally:
        if not conn.closed:
            conn.isolation_level = None
