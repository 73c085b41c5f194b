"""Alembic, in this process: `upgrade head` on a connection of ours, so that no URL with a password is
made and the session has our bounds.

The project's `env.py` takes the connection from `config.attributes["connection"]`, which is Alembic's
own recipe for sharing one ("Cookbook: Sharing a Connection across one or more programmatic migration
commands"). Alembic keeps its current environment in module globals, so one process runs one upgrade at
a time; more at once need more worker processes. It is imported when the first such release comes:
who does not use it need not install it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable
from controlplane.domain.release import MigrationFailed, Release
from controlplane.domain.sql_statements import EXCERPT
from controlplane.workers.providers.databases.errors import describe, shorten, statement_error
from controlplane.workers.providers.databases.migrations import RUNBOOK
from controlplane.workers.providers.migrations.applied import project_of, run_recorded
from controlplane.workers.providers.migrations.port import Door
from controlplane.workers.providers.ports import FileRun

_ONE_AT_A_TIME = threading.Lock()


class AlembicMigrator:
    def apply(self, door: Door, release: Release, projects: Path | None) -> list[FileRun]:
        project = project_of(release, projects)
        with _ONE_AT_A_TIME:
            return run_recorded(door, release, lambda: _upgrade(door, project.folder))


def _upgrade(door: Door, folder: Path) -> None:
    try:
        from alembic import command
        from alembic.config import Config
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool
    except ImportError as error:
        raise NeedsHuman(f"the Python package {error.name} is not installed", runbook=RUNBOOK) from error

    def connect() -> psycopg.Connection:
        conn = door.connect()
        conn.autocommit = False
        return conn

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    config = Config(str(folder / "alembic.ini"))
    config.set_main_option("script_location", str(folder))
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except ControlPlaneError:
        raise
    except Exception as error:  # a revision is anybody's Python
        raise _judge(error) from error
    finally:
        engine.dispose()


def _judge(error: Any) -> ControlPlaneError:
    cause = getattr(error, "orig", error)
    statement = " ".join(str(getattr(error, "statement", "") or "").split())[:EXCERPT]
    if not isinstance(cause, psycopg.Error):
        what = f"{type(error).__name__}: {shorten(str(error))}"
        return MigrationFailed(f"alembic: {what}", file="alembic", statement="", error=what)
    judged = statement_error(cause, f"alembic “{statement}”", runbook=RUNBOOK)
    if isinstance(judged, Retryable):
        return judged
    return MigrationFailed(str(judged), file="alembic", statement=statement, error=describe(cause))
