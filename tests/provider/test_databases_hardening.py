"""What a tenant's logins are denied, and what nobody learns from the master's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Pending, Retryable
from controlplane.domain.placement import Placement
from controlplane.domain.release import Adapter, Release, ReleaseFile, digest_of
from controlplane.workers.providers.databases.errors import DatabaseClosed, statement_error
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
        databases.bind(server.at, placement)
        tenant = Tenant(placement, credential_of(placement, placement.app_roles[0]))
        databases.set_password(server.at, tenant.app)
        databases.migrate(server.at, placement, migrations)
        made.append(tenant)
    return made[0], made[1]


# ------------------------------------------------------------------------------------------- denials


def test_the_application_reads_and_writes_its_rows(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    with server.login(tenants[0].app) as conn:
        conn.execute("INSERT INTO notes (body) VALUES ('a'), ('b')")
        conn.execute("UPDATE notes SET body = 'c' WHERE body = 'b'")
        conn.execute("DELETE FROM notes WHERE body = 'a'")
        assert conn.execute("SELECT body FROM notes").fetchall() == [("c",)]
        assert conn.execute("SELECT placement, tenant FROM platform.identity").fetchall() == [
            (tenants[0].placement.id, tenants[0].placement.tenant_id)
        ]
    with server.login(replace(tenants[1].app)) as conn:
        assert conn.execute("SELECT count(*) FROM notes").fetchone() == (0,)


def test_no_login_enters_another_database(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    mine, other = tenants
    for dbname in (other.placement.database, "postgres", "template1", "template0"):
        with pytest.raises(psycopg.OperationalError, match=r"permission denied for database|not currently"):  # noqa: SIM117
            with server.login(mine.app, dbname):
                pass
        with pytest.raises(DatabaseClosed):
            server.migrator(mine.placement, dbname)


CHANGE_IDENTITY = [
    "INSERT INTO platform.identity VALUES ('p-aaaaaaaaaaaa', 't-aaaaaaaaaaaa')",
    "UPDATE platform.identity SET tenant = 't-aaaaaaaaaaaa'",
    "UPDATE platform.identity SET placement = 'p-aaaaaaaaaaaa'",
    "DELETE FROM platform.identity",
    "TRUNCATE platform.identity",
    "DROP TABLE platform.identity",
    "DROP TRIGGER identity_is_kept ON platform.identity",
    "DROP FUNCTION platform.keep_identity() CASCADE",
    "CREATE OR REPLACE FUNCTION platform.keep_identity() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
    "ALTER FUNCTION platform.keep_identity() SET search_path = app",
    "DROP INDEX platform.identity_is_one_row",
    "ALTER TABLE platform.identity DISABLE TRIGGER identity_is_kept",
    "ALTER TABLE platform.identity ADD x int",
    "ALTER TABLE platform.identity OWNER TO {owner}",
    "ALTER TABLE platform.identity SET SCHEMA app",
    "CREATE RULE r AS ON UPDATE TO platform.identity DO INSTEAD NOTHING",
    "CREATE TRIGGER t BEFORE INSERT ON app.notes FOR EACH ROW EXECUTE FUNCTION platform.keep_identity()",
    "BEGIN; LOCK TABLE platform.identity IN ACCESS EXCLUSIVE MODE",
]
"""No role of the tenant's owns it or may write it."""

APP_MAY_NOT = [
    "CREATE TABLE t (x int)",
    "CREATE TABLE app.t (x int)",
    "CREATE TEMPORARY TABLE t (x int)",
    "CREATE SCHEMA s",
    "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE notes ADD x int",
    "DROP TABLE notes",
    "TRUNCATE notes",
    *CHANGE_IDENTITY,
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
    "GRANT ALL ON platform.identity TO {app_b}",
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
    *CHANGE_IDENTITY,
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
    with server.migrator(tenants[0].placement) as conn:
        place = tenants[0].placement
        assert conn.execute("SELECT current_user::text").fetchone() == (place.owner_role,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(statement.format(database=place.database, owner=place.owner_role))


def test_the_migrator_grants_nobody_more_of_the_identity(
    server: Server, tenants: tuple[Tenant, Tenant]
) -> None:
    """Without the right to, GRANT warns and does nothing."""
    place = tenants[0].placement
    with server.migrator(place) as conn:
        conn.execute(f"GRANT ALL ON platform.identity TO {place.app_roles[0]}")
    assert server.provider().observe(server.at, place).hardened


def test_the_migrator_makes_what_migrations_are_made_of(
    server: Server, tenants: tuple[Tenant, Tenant]
) -> None:
    """Though the database is not its owner's."""
    with server.migrator(tenants[0].placement) as conn:
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
    with server.migrator(tenants[0].placement) as conn:
        conn.execute("CREATE FUNCTION app.inner() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
    with server.login(tenants[0].app) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT app.inner()")


def test_connection_limits_hold(server: Server, tenants: tuple[Tenant, Tenant]) -> None:
    with (
        server.migrator(tenants[1].placement),
        server.migrator(tenants[1].placement),
        server.migrator(tenants[1].placement),
        pytest.raises(Retryable, match="too many connections for role"),
        server.migrator(tenants[1].placement),
    ):
        pass


def test_identifiers_fit(server: Server) -> None:
    placement = new_placement()
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
        server.at, mine.placement, release, Bounds(lock_timeout=5, statement_timeout=60)
    )
    assert [run.name for run in done.files] == ["0002_stars.sql"]
    who = {name for (name,) in open_to}
    assert mine.placement.migrator_role in who, "the copy was never seen open"
    assert who == {mine.placement.migrator_role, "platform"}
    assert neighbour.app.username not in who


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
        with pytest.raises(Pending, match="another run"):
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
