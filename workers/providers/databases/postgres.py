"""`ports.Databases` over PostgreSQL: tenant databases on an Aurora cluster, or on any PostgreSQL from
15 on whose master may create roles and databases. (Below 15 the schema `public` of a new database
belongs to RDS itself, and nobody else can drop it.)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable
from controlplane.domain.placement import Identity, Placement
from controlplane.domain.release import Release
from controlplane.domain.status import Clients
from controlplane.workers.providers.databases import migrations as tenant_migrations
from controlplane.workers.providers.databases import rehearsal, shape
from controlplane.workers.providers.databases.errors import (
    RUNBOOK,
    DatabaseClosed,
    LoginRefused,
    NoSuchDatabase,
)
from controlplane.workers.providers.databases.inspection import (
    PUBLIC,
    DatabaseInspection,
    ServerInspection,
    see_inside,
    see_server,
)
from controlplane.workers.providers.databases.logins import (
    is_tenant_login,
    require_app_login,
    require_limit,
    scram_verifier,
)
from controlplane.workers.providers.databases.recipe import APP_SCHEMA, Recipe
from controlplane.workers.providers.databases.sessions import (
    MAINTENANCE_DATABASE,
    Master,
    Sessions,
    lock_logins,
)
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.migrations import Door, migrator
from controlplane.workers.providers.ports import (
    Bounds,
    ClusterEndpoint,
    Credential,
    DatabaseDescription,
    FileRun,
    Rehearsed,
    Secrets,
)

OLDEST_SERVER_VERSION = 150000
GRANT_OPTIONS_SINCE = 160000
NOT_OURS = ("template0", "template1", "rdsadmin")
"""By name: whoever owns a database may call it a template. RDS lets nobody else into the last."""
HARDENED_DATABASES = (MAINTENANCE_DATABASE, "template1")
SESSIONS_END_WITHIN_SECONDS = 10.0
SESSIONS_POLL_SECONDS = 0.02
SESSIONS_FINISH_WITHIN_SECONDS = 10.0
SESSIONS_IDLE_SECONDS = 1.0
PROOF_LOCK_SECONDS = 5
PROOF_SECONDS = 20


class PostgresDatabases:
    """`sslmode`, `sslrootcert`: libpq's; in production "verify-full" and RDS's certificate bundle.
    Timeouts in seconds: to connect (whole, at least 2; a cluster that scaled to zero takes about 15 to
    wake, and the connection waits for it), for a statement, for a lock, and for a statement of a
    tenant's migrations. `projects`: the folder of the migration tool's project, for releases that are
    not numbered SQL."""

    def __init__(
        self,
        secrets: Secrets,
        endpoint_map: EndpointMap,
        *,
        sslmode: str = "verify-full",
        sslrootcert: Path | None = None,
        connect_timeout: int = 20,
        statement_timeout: float = 60,
        lock_timeout: float = 5,
        migration_timeout: float = 300,
        projects: Path | None = None,
        connection_class: type[psycopg.Connection] = psycopg.Connection,
    ) -> None:
        self._projects = projects
        self._migration_timeout = migration_timeout
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

    # ------------------------------------------------------------------------------------- clusters

    def harden_cluster(self, at: ClusterEndpoint) -> None:
        with self._sessions.master(at).open() as conn:
            _require_version(conn)
            for name in _open_to_public(conn):
                conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
            # Without the right to, REVOKE warns and does nothing.
            if left := _open_to_public(conn):
                raise NeedsHuman(
                    f"{at.host}: PUBLIC still has rights on {', '.join(left)}; the master must own them",
                    runbook=RUNBOOK,
                )

    # ------------------------------------------------------------------------------------ databases

    def observe(self, at: ClusterEndpoint, placement: Placement) -> DatabaseDescription:
        """One session, or two where the database lets the master in not (yet), which is an error only
        where nothing that `create` repairs explains it."""
        master = self._sessions.master(at)
        inside: DatabaseInspection | None = None
        try:
            with master.open(placement.database) as conn:
                recipe, server = _recipe(conn, placement), see_server(conn, placement)
                inside = see_inside(conn, placement)
        except ControlPlaneError as error:
            with master.open() as conn:
                recipe, server = _recipe(conn, placement), see_server(conn, placement)
            if not isinstance(error, NoSuchDatabase | DatabaseClosed) and not recipe.shut(server):
                raise
        return DatabaseDescription(
            exists=server.database_owner is not None,
            hardened=not (
                recipe.missing(server, inside)
                or recipe.violations(server, inside)
                or recipe.is_anothers(inside)
            ),
            logins_open=_logins_open(server, placement),
            release=None if inside is None else inside.release,
            roles=bool(server.roles),
            identity=None if inside is None else _one(inside.identity),
        )

    def create(self, at: ClusterEndpoint, placement: Placement, *, connection_limit: int) -> None:
        """`connection_limit`: of each of the two application logins. Also repairs what has drifted.

        Raises Retryable (unreachable, busy, somebody else is at it), NeedsHuman("tenant-database")
        naming the line that can't be made to hold, NeedsHuman("cross-tenant-marker").
        """
        require_limit(connection_limit)
        master = self._sessions.master(at)
        with master.open() as conn:
            _require_version(conn)
            lock_logins(conn, placement)
            recipe = _recipe(conn, placement, connection_limit)
            observed = see_server(conn, placement)
            with conn.transaction():
                _execute(conn, (statement for line in recipe.roles for statement in line(observed)))
            _execute(conn, (statement for line in recipe.database for statement in line(observed)))
            observed = see_server(conn, placement)
            with conn.transaction():
                _execute(conn, (statement for line in recipe.shell for statement in line(observed)))
            inside = self._harden_inside(master, recipe)
            with conn.transaction():
                _execute(conn, (statement for line in recipe.doors for statement in line(observed)))
            observed = see_server(conn, placement)
        wrong = recipe.missing(observed, inside) + recipe.violations(observed, inside)
        if wrong:
            raise NeedsHuman(
                f"{placement.database} on {at.host} is not as it should be: {'; '.join(wrong)}",
                runbook=RUNBOOK,
            )

    def _harden_inside(self, master: Master, recipe: Recipe) -> DatabaseInspection:
        with master.open(recipe.placement.database) as conn:
            observed = see_inside(conn, recipe.placement)
            _require_own(recipe, observed)
            with conn.transaction():
                _execute(conn, (statement for line in recipe.inside for statement in line(observed)))
            observed = see_inside(conn, recipe.placement)
            _require_own(recipe, observed)
            return observed

    def bind(self, at: ClusterEndpoint, placement: Placement) -> None:
        with self._sessions.master(at).open(placement.database) as conn:
            recipe, observed = _recipe(conn, placement), see_inside(conn, placement)
            _require_own(recipe, observed)
            if observed.identity:
                conn.execute(
                    "UPDATE platform.identity SET tenant = %s WHERE placement = %s AND tenant IS NULL",
                    (placement.tenant_id, placement.id),
                )
                observed = see_inside(conn, placement)  # somebody else may have been quicker
            _require_own(recipe, observed)
            if _one(observed.identity) is None:
                raise NeedsHuman(
                    f"{placement.database}: the database does not say whose it is, expected placement "
                    f"{placement.id}",
                    runbook="cross-tenant-marker",
                )

    # --------------------------------------------------------------------------------------- logins

    def set_password(self, at: ClusterEndpoint, credential: Credential) -> None:
        """A login that `close_logins` closed stays closed: its connection limit is still 0."""
        require_app_login(credential.username)
        with self._sessions.master(at).open() as conn:
            verifier = scram_verifier(conn, credential.username, credential.password)
            conn.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(credential.username), sql.Literal(verifier)
                )
            )

    def open_logins(self, at: ClusterEndpoint, placement: Placement, *, connection_limit: int) -> None:
        require_limit(connection_limit)
        with self._sessions.master(at).open() as conn, conn.transaction():
            for name in placement.app_roles:
                conn.execute(
                    sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT {}").format(
                        sql.Identifier(name), sql.Literal(connection_limit)
                    )
                )

    def close_logins(self, at: ClusterEndpoint, placement: Placement) -> None:
        """Returns once the last session has ended; Retryable if one is left after 10 s. Nothing to
        close is success."""
        with self._sessions.master(at).open() as conn:
            with conn.transaction():
                for name in sorted(see_server(conn, placement).roles.keys() & set(placement.app_roles)):
                    conn.execute(
                        sql.SQL("ALTER ROLE {} NOLOGIN CONNECTION LIMIT 0").format(sql.Identifier(name))
                    )
            _end_sessions(conn, placement.app_roles)

    def seal(self, at: ClusterEndpoint) -> None:
        """By name, since the roles are as many as the cluster had tenants. Returns once the last session
        has ended."""
        with self._sessions.master(at).open() as conn, conn.transaction():
            names = [
                name
                for (name,) in conn.execute("SELECT rolname::text FROM pg_roles WHERE rolcanlogin")
                if is_tenant_login(name)
            ]
            for name in names:
                conn.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(name)))
        if names:
            with self._sessions.master(at).open() as conn:
                _end_sessions(conn, names)

    def retire_login(self, at: ClusterEndpoint, username: str) -> None:
        """Sessions are ended whatever they do after 10 s; Retryable if one is left 10 s later."""
        require_app_login(username)
        with self._sessions.master(at).open() as conn:
            if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", (username,)).fetchone() is None:
                return
            conn.execute(sql.SQL("ALTER ROLE {} PASSWORD NULL").format(sql.Identifier(username)))
            _await_sessions(conn, username)
            _end_sessions(conn, [username])

    def drop(self, at: ClusterEndpoint, placement: Placement) -> None:
        """Its identity is read first: a database that says it is another's is not dropped. What could keep
        the master out, or the database from being dropped, is repaired before. Doors are shut before sessions
        are ended, so that none comes back; FORCE ends what slipped in all the same."""
        master = self._sessions.master(at)
        with master.open() as conn, conn.transaction():
            recipe, observed = _recipe(conn, placement), see_server(conn, placement)
            for line in (recipe.master_owns_database, recipe.plain_database):
                _execute(conn, line(observed))
        try:
            with master.open(placement.database) as conn:
                _require_own(_recipe(conn, placement), see_inside(conn, placement))
        except NoSuchDatabase:
            pass  # dropped by an earlier try, or never made
        except DatabaseClosed:
            pass  # half made, or half dropped: nobody was ever let in, or will be
        name = sql.Identifier(placement.database)
        roles = (*placement.app_roles, placement.migrator_role, placement.owner_role)
        with master.open() as conn:
            observed = see_server(conn, placement)
            if observed.database_owner is not None:
                conn.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
                _end_sessions(conn, roles)
                conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            with conn.transaction():
                for role in roles:
                    conn.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))

    def names(self, at: ClusterEndpoint) -> list[str]:
        with self._sessions.master(at).open() as conn:
            rows = conn.execute(
                "SELECT datname::text FROM pg_database WHERE datname <> ALL(%s) ORDER BY 1",
                (list(NOT_OURS),),
            )
            return [name for (name,) in rows]

    def clients(self, at: ClusterEndpoint) -> list[Clients]:
        with self._sessions.master(at).open() as conn:
            rows = conn.execute(
                "SELECT coalesce(datname, '')::text, usename::text, application_name, count(*)::int,"
                " max(extract(epoch FROM clock_timestamp() - backend_start))::float8 AS oldest,"
                " min(extract(epoch FROM clock_timestamp() - query_start))::float8"
                " FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')"
                " AND pid <> pg_backend_pid() AND usename <> 'rdsadmin' GROUP BY 1, 2, 3"
                " ORDER BY oldest DESC LIMIT 50"
            )
            return [Clients(*row) for row in rows]

    def admits(self, at: ClusterEndpoint, credential: Credential) -> bool:
        try:
            with self._sessions.login(at, credential):
                return True
        except (LoginRefused, DatabaseClosed):
            return False

    def accepts(self, at: ClusterEndpoint, credential: Credential) -> bool:
        try:
            with self._sessions.login(at, credential):
                return True
        except LoginRefused:
            return False

    # --------------------------------------------------------------------------- schema and proof

    def migrate(
        self, at: ClusterEndpoint, placement: Placement, migrations: Path, *, up_to: str | None = None
    ) -> str:
        """Raises Retryable (a lock not had in time, unreachable), NeedsHuman("tenant-migration")
        naming the file, its line where the server tells, SQLSTATE and message."""
        files = tenant_migrations.load(migrations, up_to=up_to)
        with self._sessions.migrator(at, placement, statement_timeout=self._migration_timeout) as conn:
            tenant_migrations.apply(conn, files)
        return files[-1].number

    def bring_to(
        self, at: ClusterEndpoint, placement: Placement, release: Release, bounds: Bounds
    ) -> list[FileRun]:
        return self._bring(Door(self._sessions, at, placement, placement.database, bounds), release)

    def _bring(self, door: Door, release: Release) -> list[FileRun]:
        return migrator(release.adapter).apply(door, release, self._projects)

    def rehearse(
        self,
        at: ClusterEndpoint,
        placement: Placement,
        release: Release,
        bounds: Bounds,
    ) -> Rehearsed:
        master = self._sessions.master(at)
        with rehearsal.copy(master, placement) as name:
            with master.open(name) as conn:
                row = conn.execute("SELECT pg_database_size(current_database())").fetchone()
            assert row is not None  # noqa: S101 - a SELECT without FROM
            began = time.monotonic()
            with rehearsal.LockWatch(master, name) as watch:
                files = self._bring(Door(self._sessions, at, placement, name, bounds), release)
            return Rehearsed(time.monotonic() - began, row[0], files, watch.held)

    def shape(self, at: ClusterEndpoint, placement: Placement) -> list[str]:
        with self._sessions.master(at).open(placement.database) as conn:
            return shape.lines(conn, APP_SCHEMA)

    def prove(self, at: ClusterEndpoint, credential: Credential, placement: Placement) -> None:
        """With what the login begins with by itself, as the application's sessions do. The write is a
        DELETE that finds nothing, and is rolled back."""
        with self._sessions.login(at, credential, bounded=False) as conn:
            row = conn.execute(
                "SELECT current_database()::text, "
                "coalesce(pg_catalog.has_schema_privilege(to_regnamespace(%s), 'USAGE'), false), "
                "current_setting('transaction_read_only')::boolean, "
                "ARRAY(SELECT ARRAY[placement, tenant] FROM platform.identity LIMIT 2)",
                (APP_SCHEMA,),
            ).fetchone()
            assert row is not None  # noqa: S101 - a SELECT without FROM
            database, schema_is_there, read_only, rows = row
            identity = _one([Identity(*each) for each in rows])
            if database != placement.database or identity is None or not identity.fits(placement):
                got = identity or "which says nothing of itself"
                raise NeedsHuman(
                    f"{credential.username} reached {database}, {got}; "
                    f"expected {placement.database}, {_expected(placement)}",
                    runbook="cross-tenant-marker",
                )
            if not schema_is_there:
                raise NeedsHuman(
                    f"{credential.username} has no schema {APP_SCHEMA} in {database}", runbook=RUNBOOK
                )
            if read_only:
                raise NeedsHuman(
                    f"{credential.username} may only read in {database}: its transactions begin read-only, "
                    "expected default_transaction_read_only = off",
                    runbook=RUNBOOK,
                )
            self._prove_a_write(conn)

    def _prove_a_write(self, conn: psycopg.Connection) -> None:
        """Where there is a table yet that rows may be deleted from."""
        with conn.transaction(force_rollback=True):
            conn.execute(
                "SELECT pg_catalog.set_config('lock_timeout', %s, true),"
                " pg_catalog.set_config('statement_timeout', %s, true)",
                (f"{PROOF_LOCK_SECONDS}s", f"{PROOF_SECONDS}s"),
            )
            table = conn.execute(
                "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class AS c"
                " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = %s AND c.relkind IN ('r', 'p')"
                " AND pg_catalog.has_table_privilege(c.oid, 'DELETE') ORDER BY c.oid LIMIT 1",
                (APP_SCHEMA,),
            ).fetchone()
            if table is not None:
                conn.execute(sql.SQL("DELETE FROM {} WHERE false").format(sql.Identifier(*table)))


def _recipe(conn: psycopg.Connection, placement: Placement, connection_limit: int | None = None) -> Recipe:
    return Recipe(
        placement,
        connection_limit=connection_limit,
        grant_options=conn.info.server_version >= GRANT_OPTIONS_SINCE,
    )


def _execute(conn: psycopg.Connection, statements: Iterable[sql.Composed]) -> None:
    for statement in statements:
        conn.execute(statement)


def _require_own(recipe: Recipe, inside: DatabaseInspection) -> None:
    if recipe.is_anothers(inside):
        raise NeedsHuman(
            f"{recipe.placement.database}: the database says that it is "
            f"{' and '.join(map(str, inside.identity))}, expected {_expected(recipe.placement)}",
            runbook="cross-tenant-marker",
        )


def _expected(placement: Placement) -> str:
    return str(Identity(placement.id, placement.tenant_id))


def _one(found: Sequence[Identity]) -> Identity | None:
    return found[0] if len(found) == 1 else None


def _require_version(conn: psycopg.Connection) -> None:
    if conn.info.server_version < OLDEST_SERVER_VERSION:
        raise NeedsHuman(
            f"{conn.info.host}: expected PostgreSQL 15 or later, got {conn.info.server_version // 10000}",
            runbook=RUNBOOK,
        )


def _open_to_public(conn: psycopg.Connection) -> list[str]:
    rows = conn.execute(
        "SELECT datname::text FROM pg_database WHERE datname = ANY(%s) AND EXISTS (SELECT "
        "FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0) ORDER BY 1",
        (list(HARDENED_DATABASES),),
    )
    return [name for (name,) in rows]


def _logins_open(server: ServerInspection, placement: Placement) -> bool:
    """True if either gets in, so that closing never stops half way."""
    return server.accepts_connections and any(
        server.roles[name].open and bool({(name, "CONNECT"), (PUBLIC, "CONNECT")} & server.database_acl)
        for name in placement.app_roles
        if name in server.roles
    )


def _await_sessions(conn: psycopg.Connection, username: str) -> None:
    """Until the login has no session left that is at work, or its time is up."""
    deadline = time.monotonic() + SESSIONS_FINISH_WITHIN_SECONDS
    while time.monotonic() < deadline:
        busy = conn.execute(
            "SELECT FROM pg_stat_activity WHERE usename = %s AND (state IS DISTINCT FROM 'idle'"
            " OR state_change > clock_timestamp() - make_interval(secs => %s)) LIMIT 1",
            (username, SESSIONS_IDLE_SECONDS),
        ).fetchone()
        if busy is None:
            return
        time.sleep(SESSIONS_POLL_SECONDS)


def _end_sessions(conn: psycopg.Connection, usernames: Sequence[str]) -> None:
    """Repeated, because a login that was let in a moment before the roles closed shows up late."""
    deadline = time.monotonic() + SESSIONS_END_WITHIN_SECONDS
    while True:
        left = conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY(%s)",
            (list(usernames),),
        ).fetchall()
        if not left:
            return
        if time.monotonic() > deadline:
            raise Retryable(f"{usernames[0]}: {len(left)} sessions did not end when asked to")
        time.sleep(SESSIONS_POLL_SECONDS)
