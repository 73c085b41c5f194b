"""Settings and limits of an application's login: which it may lift, which hold, and what is taken back."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from controlplane.domain.placement import Placement
from controlplane.workers.providers.ports import Credential
from tests.harness.databases import Server, credential_of, new_placement, server

__all__ = ["server"]  # a fixture

EXPECTED = {
    "search_path": "app, pg_temp",
    "idle_in_transaction_session_timeout": "5min",
    "statement_timeout": "15min",
}
LIFTED = {
    "search_path": "pg_temp",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    "default_transaction_read_only": "on",
    "lock_timeout": "1",
    "work_mem": "1GB",
}
"""PostgreSQL lets every login set these, for its session and for its role."""
HELD = {"temp_file_limit": "-1", "session_replication_role": "replica", "log_statement": "none"}
LIMIT = {"temp_file_limit": "10GB"}


@pytest.fixture
def placement(server: Server) -> Placement:
    made = new_placement()
    server.provider().create(server.at, made, connection_limit=4)
    return made


@pytest.fixture
def app(server: Server, placement: Placement) -> Credential:
    login = credential_of(placement, placement.app_roles[0])
    server.provider().set_password(server.at, login)
    return login


@pytest.fixture
def limiting(server: Server) -> Iterator[None]:
    """A server whose master may set `temp_file_limit`."""
    with server.superuser() as conn:
        conn.execute("GRANT SET ON PARAMETER temp_file_limit TO rds_superuser")
    yield
    with server.superuser() as conn:
        conn.execute("REVOKE SET ON PARAMETER temp_file_limit FROM rds_superuser")


def begins_with(server: Server, app: Credential) -> dict[str, str]:
    """The settings that are its role's, as a session of it finds them."""
    with server.login(app) as conn:
        return dict(
            conn.execute(
                "SELECT name, current_setting(name) FROM pg_settings WHERE source ~ 'user'"
            ).fetchall()
        )


def hardened(server: Server, placement: Placement) -> bool:
    return server.provider().observe(server.at, placement).hardened


@pytest.mark.parametrize("name", LIFTED)
def test_what_a_login_may_lift_for_its_session_is_its_own(server: Server, app: Credential, name: str) -> None:
    """So the documentation says; where this fails, there is a limit that holds."""
    with server.login(app) as conn:
        conn.execute("SELECT set_config(%s, %s, false)", (name, LIFTED[name]))
        conn.execute("SELECT 1")
    assert begins_with(server, app) == EXPECTED, "another session begins with what the recipe says"


@pytest.mark.parametrize("scope", ["", "IN DATABASE {database}"])
@pytest.mark.parametrize("name", LIFTED)
def test_what_it_lifts_for_its_role_is_found_and_taken_back(
    server: Server, placement: Placement, app: Credential, name: str, scope: str
) -> None:
    where = scope.format(database=placement.database)
    with server.login(app) as conn:
        conn.execute(f"ALTER ROLE CURRENT_USER {where} SET {name} = '{LIFTED[name]}'")
    assert not hardened(server, placement)
    server.provider().create(server.at, placement, connection_limit=4)
    assert hardened(server, placement)
    assert begins_with(server, app) == EXPECTED


@pytest.mark.parametrize("change", ["IN DATABASE {database} RESET ALL", *(f"RESET {n}" for n in EXPECTED)])
def test_what_it_resets_is_found_and_set_again(
    server: Server, placement: Placement, app: Credential, change: str
) -> None:
    change = change.format(database=placement.database)
    if "IN DATABASE" not in change:
        change = f"IN DATABASE {placement.database} {change}"
    with server.login(app) as conn:
        conn.execute(f"ALTER ROLE CURRENT_USER {change}")
    assert not hardened(server, placement)
    server.provider().create(server.at, placement, connection_limit=4)
    assert hardened(server, placement)
    assert begins_with(server, app) == EXPECTED


@pytest.mark.parametrize("name", HELD)
def test_what_it_can_not_lift(server: Server, app: Credential, name: str) -> None:
    with server.login(app) as conn:
        setting = f"SET {name} = '{HELD[name]}'"
        for statement in (setting, f"ALTER ROLE CURRENT_USER {setting}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)


@pytest.mark.parametrize(
    "change", ["CONNECTION LIMIT 100", "LOGIN", "INHERIT", "VALID UNTIL 'infinity'", "CREATEDB"]
)
def test_an_attribute_of_its_role_is_not_its_own(server: Server, app: Credential, change: str) -> None:
    with server.login(app) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(f"ALTER ROLE CURRENT_USER {change}")


def test_where_the_master_may_temporary_files_are_limited_and_the_limit_holds(
    server: Server, placement: Placement, app: Credential, limiting: None
) -> None:
    databases = server.provider()
    assert not hardened(server, placement), "the limit is missing"
    databases.create(server.at, placement, connection_limit=4)
    assert hardened(server, placement)
    assert begins_with(server, app) == EXPECTED | LIMIT
    with server.login(app) as conn:
        for statement in (
            "SET temp_file_limit = -1",
            "ALTER ROLE CURRENT_USER SET temp_file_limit = -1",
            f"ALTER ROLE CURRENT_USER IN DATABASE {placement.database} RESET temp_file_limit",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)
        conn.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {placement.database} RESET ALL")
    assert begins_with(server, app) == LIMIT, "all is reset but what is not its own"
    databases.create(server.at, placement, connection_limit=4)
    assert begins_with(server, app) == EXPECTED | LIMIT
    assert hardened(server, placement)


def test_the_limit_of_temporary_files_ends_a_statement(
    server: Server, placement: Placement, app: Credential, limiting: None
) -> None:
    """Set low for this: 10 GB are not written here."""
    server.provider().create(server.at, placement, connection_limit=4)
    with server.superuser() as conn:
        conn.execute(
            f"ALTER ROLE {app.username} IN DATABASE {placement.database} SET temp_file_limit = '1MB'"
        )
    assert not hardened(server, placement), "another limit is drift too"
    with server.login(app) as conn:
        conn.execute("SET work_mem = '64kB'")
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
            conn.execute("SELECT n FROM generate_series(1, 500000) n ORDER BY -n LIMIT 1 OFFSET 499999")
    server.provider().create(server.at, placement, connection_limit=4)
    assert begins_with(server, app) == EXPECTED | LIMIT
