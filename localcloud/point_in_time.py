"""A server's data as it was at a moment, made anew from the log alone.

A server that was born empty began as a copy of the one cached empty cluster, and as long as all of its log is
still there, replaying that over another copy of the empty cluster brings back any moment of its life. So no
base backup is taken and nothing is archived: a server only keeps its log (`wal_keep_size`), which costs disk
and no time. One that was made from another one's data, or has written more than it keeps, has no such past,
and says so.
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from controlplane.localcloud.servers import postgres_install as install
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import ServiceError

KEPT_LOG = "1GB"
"""As much as a server may have of it anyhow (`max_wal_size`)."""
_SEGMENT = re.compile(r"[0-9A-F]{24}")


def make_past(source: PostgresServer, at: datetime, data_dir: Path) -> None:
    """Make `data_dir`, which must not exist: what `source`, which runs, held at this moment. The replay
    itself happens at the first start of a server on it. Raises ServiceError where the log is not whole."""
    if not source.running:
        raise ServiceError(f"postgres in {source.data_dir.name}: it does not run, so its log has no end")
    with psycopg.connect(source.url(), autocommit=True) as conn:
        # The replay ends at the first commit behind the moment, so there has to be one, and on disk: one of a
        # transaction that has written nothing would be flushed later.
        conn.execute("SELECT pg_logical_emit_message(true, 'localcloud', 'behind the moment')")
    install.copy_empty_cluster(data_dir, source.user)
    needed = {path.name for path in _segments(data_dir)}
    log = _segments(source.data_dir)
    if not needed <= {path.name for path in log}:
        shutil.rmtree(data_dir)
        raise ServiceError(
            f"postgres in {source.data_dir.name}: its past is not kept: it was not born empty, or has written"
            f" more than {KEPT_LOG} since"
        )
    for segment in log:
        shutil.copyfile(segment, data_dir / "pg_wal" / segment.name)
        install.give_to_runner(data_dir / "pg_wal" / segment.name)
    signal, settings = data_dir / "recovery.signal", data_dir / "postgresql.auto.conf"
    with settings.open("a") as file:
        file.write(
            "restore_command = 'false'\n"  # all of it is in its place
            f"recovery_target_time = '{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f+00}'\n"
            "recovery_target_action = 'promote'\n"
            "hot_standby = off\n"  # so that it is not "ready" before the end
        )
    signal.touch()
    install.give_to_runner(signal, settings)


def _segments(data_dir: Path) -> list[Path]:
    return sorted(path for path in (data_dir / "pg_wal").iterdir() if _SEGMENT.fullmatch(path.name))
