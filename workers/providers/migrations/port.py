"""What an adapter is: it brings one database to one release, and may be cut off at any point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg

from controlplane.domain.placement import Placement
from controlplane.domain.release import Release
from controlplane.workers.providers.databases.sessions import Sessions
from controlplane.workers.providers.ports import Bounds, ClusterEndpoint, Credential, FileRun


@dataclass(frozen=True, slots=True)
class Door:
    """The way into one tenant's database, or a copy of it, as its migrator, under the bounds of this run."""

    sessions: Sessions
    at: ClusterEndpoint
    placement: Placement
    dbname: str
    bounds: Bounds

    def open(self) -> AbstractContextManager[psycopg.Connection]:
        """A session in autocommit mode, every statement of which is bounded."""
        return self.sessions.migrator(
            self.at,
            self.placement,
            dbname=self.dbname,
            statement_timeout=self.bounds.statement_timeout,
            lock_timeout=self.bounds.lock_timeout,
        )

    def connect(self) -> psycopg.Connection:
        """As `open`, for a tool that closes it itself."""
        return self.sessions.connect_migrator(
            self.at,
            self.placement,
            dbname=self.dbname,
            statement_timeout=self.bounds.statement_timeout,
            lock_timeout=self.bounds.lock_timeout,
        )

    @contextmanager
    def environment(self, *, seconds: float) -> Iterator[tuple[Credential, dict[str, str]]]:
        """The login for another program, which may connect with it as often as it likes inside, for so many
        `seconds` at most. Holds the password: for a child's environment alone."""
        with self.sessions.let_in(self.at, self.placement, seconds=seconds, dbname=self.dbname) as credential:
            yield (
                credential,
                self.sessions.environment(
                    self.at,
                    credential,
                    statement_timeout=self.bounds.statement_timeout,
                    lock_timeout=self.bounds.lock_timeout,
                ),
            )


class Migrator(Protocol):
    def apply(self, door: Door, release: Release, projects: Path | None) -> list[FileRun]:
        """Apply what the release has and the database has not; what was applied now.

        Holds the database's migration lock throughout and records the release in
        `platform.schema_migration`. Raises as `ports.Databases.bring_to`.
        """
        ...
