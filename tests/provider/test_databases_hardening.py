"""What a tenant's logins are denied, and that nothing (a kill, a race, drift) leaves it undone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable
from controlplane.domain.placement import Placement
from controlplane.domain.release import Adapter, Release, ReleaseFile, digest_of
from controlplane.workers.providers.databases.errors import statement_error
from controlplane.workers.providers.databases.sessions import Sessions
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import Bounds, Credential
from tests.harness.databases import (
    MASTER_ARN,
    MASTER_PASSWORD,
    NOTES,
    MemorySecrets,
    Server,
    credential_of,
    new_placement,
    server,
    write_migrations,
)

__all__ = ["server"]  # a fixture


@dataclass
class Tenant:
    placement: Placement
    migrator: Credential
    app: Credential


@pytest.fixture(scope="module")
def tenants(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tenant, Tenant]:
    databases = server.provider()
    databases.harden_cluster(server.at)
    migrations = write_migrations(tmp_path_factory.mktemp("migrations"), _0001_notes=NOTES)
    made = []
    for _ in range(2):
        placement = new_placement()
        databases.create(server.at, placement, connection_limit=4)
        tenant = Tenant(
            placement,
            credential_of(placement, placement.migrator_role),
            credential_of(placement, placement.app_roles[0]),
        )
        for credential in (tenant.migrator, tenant.app):
            databases.set_password(server.at, credential)
        databases.migrate(server.at, tenant.migrator, migrations)
        made.append(tenant)
    return made[0], made[1]


# ------------------------------------------------------------------------------------------- denials


def test_the_application_reads_and_writes_its_rows(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    with server.login(tenants[0].app) as conn:
        conn.execute("INSERT INTO notes (body) VALUES ('a'), ('b')")
        conn.execute("UPDATE notes SET body = 'c' WHERE body = 'b'")
        conn.execute("DELETE FROM notes WHERE body = 'a'")
        assert conn.execute("SELECT body FROM notes").fetchall() == [("c",)]
        assert conn.execute("SELECT tenant_id FROM platform.identity").fetchone() == (
            tenants[0].placement.tenant_id,
        )
    with server.login(replace(tenants[1].app)) as conn:
        assert conn.execute("SELECT count(*) FROM notes").fetchone() == (0,)


@pytest.mark.parametrize("who", ["app", "migrator"])
def test_no_login_enters_another_database(server: Server, tenants: tuple[Tenant, Tenant], who: str) -> None:
    mine, other = tenants
    for dbname in (other.placement.database, "postgres", "template1", "template0"):
        with pytest.raises(psycopg.OperationalError, match=r"permission denied for database|not currently"):  # noqa: SIM117
            with server.login(getattr(mine, who), dbname):
                pass


APP_MAY_NOT = [
    "CREATE TABLE t (x int)",
    "CREATE TABLE app.t (x int)",
    "CREATE TEMPORARY TABLE t (x int)",
    "CREATE SCHEMA s",
    "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE notes ADD x int",
    "DROP TABLE notes",
    "TRUNCATE notes",
    "INSERT INTO platform.identity VALUES ('t-aaaaaaaaaaaa')",
    "UPDATE platform.identity SET tenant_id = 't-aaaaaaaaaaaa'",
    "DELETE FROM platform.identity",
    "SELECT * FROM platform.schema_migration",
    "CREATE TABLE platform.t (x int)",
    "CREATE ROLE x",
    "CREATE DATABASE x",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_read_file('/etc/passwd')",
    "COPY notes TO PROGRAM 'cat'",
    "ALTER DATABASE {database} ALLOW_CONNECTIONS false",
    "ALTER ROLE {app_b} PASSWORD 'x'",
    "SET ROLE {owner}",
    "SET ROLE {migrator}",
    "SET SESSION AUTHORIZATION {owner}",
    "GRANT SELECT ON notes TO PUBLIC",
    "GRANT CONNECT ON DATABASE {database} TO PUBLIC",
]


@pytest.mark.parametrize("statement", APP_MAY_NOT)
def test_the_application_may_not(server: Server, tenants: tuple[Tenant, Tenant], statement: str) -> None:
    place = tenants[0].placement
    names = {"database": place.database, "owner": place.owner_role, "migrator": place.migrator_role}
    text = statement.format(app_b=place.app_roles[1], **names)
    with server.login(tenants[0].app) as conn:
        try:
            conn.execute(text)
        except psycopg.errors.InsufficientPrivilege:
            return
        # GRANT without the right to is a warning; what counts is that nothing was granted.
        assert text.startswith("GRANT"), f"{text} was let through"
    assert server.provider().observe(server.at, place).hardened


MIGRATOR_MAY_NOT = [
    "UPDATE platform.identity SET tenant_id = 't-aaaaaaaaaaaa'",
    "DROP TABLE platform.identity",
    "DROP SCHEMA platform CASCADE",
    "ALTER SCHEMA platform RENAME TO p",
    "CREATE TABLE platform.t (x int)",
    "UPDATE platform.schema_migration SET sha256 = 'x'",
    "DELETE FROM platform.schema_migration",
    "CREATE RULE r AS ON INSERT TO platform.schema_migration DO INSTEAD NOTHING",
    "CREATE ROLE x",
    "SET ROLE platform",
    "ALTER DATABASE {database} SET local_preload_libraries = 'x'",
    "ALTER DATABASE {database} SET role = {owner}",
    "ALTER DATABASE {database} IS_TEMPLATE true",
    "ALTER DATABASE {database} CONNECTION LIMIT 0",
    "ALTER DATABASE {database} OWNER TO {owner}",
    "DROP DATABASE {database}",
]


@pytest.mark.parametrize("statement", MIGRATOR_MAY_NOT)
def test_the_migrator_may_not(server: Server, tenants: tuple[Tenant, Tenant], statement: str) -> None:
    with server.login(tenants[0].migrator) as conn:
        place = tenants[0].placement
        assert conn.execute("SELECT current_user::text").fetchone() == (place.owner_role,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(statement.format(database=place.database, owner=place.owner_role))


def test_the_migrator_makes_what_migrations_are_made_of(
    server: Server, tenants: tuple[Tenant, Tenant]
) -> None:
    """Though the database is not its owner's."""
    with server.login(tenants[0].migrator) as conn:
        conn.execute("CREATE SCHEMA more")
        conn.execute("CREATE TABLE more.t (id int)")
        conn.execute("CREATE TEMPORARY TABLE scratch (id int)")
        conn.execute("CREATE PUBLICATION notes_out FOR TABLE notes")
        conn.execute("DROP PUBLICATION notes_out")
        conn.execute("DROP SCHEMA more CASCADE")
        trusted = conn.execute(
            "SELECT name FROM pg_available_extension_versions WHERE trusted AND NOT installed ORDER BY 1"
        ).fetchall()
        for (name,) in trusted[:1]:
            conn.execute(f"CREATE EXTENSION {name}")
            conn.execute(f"DROP EXTENSION {name}")
    assert server.provider().observe(server.at, tenants[0].placement).hardened


