"""`ports.Databases` without a server: roles, databases and migrations as rows of the `World`.

`create` has the five commits of the real recipe as points at which a test may kill the worker, letting the
migrator in has one on either side of its login, and both leave behind what the real ones would. Passwords are
kept as digests, so that a search for a secret finds none here either. `down` makes a cluster unreachable,
`fail_migration` makes a file fail. A cluster that pauses does so by `idle`, and whoever connects wakes it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from controlplane.domain.errors import NeedsHuman, Pending, Retryable
from controlplane.domain.placement import Identity, Placement
from controlplane.domain.release import MigrationFailed, Release
from controlplane.domain.status import Clients
from controlplane.localcloud.fakes.aws import ASLEEP, SESSION
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.databases import migrations as tenant_migrations
from controlplane.workers.providers.databases.errors import (
    RUNBOOK,
    DatabaseClosed,
    LoginRefused,
    NoSuchDatabase,
)
from controlplane.workers.providers.databases.logins import new_password, require_app_login, require_limit
from controlplane.workers.providers.databases.recipe import MIGRATOR_CONNECTIONS
from controlplane.workers.providers.ports import (
    Bounds,
    ClusterEndpoint,
    Credential,
    DatabaseDescription,
    FileRun,
    Rehearsed,
    Secrets,
)

SERVER_DOWN = "database-server-down"
CLUSTER = "database-cluster"
ROLE = "database-role"
ROTATED = "database-master-rotated"
VISITED = "database-visited"
DATABASE = "database"
FAILING = "database-failing-migration"
APPLIED = "database-applied-migration"
CONNECTIONS = "database-connections"


class FakeDatabases:
    """Reads the master's secret as the real one does, and only that."""

    def __init__(self, world: World, secrets: Secrets) -> None:
        self.world = world
        self._secrets = secrets
        self._letting_in: set[str] = set()

    # ------------------------------------------------------------------------------ for tests alone

    def down(self, at: ClusterEndpoint, *, down: bool = True) -> None:
        if down:
            self.world.put(SERVER_DOWN, _key(at), True)
        else:
            self.world.drop(SERVER_DOWN, _key(at))

    def idle(self, at: ClusterEndpoint) -> None:
        """Nobody connects for as long as the cluster waits before it pauses; one that never does goes on."""
        cluster = self.world.get("aws-cluster", at.host.partition(".")[0]) or {}
        pauses = cluster.get("auto_pause") is not None and cluster.get("parameter_group") is None
        if pauses and not self.world.all(f"{SESSION}-{_key(at)}"):
            self.world.put(ASLEEP, _key(at), True)

    def stay(self, at: ClusterEndpoint, credential: Credential, *, application: str = "dataplane") -> None:
        """Somebody connects as this login, whatever the secrets say of it, and keeps the connection."""
        self._reach(at)
        found = {"database": credential.dbname, "user": credential.username, "application": application}
        self.world.put(f"{SESSION}-{_key(at)}", credential.username, found)

    def leave(self, at: ClusterEndpoint, credential: Credential) -> None:
        self.world.drop(f"{SESSION}-{_key(at)}", credential.username)

    def awake(self, at: ClusterEndpoint) -> bool:
        return self.world.get(ASLEEP, _key(at)) is None

    def connections(self, at: ClusterEndpoint) -> int:
        """How many were opened so far, or tried."""
        return int(self.world.get(CONNECTIONS, _key(at)) or 0)

    def rotate_master(self, at: ClusterEndpoint, password: str) -> None:
        """The server has another password for its master from now on; the secret is not changed."""
        self.world.put(ROTATED, _key(at), hashlib.sha256(password.encode()).hexdigest())

    def visit(self, at: ClusterEndpoint, dbname: str, *, stay: bool = True) -> None:
        """An agent of AWS's has a session there, which no master may end."""
        if stay:
            self.world.put(VISITED, _key(at, dbname), True)
        else:
            self.world.drop(VISITED, _key(at, dbname))

    def breach(self, at: ClusterEndpoint, username: str, dbname: str) -> None:
        """Somebody grants this login CONNECT on another tenant's database."""
        self._change(at, username, also=[dbname])

    def alter_own(
        self, at: ClusterEndpoint, credential: Credential, *, password: str | None = None, **settings: str
    ) -> None:
        """The login changes its own role, as every login may."""
        self._enter(at, credential)
        role = self._role(at, credential.username) or {}
        self._change(at, credential.username, settings=role.get("settings", {}) | settings)
        if password is not None:
            self._change(at, credential.username, digest=_digest(replace(credential, password=password)))

    def content(self, at: ClusterEndpoint, credential: Credential) -> dict[str, Any]:
        """What the login's database holds. Raises as a login does."""
        self._enter(at, credential)
        return self._database(at, credential.dbname)

    def dump(self, at: ClusterEndpoint, placement: Placement) -> dict[str, Any]:
        """What the placement's database holds, as its migrator. Raises as a login does."""
        self.as_migrator(at, placement)
        return self._database(at, placement.database)

    def leave_open(self, at: ClusterEndpoint, placement: Placement) -> None:
        """A worker died while it let the migrator in."""
        self._change(at, placement.migrator_role, login=True, digest="known to a dead worker", let_in_by=None)

    def may_log_in(self, at: ClusterEndpoint, username: str) -> bool:
        role = self._role(at, username)
        return role is not None and bool(role["login"])

    def write(self, at: ClusterEndpoint, credential: Credential, row: str) -> None:
        """As the application: it raises, or the row is there."""
        self._enter(at, credential)
        key = _key(at, credential.dbname)
        database = self._database(at, credential.dbname)
        self.world.put(DATABASE, key, database | {"rows": [*database.get("rows", ()), row]})

    def rows(self, at: ClusterEndpoint, dbname: str) -> list[str]:
        return list(self._database(at, dbname).get("rows", ()))

    def fail_migration(self, name: str, *, fail: bool = True) -> None:
        """`name`: the file's."""
        if fail:
            self.world.put(FAILING, name, True)
        else:
            self.world.drop(FAILING, name)

    # ---------------------------------------------------------------------------------------- port

    def harden_cluster(self, at: ClusterEndpoint) -> None:
        self._as_master(at)
        with self.world.call("databases.harden_cluster"):
            self.world.put(CLUSTER, _key(at), {"hardened": True})

    def observe(self, at: ClusterEndpoint, placement: Placement) -> DatabaseDescription:
        self._as_master(at)
        with self.world.call("databases.observe"):
            database, held = self._database(at, placement.database), self._is_held(at, placement)
            apps = [self._role(at, name) for name in placement.app_roles]
        ready = bool(database.get("doors"))
        roles = [*apps, self._role(at, placement.migrator_role)]
        plain = all(role is not None and not role.get("settings") for role in roles)
        identity = _identity(database)
        whole = ready and identity is not None and identity.fits(placement) and plain
        return DatabaseDescription(
            exists=bool(database),
            hardened=whole and (not self.may_log_in(at, placement.migrator_role) or held),
            logins_open=ready and any(role is not None and _is_open(role) for role in apps),
            release=max(database.get("migrations", ()), default=None),
            roles=any(self._role(at, name) is not None for name in _roles(placement)),
            identity=identity,
        )

    def create(self, at: ClusterEndpoint, placement: Placement, *, connection_limit: int) -> None:
        require_limit(connection_limit)
        self._as_master(at)
        self._require_free(at, placement)
        with self.world.call("databases.create.roles"):
            self._create_roles(at, placement, connection_limit)
        key = _key(at, placement.database)
        with self.world.call("databases.create.database"):
            database = self._database(at, placement.database)
            if not database:
                database = {"accepts": False, "doors": False, "migrations": {}}
                self.world.put(DATABASE, key, database)
        with self.world.call("databases.create.shell"):
            self.world.put(DATABASE, key, database := database | {"accepts": True})
        with self.world.call("databases.create.inside"):
            _require_own(placement, database)
            database = {"tenant": None} | database | {"placement": placement.id}
            self.world.put(DATABASE, key, database)
        with self.world.call("databases.create.doors"):
            self.world.put(DATABASE, key, database | {"doors": True})

    def bind(self, at: ClusterEndpoint, placement: Placement) -> None:
        self._as_master(at)
        with self.world.call("databases.bind"):
            database = self._database(at, placement.database)
            if not database:
                raise NoSuchDatabase(f"{placement.database} does not exist", runbook=RUNBOOK)
            if not database["accepts"]:
                raise DatabaseClosed(f"{placement.database} is not currently accepting connections")
            _require_own(placement, database)
            if _identity(database) is None:
                raise NeedsHuman(
                    f"{placement.database}: the database does not say whose it is",
                    runbook="cross-tenant-marker",
                )
            bound = database | {"tenant": placement.tenant_id}
            self.world.put(DATABASE, _key(at, placement.database), bound)

    def set_password(self, at: ClusterEndpoint, credential: Credential) -> None:
        require_app_login(credential.username)
        self._as_master(at)
        with self.world.call("databases.set_password"):
            self._change(at, credential.username, login=True, digest=_digest(credential))

    def open_logins(self, at: ClusterEndpoint, placement: Placement, *, connection_limit: int) -> None:
        require_limit(connection_limit)
        self._as_master(at)
        with self.world.call("databases.open_logins"):
            for name in placement.app_roles:
                self._change(at, name, login=True, limit=connection_limit)

    def close_logins(self, at: ClusterEndpoint, placement: Placement) -> None:
        self._as_master(at)
        with self.world.call("databases.close_logins"):
            for name in placement.app_roles:
                if self._role(at, name) is not None:
                    self._change(at, name, login=False, limit=0)

    def seal(self, at: ClusterEndpoint) -> None:
        self._as_master(at)
        with self.world.call("databases.seal"):
            prefix = _key(at) + "/"
            for key in self.world.all(ROLE):
                if key.startswith(prefix):
                    self._change(at, key.removeprefix(prefix), login=False, digest=None)

    def retire_login(self, at: ClusterEndpoint, username: str) -> None:
        require_app_login(username)
        self._as_master(at)
        with self.world.call("databases.retire_login"):
            if self._role(at, username) is not None:
                self._change(at, username, digest=None)

    def drop(self, at: ClusterEndpoint, placement: Placement) -> None:
        self._as_master(at)
        with self.world.call("databases.drop.database"):
            _require_own(placement, self._database(at, placement.database))
            if self.world.get(VISITED, _key(at, placement.database)):
                raise Retryable("42501 permission denied to terminate process", runbook=RUNBOOK)
            self.world.drop(DATABASE, _key(at, placement.database))
        with self.world.call("databases.drop.roles"):
            for name in _roles(placement):
                self.world.drop(ROLE, _key(at, name))

    def migrate(
        self, at: ClusterEndpoint, placement: Placement, migrations: Path, *, up_to: str | None = None
    ) -> str:
        files = tenant_migrations.load(migrations, up_to=up_to)
        self.as_migrator(at, placement)
        key = _key(at, placement.database)
        database = self._database(at, placement.database)
        applied = {number: tuple(row) for number, row in database["migrations"].items()}
        for file in tenant_migrations.unapplied(files, applied):
            with self.world.call(f"databases.migrate.{file.number}"):
                if self.world.get(FAILING, file.name):
                    raise NeedsHuman(f"{file.name}: 42601 made to fail", runbook=tenant_migrations.RUNBOOK)
                database["migrations"][file.number] = (file.name, file.sha256)
                self.world.put(DATABASE, key, database)
        return files[-1].number

    def bring_to(
        self, at: ClusterEndpoint, placement: Placement, release: Release, bounds: Bounds
    ) -> list[FileRun]:
        self.as_migrator(at, placement)
        key = _key(at, placement.database)
        database = self._database(at, placement.database)
        applied = {number: tuple(row) for number, row in database["migrations"].items()}
        runs = []
        for file in tenant_migrations.unapplied(tenant_migrations.of_release(release), applied):
            with self.world.call(f"databases.bring_to.{file.number}"):
                if self.world.get(FAILING, file.name):
                    raise MigrationFailed(
                        f"{file.name}: 42601 made to fail",
                        file=file.name,
                        statement="SELECT fail",
                        error="42601 made to fail",
                    )
                database["migrations"][file.number] = (file.name, file.sha256)
                self.world.put(DATABASE, key, database)
                self.world.count(APPLIED, f"{placement.database}/{file.number}")
                runs.append(FileRun(file.name, 0.0))
        return runs

    def rehearse(
        self,
        at: ClusterEndpoint,
        placement: Placement,
        release: Release,
        bounds: Bounds,
    ) -> Rehearsed:
        key = _key(at, placement.database)
        before = self._database(at, placement.database)
        try:
            files = self.bring_to(at, placement, release, bounds)
        finally:
            self.world.put(DATABASE, key, before)
        return Rehearsed(0.0, 0, files, [])

    def shape(self, at: ClusterEndpoint, placement: Placement) -> list[str]:
        self._as_master(at)
        with self.world.call("databases.shape"):
            return [name for name, _ in self._database(at, placement.database)["migrations"].values()]

    def names(self, at: ClusterEndpoint) -> list[str]:
        self._as_master(at)
        with self.world.call("databases.names"):
            prefix = _key(at) + "/"
            ours = [key.removeprefix(prefix) for key in self.world.all(DATABASE) if key.startswith(prefix)]
            return sorted(["postgres", *ours])

    def clients(self, at: ClusterEndpoint) -> list[Clients]:
        self._as_master(at)
        with self.world.call("databases.clients"):
            found = self.world.all(f"{SESSION}-{_key(at)}").values()
            return [Clients(**each, sessions=1, oldest=60.0, last_statement=30.0) for each in found]

    def admits(self, at: ClusterEndpoint, credential: Credential) -> bool:
        with self.world.call("databases.admits"):
            try:
                self._enter(at, credential)
            except (LoginRefused, DatabaseClosed):
                return False
            return True

    def accepts(self, at: ClusterEndpoint, credential: Credential) -> bool:
        with self.world.call("databases.accepts"):
            try:
                self._enter(at, credential)
            except LoginRefused:
                return False
            return True

    def prove(self, at: ClusterEndpoint, credential: Credential, placement: Placement) -> None:
        with self.world.call("databases.prove"):
            self._enter(at, credential)
            identity = _identity(self._database(at, credential.dbname))
        if credential.dbname != placement.database or identity is None or not identity.fits(placement):
            raise NeedsHuman(
                f"{credential.username} reached {credential.dbname}, {identity}; "
                f"expected {placement.database} of {placement.tenant_id}",
                runbook="cross-tenant-marker",
            )
        role = self._role(at, credential.username) or {}
        if role.get("settings", {}).get("default_transaction_read_only") == "on":
            raise NeedsHuman(f"{credential.username} may only read in {credential.dbname}", runbook=RUNBOOK)

    # -------------------------------------------------------------------------------------- inside

    def as_migrator(self, at: ClusterEndpoint, placement: Placement) -> None:
        """A session of the migrator's, opened as the real one is: let in, logged in, and closed behind it.
        Raises as a login does, and Pending where another run lets it in."""
        self._as_master(at)
        name, key = placement.migrator_role, _key(at, placement.migrator_role)
        login = Credential(name, new_password(), dbname=placement.database)
        self._require_free(at, placement)
        self._letting_in.add(key)
        try:
            with self.world.call("databases.let_in"):
                self._change(at, name, login=True, digest=_digest(login), let_in_by=os.getpid())
            self._enter(at, login)
        finally:
            self._letting_in.discard(key)
            if self._role(at, name) is not None:
                with self.world.call("databases.shut_out"):
                    self._change(at, name, login=False, digest=None, let_in_by=None)

    def _is_held(self, at: ClusterEndpoint, placement: Placement) -> bool:
        """By somebody who lives and lets the migrator in: the real one's lock ends with its session."""
        process = (self._role(at, placement.migrator_role) or {}).get("let_in_by")
        if process == os.getpid():
            return _key(at, placement.migrator_role) in self._letting_in
        return process is not None and Path(f"/proc/{process}").exists()

    def _require_free(self, at: ClusterEndpoint, placement: Placement) -> None:
        if self._is_held(at, placement):
            raise Pending(f"{placement.database}: another run has its logins in hand")

    def _as_master(self, at: ClusterEndpoint) -> None:
        credential = self._secrets.read(at.master_secret_arn)
        self._reach(at)
        known = self.world.get(ROTATED, _key(at))
        if known is not None and known != hashlib.sha256(credential.password.encode()).hexdigest():
            raise Retryable("the master's login is refused", runbook="master-credential")

    def _reach(self, at: ClusterEndpoint) -> None:
        """Every connection comes by here, and wakes the cluster, also where nobody is let in (Aurora User
        Guide, "Scaling to Zero ACUs with automatic pause and resume")."""
        self.world.count(CONNECTIONS, _key(at))
        self.world.drop(ASLEEP, _key(at))
        if self.world.get(SERVER_DOWN, _key(at)):
            raise Retryable(f"{_key(at)}: connection refused")

    def _enter(self, at: ClusterEndpoint, credential: Credential) -> None:
        """As the server decides: password, role, database, limit."""
        self._reach(at)
        role = self._role(at, credential.username)
        if role is None or role["digest"] != _digest(credential) or not role["login"]:
            raise LoginRefused(f"{credential.username}: password authentication failed")
        if credential.dbname in ("postgres", "template1") and self.world.get(CLUSTER, _key(at)) is not None:
            raise DatabaseClosed(f"permission denied for database {credential.dbname}")
        database = self._database(at, credential.dbname)
        if not database:
            raise NoSuchDatabase(f"{credential.dbname} does not exist", runbook=RUNBOOK)
        granted = {role["database"], *role.get("also", ())}
        if not database["doors"] or credential.dbname not in granted:
            raise DatabaseClosed(f"permission denied for database {credential.dbname}")
        if role["limit"] == 0:
            raise Retryable(f"too many connections for role {credential.username}")

    def _create_roles(self, at: ClusterEndpoint, placement: Placement, connection_limit: int) -> None:
        apps = [role for name in placement.app_roles if (role := self._role(at, name)) is not None]
        login = all(_is_open(role) for role in apps)
        wanted = dict.fromkeys(placement.app_roles, (login, connection_limit if login else 0))
        wanted[placement.migrator_role] = (False, MIGRATOR_CONNECTIONS)
        for name, (may_login, limit) in wanted.items():
            role = self._role(at, name) or {"digest": None, "database": placement.database}
            changes = {"login": may_login, "limit": limit, "settings": {}}
            if name == placement.migrator_role:
                changes |= {"digest": None, "let_in_by": None}
            self.world.put(ROLE, _key(at, name), role | changes)

    def _database(self, at: ClusterEndpoint, name: str) -> dict[str, Any]:
        """Empty where there is none."""
        return self.world.get(DATABASE, _key(at, name)) or {}

    def _role(self, at: ClusterEndpoint, name: str) -> dict[str, Any] | None:
        return self.world.get(ROLE, _key(at, name))

    def _change(self, at: ClusterEndpoint, name: str, **changes: Any) -> None:
        role = self._role(at, name)
        if role is None:
            raise NeedsHuman(f"42704 role {name} does not exist", runbook=RUNBOOK)
        self.world.put(ROLE, _key(at, name), role | changes)


def _key(at: ClusterEndpoint, name: str = "") -> str:
    return f"{at.host}:{at.port}" + (f"/{name}" if name else "")


def _identity(database: dict[str, Any]) -> Identity | None:
    """None before it has one, and of no database."""
    placement = database.get("placement")
    return None if placement is None else Identity(placement, database["tenant"])


def _require_own(placement: Placement, database: dict[str, Any]) -> None:
    identity = _identity(database)
    if identity is not None and not identity.fits(placement):
        raise NeedsHuman(
            f"{placement.database}: the database says that it is {identity}", runbook="cross-tenant-marker"
        )


def _roles(placement: Placement) -> tuple[str, ...]:
    return (placement.migrator_role, *placement.app_roles)


def _digest(credential: Credential) -> str:
    return hashlib.sha256(f"{credential.username}\0{credential.password}".encode()).hexdigest()


def _is_open(role: dict[str, Any]) -> bool:
    return bool(role["login"]) and role["limit"] != 0
