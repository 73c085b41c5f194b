"""One `pg_dump` of a tenant's database, as a stream, with the number of rows of each table beside it.

The rows are counted in a transaction whose snapshot the dump is then made from (`pg_export_snapshot`,
"Snapshot Synchronization Functions" in PostgreSQL's manual), so the two agree however much is written
meanwhile. The dump runs as the tenant's migrator: a backup needs no more rights than the tenant's own.
Schema `platform` is the control plane's and is left out; owners and grants are too, so that it restores
into any database of anybody.

The password reaches the program in its environment, which no other user can read: not among its
arguments, and not in a file. Nothing touches the disk. It is worth something only until the program has said
its first byte: by then it has connected, once for the whole of a dump.
"""

from __future__ import annotations

import re
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO

import psycopg
from psycopg import sql

from controlplane.domain.errors import LeaseLost, NeedsHuman, Retryable
from controlplane.domain.placement import Placement
from controlplane.settings import for_child
from controlplane.workers.providers.databases.errors import shorten
from controlplane.workers.providers.databases.sessions import LET_IN_SECONDS, Sessions
from controlplane.workers.providers.ports import ClusterEndpoint, Credential

RUNBOOK = "copy"
PLATFORM = "platform"
DUMP_SECONDS = 6 * 3600.0
ASK_SECONDS = 0.5  # between two questions to `stopped`
ERRORS_LIMIT = 4096  # bytes of what the program says that are read
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")


@dataclass
class Stream:
    """What the program writes; its end is reached only where it ended well. Read by one thread. `tables`:
    rows by "schema.table"; `server_version`: as the server calls itself."""

    tables: Mapping[str, int]
    server_version: str
    _process: subprocess.Popen[bytes] = field(repr=False)
    _errors: IO[bytes] = field(repr=False)
    _stopped: Callable[[], bool] = field(repr=False)
    _deadline: float = 0.0

    def wait(self) -> None:
        """Until there is something to read, or the program has ended. Raises LeaseLost, and Retryable where
        it took too long."""
        assert self._process.stdout is not None  # noqa: S101 — it is a pipe
        while not select.select([self._process.stdout], [], [], ASK_SECONDS)[0]:
            self._check()
        self._check()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, b"" at the end. Raises LeaseLost, and Retryable where the program failed or
        took too long: a dump that was cut off is never taken for a whole one."""
        self.wait()
        assert self._process.stdout is not None  # noqa: S101 — it is a pipe
        # Unbuffered, so what is ready is answered; the program has closed its end where nothing is.
        data = self._process.stdout.read(size if size >= 0 else 1 << 20) or b""
        if not data and self._process.wait(timeout=60) != 0:
            self._errors.seek(0)
            said = self._errors.read(ERRORS_LIMIT).decode("utf-8", "replace")
            raise Retryable(f"pg_dump ended with status {self._process.returncode}: {shorten(said)}")
        return data

    def _check(self) -> None:
        if self._stopped():
            raise LeaseLost("pg_dump was stopped: another holder has the lease")
        if time.monotonic() > self._deadline:
            raise Retryable(f"pg_dump took longer than {DUMP_SECONDS:.0f} s and was stopped")


class PgDump:
    """`program`: the binary, of the servers' major version or a later one."""

    def __init__(self, sessions: Sessions, *, program: str = "pg_dump") -> None:
        self._sessions = sessions
        self._program = program

    @contextmanager
    def stream(
        self, at: ClusterEndpoint, placement: Placement, *, stopped: Callable[[], bool]
    ) -> Iterator[Stream]:
        """Raises as `Sessions.migrator`, and NeedsHuman("copy") where the program can't dump this server."""
        with self._sessions.migrator(at, placement, statement_timeout=DUMP_SECONDS) as conn:
            self._require_version(conn)
            # The snapshot is held by a session that says nothing while the program reads.
            conn.execute("SET idle_in_transaction_session_timeout = 0")
            with conn.transaction():
                conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                tables = _count(conn)
                row = conn.execute("SELECT pg_export_snapshot()").fetchone()
                assert row is not None  # noqa: S101 — a SELECT without FROM
                with ExitStack() as running:
                    with self._sessions.let_in(
                        at, placement, seconds=LET_IN_SECONDS, by_libpq=True
                    ) as credential:
                        process, errors = running.enter_context(self._run(at, credential, str(row[0])))
                        stream = Stream(
                            tables=tables,
                            server_version=conn.info.parameter_status("server_version") or "",
                            _process=process,
                            _errors=errors,
                            _stopped=stopped,
                            _deadline=time.monotonic() + DUMP_SECONDS,
                        )
                        stream.wait()
                    yield stream

    @contextmanager
    def _run(
        self, at: ClusterEndpoint, credential: Credential, snapshot: str
    ) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
        command = [self._program, "--format=custom", "--no-password", "--no-owner", "--no-privileges"]
        command += [f"--exclude-schema={PLATFORM}", f"--snapshot={snapshot}", "--lock-wait-timeout=10s"]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=_surroundings() | self._sessions.libpq_environment(at, credential),
                start_new_session=True,
            )
            try:
                with process:
                    try:
                        yield process, errors
                    finally:
                        process.kill()  # nothing to one that has ended
            finally:
                process.wait()

    def _require_version(self, conn: psycopg.Connection) -> None:
        """A `pg_dump` dumps servers of its own major version and before, never a later one."""
        server = conn.info.server_version // 10000
        try:
            said = subprocess.run(
                [self._program, "--version"], capture_output=True, text=True, timeout=30, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise NeedsHuman(
                f"pg_dump: {self._program} does not run ({type(error).__name__})", runbook=RUNBOOK
            ) from error
        match = _VERSION.search(said)
        if match is None or int(match[1]) < server:
            found = shorten(said) or "nothing"
            raise NeedsHuman(f"pg_dump: expected {server} or later, got {found}", runbook=RUNBOOK)


def _count(conn: psycopg.Connection) -> dict[str, int]:
    """Rows of each table that the dump has; a partition is counted with its whole."""
    names = conn.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname <> ALL(%s)"
        " AND n.nspname NOT LIKE 'pg\\_%%' ORDER BY 1, 2",
        (["information_schema", PLATFORM],),
    ).fetchall()
    counts = {}
    for schema, table in names:
        row = conn.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))
        ).fetchone()
        assert row is not None  # noqa: S101 — an aggregate
        counts[f"{schema}.{table}"] = int(row[0])
    return counts


def _surroundings() -> dict[str, str]:
    """What a program needs to start; no variable of libpq's, none of ours."""
    return for_child("PATH", "HOME", "LD_LIBRARY_PATH")