def test_what_an_application_login_begins_with(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    with server.login(tenants[0].app) as conn:
        found = conn.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE source ~ 'user' AND name <> 'role'"
        ).fetchall()
    assert dict(found) == {
        "search_path": "app, pg_temp",
        "idle_in_transaction_session_timeout": "5min",
        "statement_timeout": "15min",
    }


def test_functions_of_a_migration_are_not_for_everybody(
    server: Server, tenants: tuple[Tenant, Tenant]
) -> None:
    with server.login(tenants[0].migrator) as conn:
        conn.execute("CREATE FUNCTION app.inner() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
    with server.login(tenants[0].app) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT app.inner()")


def test_connection_limits_hold(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    with (
        server.login(tenants[1].migrator),
        server.login(tenants[1].migrator),
        server.login(tenants[1].migrator),
        pytest.raises(psycopg.OperationalError, match="too many connections for role"),
        server.login(tenants[1].migrator),
    ):
        pass


def test_identifiers_fit(server: Server) -> None:
    placement = new_placement(number=999_999)
    names = [placement.database, placement.owner_role, placement.migrator_role, *placement.app_roles]
    assert all(len(name.encode()) <= 63 for name in names)
    server.provider().create(server.at, placement, connection_limit=4)
    with server.superuser() as conn:
        found = conn.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (names,)).fetchall()
    assert sorted(name for (name,) in found) == sorted(names[1:])


# ---------------------------------------------------------------------------------------- rehearsals


def test_no_neighbour_is_ever_let_into_a_rehearsals_copy(
    server: Server, tenants: tuple[Tenant, Tenant]
) -> None:
    """Asked behind every statement: a neighbour needs one moment, and then stays inside."""
    mine, neighbour = tenants
    copy, open_to = f"rehearsal_{mine.placement.database}", []

    class Watched(psycopg.Connection[Any]):
        def wait(self, *args: Any, **options: Any) -> Any:
            done = super().wait(*args, **options)
            with server.superuser() as conn:
                open_to.extend(
                    conn.execute(
                        "SELECT r.rolname::text FROM pg_roles AS r, pg_database AS d WHERE r.rolcanlogin"
                        " AND NOT r.rolsuper AND d.datname = %s AND d.datallowconn"
                        " AND has_database_privilege(r.oid, d.oid, 'CONNECT')",
                        (copy,),
                    ).fetchall()
                )
            return done

    stars = b"ALTER TABLE notes ADD stars int"
    files = (
        ReleaseFile("0001_notes.sql", digest_of(NOTES.encode()), NOTES.encode()),
        ReleaseFile("0002_stars.sql", digest_of(stars), stars),
    )
    release = Release("0002", Adapter.SQL, files)
    done = server.provider(connection_class=Watched).rehearse(
        server.at, mine.migrator, mine.placement, release, Bounds(lock_timeout=5, statement_timeout=60)
    )
    assert [run.name for run in done.files] == ["0002_stars.sql"]
    who = {name for (name,) in open_to}
    assert mine.migrator.username in who, "the copy was never seen open"
    assert who == {mine.migrator.username, "platform"}
    assert neighbour.app.username not in who


# ----------------------------------------------------------------------------------- kills and races


class KilledError(BaseException):
    """Stands for the end of the process: nothing in the product catches it."""


class Fuse:
    """Cuts the connection after so many statements (BEGIN, COMMIT and all)."""

    def __init__(self, statements: int) -> None:
        self.left = statements

    def connection_class(self) -> type[psycopg.Connection[Any]]:
        fuse = self

        class Fused(psycopg.Connection[Any]):
            def wait(self, *args: Any, **options: Any) -> Any:
                if fuse.left <= 0:
                    self.pgconn.finish()
                    raise KilledError
                fuse.left -= 1
                return super().wait(*args, **options)

        return Fused


def kill_after(server: Server, placement: Placement, statements: int) -> bool:
    """Create until the fuse blows; False where it was long enough."""
    fuse = Fuse(statements)
    try:
        server.provider(connection_class=fuse.connection_class()).create(
            server.at, placement, connection_limit=4
        )
    except KilledError:
        return True
    return False


@contextmanager
def quiet_rollbacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("ERROR", logger="psycopg"):
        yield


def test_killed_after_any_statement_it_converges(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Every one on the newest server; on the oldest, whose statements are the same, every third."""
    databases = server.provider()
    with server.superuser() as conn:
        step = 1 if conn.info.server_version >= 160000 else 3
    with quiet_rollbacks(caplog):
        for statements in range(1, 200, step):
            placement = new_placement()
            killed = kill_after(server, placement, statements)
            if not killed:
                break
            seen = databases.observe(server.at, placement)
            with server.superuser() as conn:
                doors = conn.execute(
                    "SELECT bool_or(has_database_privilege(r.rolname, d.oid, 'CONNECT')) "
                    "FROM pg_roles AS r, pg_database AS d WHERE r.rolname = ANY(%s) AND d.datname = %s "
                    "AND d.datallowconn",
                    ([placement.migrator_role, *placement.app_roles], placement.database),
                ).fetchone()
            assert not (doors and doors[0]) or seen.hardened, f"open before it was hardened, at {statements}"
            databases.create(server.at, placement, connection_limit=4)
            assert databases.observe(server.at, placement).hardened, f"after a kill at {statements}"
    assert statements > 40, "create sends more than 40 statements"


def test_killed_again_and_again_it_converges(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    placement = new_placement()
    with quiet_rollbacks(caplog):
        tries = next(n for n in range(5, 200) if not kill_after(server, placement, n))
    assert tries > 5
    assert server.provider().observe(server.at, placement).hardened


def test_several_at_once_make_one(server: Server) -> None:
    placement = new_placement()

    def create(_: int) -> None:
        server.provider().create(server.at, placement, connection_limit=4)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))
    assert server.provider().observe(server.at, placement).hardened


def test_different_tenants_at_once(server: Server) -> None:
    placements = [new_placement() for _ in range(6)]

    def create(placement: Placement) -> bool:
        databases = server.provider()
        databases.create(server.at, placement, connection_limit=4)
        return databases.observe(server.at, placement).hardened

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(create, placements))


# --------------------------------------------------------------------------------------------- drift

LOCKED_OUT = [
    "ALTER DATABASE {database} SET local_preload_libraries = 'nothing_of_this_name'",
    "ALTER DATABASE {database} SET role = {owner}",
    "ALTER DATABASE {database} SET default_transaction_read_only = on",
    "ALTER DATABASE {database} IS_TEMPLATE true",
    "ALTER DATABASE {database} CONNECTION LIMIT 0",
]
"""What a migration could do to its database while the tenant's owner owned it."""

REPAIRED = [
    "GRANT CONNECT ON DATABASE {database} TO PUBLIC",
    "GRANT TEMPORARY ON DATABASE {database} TO {app_a}",
    "REVOKE CONNECT ON DATABASE {database} FROM {app_b}",
    "CREATE SCHEMA public AUTHORIZATION {owner}",
    "GRANT CREATE ON SCHEMA app TO {app_a}",
    "GRANT USAGE ON SCHEMA app TO PUBLIC",
    "REVOKE USAGE ON SCHEMA platform FROM {app_a}",
    "GRANT INSERT ON platform.identity TO {app_a}",
    "REVOKE SELECT ON platform.identity FROM {app_b}",
    "GRANT UPDATE ON platform.schema_migration TO {owner}",
    "DROP TABLE platform.schema_migration",
    "DELETE FROM platform.identity",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app REVOKE SELECT ON TABLES FROM {app_a}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
    "ALTER ROLE {owner} LOGIN",
    "ALTER ROLE {migrator} INHERIT",
    "ALTER ROLE {migrator} CONNECTION LIMIT -1",
    "ALTER ROLE {app_a} CONNECTION LIMIT -1",
    "ALTER ROLE {app_a} INHERIT",
    "ALTER ROLE {app_a} NOLOGIN",
    "ALTER ROLE {migrator} IN DATABASE {database} RESET role",
    "ALTER ROLE {app_a} IN DATABASE {database} SET search_path = public",
    "ALTER DATABASE {database} ALLOW_CONNECTIONS false",
    "REVOKE {owner} FROM {migrator}",
    "ALTER DATABASE {database} OWNER TO {owner}",
    "REVOKE CREATE ON DATABASE {database} FROM {owner}",
    "GRANT CONNECT ON DATABASE {database} TO {owner}",
    "ALTER ROLE {app_a} SET default_transaction_read_only = on",
    "ALTER ROLE {app_b} IN DATABASE {database} SET statement_timeout = 1",
    "ALTER ROLE {app_a} IN DATABASE {database} SET session_replication_role = replica",
    "ALTER ROLE {app_a} IN DATABASE {database} RESET idle_in_transaction_session_timeout",
    "ALTER ROLE {migrator} SET search_path = public",
    "ALTER ROLE {migrator} IN DATABASE {database} SET default_transaction_read_only = on",
    "ALTER ROLE {owner} SET work_mem = '1GB'",
    *LOCKED_OUT,
]


def drift(server: Server, placement: Placement, statement: str) -> None:
    app_a, app_b = placement.app_roles
    # A membership can be taken back only by whoever gave it.
    as_master = statement.startswith(("GRANT {owner}", "REVOKE {owner}"))
    dbname = "postgres" if "ALLOW_CONN" in statement else placement.database
    master = Credential("platform", MASTER_PASSWORD, dbname=dbname)
    with server.login(master) if as_master else server.superuser(dbname) as conn:
        conn.execute(
            statement.format(
                database=placement.database,
                owner=placement.owner_role,
                migrator=placement.migrator_role,
                app_a=app_a,
                app_b=app_b,
            )
        )


@pytest.fixture(scope="module")
def drifting(server: Server) -> Placement:
    placement = new_placement()
    server.provider().create(server.at, placement, connection_limit=4)
    return placement


@pytest.mark.parametrize("statement", REPAIRED)
def test_drift_is_seen_and_repaired(server: Server, drifting: Placement, statement: str) -> None:
    databases = server.provider()
    drift(server, drifting, statement)
    assert not databases.observe(server.at, drifting).hardened
    databases.create(server.at, drifting, connection_limit=4)
    assert databases.observe(server.at, drifting).hardened


@pytest.mark.parametrize("statement", LOCKED_OUT)
def test_no_migration_locks_the_master_out(server: Server, statement: str) -> None:
    """In a database as earlier releases made it: it is listed, seen, and dropped."""
    databases, placement = server.provider(), new_placement()
    databases.create(server.at, placement, connection_limit=4)
    migrator = credential_of(placement, placement.migrator_role)
    databases.set_password(server.at, migrator)
    drift(server, placement, "ALTER DATABASE {database} OWNER TO {owner}")
    with server.login(migrator) as conn:
        conn.execute(statement.format(database=placement.database, owner=placement.owner_role))
    assert placement.database in databases.names(server.at)
    seen = databases.observe(server.at, placement)
    assert (seen.exists, seen.hardened) == (True, False)
    databases.drop(server.at, placement)
    assert placement.database not in databases.names(server.at)


def test_a_move_may_turn_its_migrator(server: Server, drifting: Placement) -> None:
    """Neither drift nor undone by a repair: a worker that copies rows relies on it."""
    databases = server.provider()
    setting = "ALTER ROLE {migrator} IN DATABASE {database} SET session_replication_role = replica"
    drift(server, drifting, setting)
    assert databases.observe(server.at, drifting).hardened
    drift(server, drifting, "ALTER ROLE {migrator} IN DATABASE {database} SET work_mem = '1GB'")
    assert not databases.observe(server.at, drifting).hardened
    databases.create(server.at, drifting, connection_limit=4)
    assert databases.observe(server.at, drifting).hardened
    with server.superuser() as conn:
        (config,) = conn.execute(
            "SELECT setconfig FROM pg_db_role_setting WHERE setrole = %s::regrole", (drifting.migrator_role,)
        ).fetchone() or ([],)
    assert sorted(config) == [
        f"role={drifting.owner_role}",
        "search_path=app, pg_temp",
        "session_replication_role=replica",
    ]
    drift(server, drifting, setting.replace("SET", "RESET").partition(" = ")[0])


NOT_REPAIRED = [
    ("ALTER ROLE {app_a} SUPERUSER", "ALTER ROLE {app_a} NOSUPERUSER", "has superuser"),
    ("ALTER ROLE {owner} BYPASSRLS", "ALTER ROLE {owner} NOBYPASSRLS", "has bypassrls"),
    ("GRANT {owner} TO {app_b}", "REVOKE {owner} FROM {app_b}", "is a member of"),
    ("GRANT pg_read_all_data TO {app_a}", "REVOKE pg_read_all_data FROM {app_a}", "is a member of"),
    (
        "GRANT CONNECT ON DATABASE {database} TO rds_superuser",
        "REVOKE CONNECT ON DATABASE {database} FROM rds_superuser",
        "rds_superuser has rights",
    ),
    (
        "CREATE SCHEMA public AUTHORIZATION {owner} CREATE TABLE t (x int)",
        "DROP SCHEMA public CASCADE",
        "2BP01",
    ),
]


@pytest.mark.parametrize(("statement", "undo", "message"), NOT_REPAIRED)
def test_what_somebody_must_explain_is_left_and_named(
    server: Server, drifting: Placement, statement: str, undo: str, message: str
) -> None:
    databases = server.provider()
    drift(server, drifting, statement)
    assert not databases.observe(server.at, drifting).hardened
    with pytest.raises(NeedsHuman, match=message) as caught:
        databases.create(server.at, drifting, connection_limit=4)
    assert caught.value.runbook == "tenant-database"
    drift(server, drifting, undo)
    assert databases.observe(server.at, drifting).hardened


def test_another_tenants_marker_stops_everything(server: Server) -> None:
    placement = new_placement()
    databases = server.provider()
    databases.create(server.at, placement, connection_limit=4)
    drift(server, placement, "UPDATE platform.identity SET tenant_id = 't-aaaaaaaaaaaa'")
    assert not databases.observe(server.at, placement).hardened
    with pytest.raises(NeedsHuman, match="t-aaaaaaaaaaaa") as caught:
        databases.create(server.at, placement, connection_limit=4)
    assert caught.value.runbook == "cross-tenant-marker"
    with pytest.raises(NeedsHuman, match="t-aaaaaaaaaaaa") as caught:
        databases.drop(server.at, placement)
    assert caught.value.runbook == "cross-tenant-marker"
    assert databases.observe(server.at, placement).exists


def test_the_marker_is_one_row(server: Server, drifting: Placement) -> None:
    with server.superuser(drifting.database) as conn, pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("INSERT INTO platform.identity VALUES ('t-bbbbbbbbbbbb')")


# -------------------------------------------------------------------------------------------- logins


def test_closing_ends_sessions(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    databases, tenant = server.provider(), tenants[0]
    with (
        server.login(tenant.app) as first,
        server.login(tenant.app) as second,
        server.login(tenants[1].app) as other,
    ):
        databases.close_logins(server.at, tenant.placement)
        for conn in (first, second):
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        assert other.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):  # noqa: SIM117
        with server.login(tenant.app):
            pass
    databases.open_logins(server.at, tenant.placement, connection_limit=4)
    with server.login(tenant.app) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_the_server_never_sees_a_password(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    log = server.log
    assert "SCRAM-SHA-256$" in log, "statements are logged, the verifier among them"
    assert "canary" not in log


# --------------------------------------------------------------------------------------- the master


class RotatingSecrets(MemorySecrets):
    """Gives the old password first, as Secrets Manager does in the middle of RDS's rotation."""

    def __init__(self, *answers: str) -> None:
        super().__init__()
        self.answers = list(answers)

    def read(self, name: str) -> Credential:
        assert name == MASTER_ARN
        return Credential("platform", self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


@pytest.mark.parametrize("old", [1, 2])
def test_a_master_password_that_has_just_changed_is_read_again(server: Server, old: int) -> None:
    secrets = RotatingSecrets(*["canary-old"] * old, MASTER_PASSWORD)
    assert not server.provider(secrets).observe(server.at, new_placement()).exists
    assert secrets.answers == [MASTER_PASSWORD]


def test_a_master_password_that_stays_wrong_is_tried_again_and_told_of(server: Server) -> None:
    """For how long RDS's rotation leaves the two apart nobody knows."""
    secrets = RotatingSecrets("canary-wrong")
    databases = server.provider(secrets)
    with pytest.raises(Retryable, match="master's login is refused") as caught:
        databases.observe(server.at, new_placement())
    assert caught.value.runbook == "master-credential"
    assert_no_canary(caught.value)
    secrets.answers = [MASTER_PASSWORD]
    assert not databases.observe(server.at, new_placement()).exists


def test_a_visitor_whom_no_master_may_end_holds_a_drop_up(server: Server) -> None:
    databases, placed = server.provider(), new_placement()
    databases.create(server.at, placed, connection_limit=5)
    with server.superuser(placed.database), pytest.raises(Retryable, match="42501") as caught:
        databases.drop(server.at, placed)
    assert caught.value.runbook == "tenant-database"
    databases.drop(server.at, placed)
    assert not databases.observe(server.at, placed).exists


@pytest.mark.parametrize(
    "text", ["permission denied to terminate process", "must be a superuser to terminate superuser process"]
)
def test_a_session_that_no_master_may_end_is_waited_for(server: Server, text: str) -> None:
    """The texts of PostgreSQL 16 and later, and of 15."""
    with server.superuser() as conn, pytest.raises(psycopg.Error) as caught:
        conn.execute(
            sql.SQL("DO {}").format(
                sql.Literal(f"BEGIN RAISE insufficient_privilege USING MESSAGE = '{text}'; END")
            )
        )
    error = statement_error(caught.value, "dropping", runbook="page")
    assert type(error) is Retryable
    assert error.runbook == "tenant-database"


def assert_no_canary(error: BaseException | None) -> None:
    while error is not None:
        assert "canary" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"sslmode": "bogus"}, NeedsHuman),
        ({"sslmode": "require"}, NeedsHuman),
        ({"sslmode": "verify-full"}, NeedsHuman),
        ({"connect_timeout": "soon"}, NeedsHuman),
    ],
)
def test_errors_hold_no_password(server: Server, options: dict[str, Any], kind: type) -> None:
    databases = server.provider(**options)
    with pytest.raises(kind) as caught:
        databases.observe(server.at, new_placement())
    assert isinstance(caught.value, ControlPlaneError)
    assert_no_canary(caught.value)


