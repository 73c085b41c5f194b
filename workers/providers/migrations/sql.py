"""Numbered SQL: the files come with the release, from the registry, so every worker has the same."""

from __future__ import annotations

from pathlib import Path

from controlplane.domain.release import Release
from controlplane.workers.providers.databases import migrations
from controlplane.workers.providers.migrations.port import Door
from controlplane.workers.providers.ports import FileRun


class SqlMigrator:
    def apply(self, door: Door, release: Release, projects: Path | None) -> list[FileRun]:
        files = migrations.of_release(release)
        with door.open() as conn:
            return migrations.apply(conn, files)
