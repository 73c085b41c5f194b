"""What somebody changed by hand in a tenant's database is found and, where a machine may, put right."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from controlplane.domain.errors import NeedsHuman
from controlplane.domain.placement import Identity, Placement
from controlplane.workers.providers.ports import Credential
from tests.harness.databases import (
    MASTER_PASSWORD,
    Server,
    new_placement,
    server,
)

__all__ = ["server"]  # a fixture


LOCKED_OUT = [
    "ALTER DATABASE {database} SET local_preload_libraries = 'nothing_of_this_name'",
    "ALTER DATABASE {database} SET role = {owner}",
    "ALTER DATABASE {database} SET default_transaction_read_only = on",
    "ALTER DATABASE {database} IS_TEMPLATE true",
    "ALTER DATABASE {database} CONNECTION LIMIT 0",
]
"""What a migration could do to its database while the tenant's owner owned it."""

UNGUARDED = (
    "ALTER TABLE platform.identity DISABLE TRIGGER USER; {};"
    " ALTER TABLE platform.identity ENABLE ALWAYS TRIGGER identity_is_kept;"
    " ALTER TABLE platform.identity ENABLE ALWAYS TRIGGER identity_is_not_truncated"
)
"""What only the table's owner may do, to get at the row."""

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
    UNGUARDED.format("DELETE FROM platform.identity"),
    "DROP TABLE platform.identity",
    "ALTER TABLE platform.identity DISABLE TRIGGER identity_is_kept",
    "ALTER TABLE platform.identity ENABLE TRIGGER identity_is_kept",
    "DROP TRIGGER identity_is_kept ON platform.identity",
    "DROP TRIGGER identity_is_not_truncated ON platform.identity",
    "DROP FUNCTION platform.keep_identity() CASCADE",
    "CREATE OR REPLACE FUNCTION platform.keep_identity() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN NEW; END'",
    "GRANT EXECUTE ON FUNCTION platform.keep_identity() TO PUBLIC",
    "DROP INDEX platform.identity_is_one_row",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app REVOKE SELECT ON TABLES FROM {app_a}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
    "ALTER ROLE {owner} LOGIN",
    "ALTER ROLE {migrator} INHERIT",
    "ALTER ROLE {migrator} LOGIN",
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
    drift(server, placement, "ALTER DATABASE {database} OWNER TO {owner}")
    with server.migrator(placement) as conn:
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


@pytest.mark.parametrize(
    ("change", "other"),
    [("placement = 'p-aaaaaaaaaaaa'", "p-aaaaaaaaaaaa"), ("tenant = 't-aaaaaaaaaaaa'", "t-aaaaaaaaaaaa")],
)
def test_a_database_that_says_it_is_anothers_stops_everything(
    server: Server, change: str, other: str
) -> None:
    placement = new_placement()
    databases = server.provider()
    databases.create(server.at, placement, connection_limit=4)
    databases.bind(server.at, placement)
    drift(server, placement, UNGUARDED.format(f"UPDATE platform.identity SET {change}"))
    assert not databases.observe(server.at, placement).hardened
    for act in (
        lambda: databases.create(server.at, placement, connection_limit=4),
        lambda: databases.bind(server.at, placement),
        lambda: databases.drop(server.at, placement),
    ):
        with pytest.raises(NeedsHuman, match=other) as caught:
            act()
        assert caught.value.runbook == "cross-tenant-marker"
    assert databases.observe(server.at, placement).exists


IDENTITY_IS_KEPT = [
    "UPDATE platform.identity SET placement = 'p-aaaaaaaaaaaa'",
    "UPDATE platform.identity SET tenant = 't-aaaaaaaaaaaa', placement = 'p-aaaaaaaaaaaa'",
    "DELETE FROM platform.identity",
    "TRUNCATE platform.identity",
    "INSERT INTO platform.identity VALUES ('p-bbbbbbbbbbbb', 't-bbbbbbbbbbbb')",
]
"""Not by the master either, nor by a superuser."""


@pytest.mark.parametrize("replicating", [False, True])
def test_the_identity_is_one_row_that_changes_once(server: Server, replicating: bool) -> None:
    databases, placement = server.provider(), new_placement()
    databases.create(server.at, placement, connection_limit=4)
    bound = [
        f"UPDATE platform.identity SET tenant = {value}" for value in ("'t-aaaaaaaaaaaa'", "NULL", "tenant")
    ]
    with server.superuser(placement.database) as conn:
        if replicating:
            conn.execute("SET session_replication_role = replica")
        for bind, refused in ((False, IDENTITY_IS_KEPT), (True, [*IDENTITY_IS_KEPT, *bound])):
            if bind:
                databases.bind(server.at, placement)
            for statement in refused:
                with pytest.raises((psycopg.errors.RestrictViolation, psycopg.errors.UniqueViolation)):
                    conn.execute(statement)
    found = databases.observe(server.at, placement)
    assert found.hardened
    assert found.identity == Identity(placement.id, placement.tenant_id)


def test_a_database_that_lost_its_identity_is_not_bound(server: Server, drifting: Placement) -> None:
    databases = server.provider()
    drift(server, drifting, UNGUARDED.format("DELETE FROM platform.identity"))
    with pytest.raises(NeedsHuman, match="does not say whose it is") as caught:
        databases.bind(server.at, drifting)
    assert caught.value.runbook == "cross-tenant-marker"
    databases.create(server.at, drifting, connection_limit=4)
    assert databases.observe(server.at, drifting).identity == Identity(drifting.id, None)


def test_a_second_row_is_nobodys_identity(server: Server) -> None:
    databases, placement = server.provider(), new_placement()
    databases.create(server.at, placement, connection_limit=4)
    drift(
        server,
        placement,
        f"DROP INDEX platform.identity_is_one_row; INSERT INTO platform.identity VALUES ('{placement.id}')",
    )
    found = databases.observe(server.at, placement)
    assert (found.hardened, found.identity) == (False, None)
    with pytest.raises(NeedsHuman, match=" and placement"):
        databases.drop(server.at, placement)


def test_of_two_bindings_at_once_one_holds(server: Server) -> None:
    mine = new_placement()
    server.provider().create(server.at, mine, connection_limit=4)
    wanted = [mine] + [replace(mine, tenant_id=new_placement().tenant_id) for _ in range(5)]

    def bind(placement: Placement) -> str | None:
        try:
            server.provider().bind(server.at, placement)
        except NeedsHuman:
            return None
        return placement.tenant_id

    with ThreadPoolExecutor(6) as pool:
        held = [tenant for tenant in pool.map(bind, wanted) if tenant is not None]
    found = server.provider().observe(server.at, mine).identity
    assert found is not None
    assert held == [found.tenant]
