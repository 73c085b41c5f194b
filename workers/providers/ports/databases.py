"""Tenants' databases on their clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from controlplane.domain.placement import Identity, Placement
from controlplane.domain.release import Release
from controlplane.domain.status import Clients
from controlplane.workers.providers.ports.clusters import ClusterEndpoint
from controlplane.workers.providers.ports.secrets import Credential


@dataclass(frozen=True, slots=True)
class DatabaseDescription:
    """A placement's database as its cluster shows it to the master."""

    exists: bool
    hardened: bool  # roles, grants, schema, identity and what guards it: all of the recipe holds
    logins_open: bool  # may the application's logins connect?
    release: str | None  # the newest migration recorded in the database, e.g. "0002"
    roles: bool = False  # is any of the placement's roles there?
    identity: Identity | None = None  # what it says of itself; None where that is nothing, or two things


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds that a statement of a migration may wait for a lock, and run."""

    lock_timeout: float
    statement_timeout: float


@dataclass(frozen=True, slots=True)
class FileRun:
    """A file, or a whole run of another tool, that was applied now."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LockHeld:
    """`mode` as PostgreSQL names it; `seconds` between the first and the last time it was observed."""

    table: str
    mode: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A copy of a tenant's database that was migrated. `size`: of the original, in bytes."""

    seconds: float
    size: int
    files: list[FileRun]
    locks: list[LockHeld]


class Databases(Protocol):
    """Acts on tenant databases, as the cluster's master unless said otherwise.

    "As the migrator": with a password that is drawn for it, that nobody else ever has and that is worth
    nothing once it has logged in; several at once may do so. Raises Pending while another run needs to log in
    for longer, as a command that migrates does."""

    def harden_cluster(self, at: ClusterEndpoint) -> None:
        """Take CONNECT on `postgres` and `template1` from PUBLIC. Raises Retryable while the
        cluster can't be reached."""
        ...

    def observe(self, at: ClusterEndpoint, placement: Placement) -> DatabaseDescription: ...

    def create(self, at: ClusterEndpoint, placement: Placement, *, connection_limit: int) -> None:
        """The hardened recipe, resumed wherever an earlier try stopped: owner, migrator, two app
        logins, the database with connections off, grants, schema `app`, `platform.identity` with the
        placement and no tenant, then connections on. Raises NeedsHuman("cross-tenant-marker") where the
        database says that it is another's."""
        ...

    def bind(self, at: ClusterEndpoint, placement: Placement) -> None:
        """Write into `platform.identity` which tenant the placement is for. Once: nothing changes it after
        that; the same again is success. Raises NeedsHuman("cross-tenant-marker") where the database says
        that it is another's, or nothing."""
        ...

    def set_password(self, at: ClusterEndpoint, credential: Credential) -> None:
        """Give the application login `credential.username` its password (sent as a SCRAM verifier, so that no
        statement log can hold it) and leave the role able to log in. Raises Invalid for any other role."""
        ...

    def open_logins(self, at: ClusterEndpoint, placement: Placement, *, connection_limit: int) -> None: ...

    def close_logins(self, at: ClusterEndpoint, placement: Placement) -> None:
        """Refuse the application's logins and end their sessions; data stays."""
        ...

    def seal(self, at: ClusterEndpoint) -> None:
        """Refuse every login of every tenant on this cluster and end their sessions, for a cluster that was
        restored: its logins have the passwords of that time."""
        ...

    def retire_login(self, at: ClusterEndpoint, username: str) -> None:
        """Take the password from a login that was rotated away, so that nobody gets in as it, and end
        its sessions: those that are at work have 10 s to finish. Nothing to retire is success."""
        ...

    def migrate(
        self, at: ClusterEndpoint, placement: Placement, migrations: Path, *, up_to: str | None = None
    ) -> str:
        """As the migrator: apply the numbered SQL files not applied yet, those `up_to` this number where
        one is given, each in a transaction and recorded in the same one, under an advisory lock; return
        the newest number."""
        ...

    def bring_to(
        self, at: ClusterEndpoint, placement: Placement, release: Release, bounds: Bounds
    ) -> list[FileRun]:
        """As the migrator: apply what the release has and the database has not, under an advisory lock
        and each file once, with the release's own tool; what was applied now, nothing if all was there.

        Raises Retryable (a lock or the server was not to be had, a worker of another version),
        MigrationFailed with the statement and the database's error, NeedsHuman("tenant-migration")
        where the database's past is not the release's."""
        ...

    def rehearse(
        self,
        at: ClusterEndpoint,
        placement: Placement,
        release: Release,
        bounds: Bounds,
    ) -> Rehearsed:
        """The same as `bring_to` on a copy that is dropped afterwards; the original is only read.
        Raises Retryable where the original is in use, and as `bring_to`."""
        ...

    def shape(self, at: ClusterEndpoint, placement: Placement) -> list[str]:
        """The schema as lines, the same for every tenant of a release: see `databases.shape`."""
        ...

    def drop(self, at: ClusterEndpoint, placement: Placement) -> None:
        """Delete the database with all sessions on it, then its roles: there is no way back. Resumed
        wherever an earlier try stopped; nothing there is success. Raises NeedsHuman("cross-tenant-marker")
        where the database says that it is another's."""
        ...

    def names(self, at: ClusterEndpoint) -> list[str]:
        """Every database of the cluster but its templates and AWS's own."""
        ...

    def clients(self, at: ClusterEndpoint) -> list[Clients]:
        """Who is connected to the cluster, but for AWS's own and the session that asks, the oldest first, 50
        at most. It connects: see `Clusters.activity`."""
        ...

    def admits(self, at: ClusterEndpoint, credential: Credential) -> bool:
        """Does this login get into `credential.dbname`, though it should not? False means that the server
        refused the login or the database; anything else that is wrong raises."""
        ...

    def accepts(self, at: ClusterEndpoint, credential: Credential) -> bool:
        """Does this login get in? False means the server refused the password; anything else that
        is wrong raises."""
        ...

    def prove(self, at: ClusterEndpoint, credential: Credential, placement: Placement) -> None:
        """Log in as the tenant's application would and read: right database, right placement, no other
        tenant, the schema is there. Raises NeedsHuman("cross-tenant-marker") where the database is
        another's."""
        ...
