"""The record of a release in the tenant's database, for a tool that keeps a record of its own.

The tool's record (alembic_version, django_migrations, …) say which of its files were applied, and it
skips those. Ours says that the release as a whole was: it is written after the tool has ended well, so
a crash between the two only costs a run of the tool that finds nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from controlplane import migration_project
from controlplane.domain.errors import Invalid, NeedsHuman, Retryable
from controlplane.domain.release import Release
from controlplane.migration_project import Project
from controlplane.workers.providers.databases import migrations
from controlplane.workers.providers.databases.errors import statement_error
from controlplane.workers.providers.migrations.port import Door
from controlplane.workers.providers.ports import FileRun


def project_of(release: Release, projects: Path | None) -> Project:
    """This worker's copy of the release: the folder named by its number, or the only one there is.

    Raises Retryable where its files are others: a deployment is under way, and a worker of the right
    version will come.
    """
    if projects is None:
        raise NeedsHuman("this worker has no folder of tenant migrations", runbook=migrations.RUNBOOK)
    numbered = projects / release.number
    try:
        project = migration_project.read(numbered if numbered.is_dir() else projects)
    except Invalid as error:
        raise NeedsHuman(str(error), runbook=migrations.RUNBOOK) from error
    if Release(release.number, project.adapter, project.files).checksum != release.checksum:
        raise Retryable(f"this worker's migration files are not those of release {release.number}")
    return project


def run_recorded(door: Door, release: Release, run: Callable[[], None]) -> list[FileRun]:
    """Hold the migration lock around `run`, which runs the tool, and record the release when it has
    ended well. Nothing is run where the release is recorded already."""
    name = f"{release.number}_{release.adapter}"
    with door.open() as conn, migrations.locked(conn) as applied:
        known = applied.get(release.number)
        if known is not None:
            if known[1] == release.checksum:
                return []
            raise NeedsHuman(
                f"release {release.number} was changed after it had been applied", runbook=migrations.RUNBOOK
            )
        began = time.monotonic()
        run()
        try:
            migrations.record(conn, release.number, name, release.checksum)
        except psycopg.Error as error:
            raise statement_error(error, f"recording {name}", runbook=migrations.RUNBOOK) from error
        return [FileRun(name, time.monotonic() - began)]