def test_a_cluster_that_cannot_be_hardened_is_a_persons_case(server: Server) -> None:
    databases = server.provider()
    with server.superuser() as conn:
        conn.execute("ALTER DATABASE template1 OWNER TO rdsadmin")
        conn.execute("GRANT CONNECT ON DATABASE template1 TO PUBLIC")
        with pytest.raises(NeedsHuman, match="PUBLIC still has rights on template1"):
            databases.harden_cluster(server.at)
        conn.execute("ALTER DATABASE template1 OWNER TO platform")
    databases.harden_cluster(server.at)  # raises where a right is left


def test_a_held_lock_is_waited_for_and_then_tried_again(server: Server) -> None:
    placement = new_placement()
    with server.superuser() as conn:
        conn.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (placement.database,))
        with pytest.raises(Retryable, match="55P03"):
            server.provider(lock_timeout=0.1).create(server.at, placement, connection_limit=4)


def test_bounds_and_name_of_every_session(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    sessions = Sessions(
        server.secrets,
        EndpointMap(),
        sslmode="disable",
        sslrootcert=None,
        connect_timeout=5,
        statement_timeout=7,
        lock_timeout=3,
    )
    names = "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name"
    for session in (
        sessions.master(server.at).open(),
        sessions.login(server.at, tenants[0].app),
    ):
        with session as conn:
            shown = [conn.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names]
        assert shown == [("7s",), ("3s",), ("7s",), ("controlplane",)]
