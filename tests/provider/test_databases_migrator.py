"""The migrator's way in: a password that nobody keeps, for as long as somebody logs in with it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from controlplane.domain.errors import Pending, Retryable
from controlplane.domain.placement import Placement
from controlplane.workers.providers.ports import Credential
from tests.harness.databases import NOTES, Server, new_placement, server, write_migrations
from tests.provider.test_databases_kills import Fuse, KilledError, quiet_rollbacks

__all__ = ["server"]  # a fixture


@pytest.fixture
def placement(server: Server) -> Placement:
    made = new_placement()
    server.provider().create(server.at, made, connection_limit=4)
    return made


def gets_in(server: Server, credential: Credential) -> bool:
    return server.provider().accepts(server.at, credential)


def hardened(server: Server, placement: Placement) -> bool:
    return server.provider().observe(server.at, placement).hardened


def test_the_server_is_told_a_verifier_and_a_time_on_its_own_clock(
    server: Server, placement: Placement
) -> None:
    with (
        server.sessions().let_in(server.at, placement, seconds=600) as credential,
        server.superuser() as conn,
    ):
        row = conn.execute(
            "SELECT rolvaliduntil > clock_timestamp() + interval '9 minutes',"
            " rolvaliduntil <= clock_timestamp() + interval '10 minutes' FROM pg_roles WHERE rolname = %s",
            (placement.migrator_role,),
        ).fetchone()
    assert row == (True, True)
    assert f'ALTER ROLE "{placement.migrator_role}" LOGIN PASSWORD \'SCRAM-SHA-256$' in server.log
    assert credential.password not in server.log
    assert credential.password not in repr(credential)


def test_what_libpq_alone_logs_in_with_is_hashed_once(server: Server, placement: Placement) -> None:
    """Where the server can be asked for it; for other drivers as often as they are used to."""
    with server.superuser() as conn:
        rounds = "1:" if conn.info.server_version >= 160000 else "4096:"
        for by_libpq, expected in ((True, rounds), (False, "4096:")):
            with server.sessions().let_in(server.at, placement, seconds=60, by_libpq=by_libpq) as login:
                row = conn.execute(
                    "SELECT starts_with(rolpassword, %s) FROM pg_authid WHERE rolname = %s",
                    (f"SCRAM-SHA-256${expected}", placement.migrator_role),
                ).fetchone()
                assert gets_in(server, login)
            assert row == (True,)


def test_each_time_it_is_another_password(server: Server, placement: Placement) -> None:
    seen = []
    for _ in range(2):
        with server.sessions().let_in(server.at, placement, seconds=60) as credential:
            assert gets_in(server, credential)
            seen.append(credential)
        assert not any(gets_in(server, each) for each in seen)
    assert seen[0].password != seen[1].password


def test_a_run_logs_in_as_often_as_it_likes_and_keeps_its_sessions(
    server: Server, placement: Placement
) -> None:
    with server.sessions().let_in(server.at, placement, seconds=60) as credential:
        assert all(gets_in(server, credential) for _ in range(5))
        conn = psycopg.connect(
            host=server.at.host,
            port=server.at.port,
            user=credential.username,
            password=credential.password,
            dbname=credential.dbname,
        )
    with conn:
        assert not gets_in(server, credential)
        assert conn.execute("SELECT current_user::text").fetchone() == (placement.owner_role,)


def test_its_time_ends_logins_and_no_session(server: Server, placement: Placement) -> None:
    """As where the worker is gone: nobody is there to say NOLOGIN."""
    with (
        server.sessions().let_in(server.at, placement, seconds=60) as credential,
        server.login(credential) as on,
    ):
        with server.superuser() as conn:
            conn.execute(f"ALTER ROLE {placement.migrator_role} VALID UNTIL 'yesterday'")
        assert not gets_in(server, credential)
        assert on.execute("SELECT 1").fetchone() == (1,)


def test_who_is_being_let_in_is_no_drift_and_is_thrown_out_by_nobody(
    server: Server, placement: Placement
) -> None:
    with server.sessions().let_in(server.at, placement, seconds=60) as credential:
        assert hardened(server, placement)
        with pytest.raises(Pending, match="another run"):
            server.sessions(lock_timeout=0.1).connect_migrator(server.at, placement)
        with pytest.raises(Pending, match="another run"):
            server.provider(lock_timeout=0.1).create(server.at, placement, connection_limit=4)
        assert gets_in(server, credential)
    server.migrator(placement).close()
    assert hardened(server, placement)


def test_runs_at_once_all_get_in(server: Server, placement: Placement, tmp_path: Path) -> None:
    """An export, a rehearsal or a clone's reading has no lock of its tenant's."""
    folder = write_migrations(tmp_path, _0001_notes=NOTES)

    def run(number: int) -> None:
        if number % 4 == 0:
            server.provider().create(server.at, placement, connection_limit=4)
        elif number % 2:
            server.provider().migrate(server.at, placement, folder)
        else:
            server.migrator(placement).close()

    with ThreadPoolExecutor(3) as pool:  # as many as its connection limit lets be there
        list(pool.map(run, range(24)))
    assert hardened(server, placement)


def test_a_run_whose_end_the_server_did_not_hear_says_so_and_is_closed_later(
    server: Server, placement: Placement
) -> None:
    with pytest.raises(Retryable), server.sessions().let_in(server.at, placement, seconds=60) as credential:
        end_masters_session(server)
    assert gets_in(server, credential)
    assert not hardened(server, placement)
    server.provider().create(server.at, placement, connection_limit=4)
    assert not gets_in(server, credential)
    assert hardened(server, placement)


def test_what_failed_inside_is_told_before_that(server: Server, placement: Placement) -> None:
    def fail() -> None:
        with server.sessions().let_in(server.at, placement, seconds=60):
            end_masters_session(server)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()


def end_masters_session(server: Server) -> None:
    with server.superuser() as conn:
        (ended,) = conn.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE usename = 'platform' AND datname = 'postgres'"
        ).fetchone() or (0,)
    assert ended == 1


def test_killed_after_any_statement_it_is_found_and_closed(
    server: Server, placement: Placement, caplog: pytest.LogCaptureFixture
) -> None:
    left = 0
    with quiet_rollbacks(caplog):
        for statements in range(1, 40):
            fuse = Fuse(statements)
            try:
                sessions = server.sessions(connection_class=fuse.connection_class())
                sessions.connect_migrator(server.at, placement).close()
                break
            except KilledError:
                with server.superuser() as conn:
                    (open_,) = conn.execute(
                        "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (placement.migrator_role,)
                    ).fetchone() or (None,)
                left += open_
                assert hardened(server, placement) is not open_, f"after a kill at {statements}"
                server.provider().create(server.at, placement, connection_limit=4)
                assert hardened(server, placement)
    assert statements > 4
    assert left, "no kill fell between letting in and closing"


def test_a_migrator_can_not_keep_itself_in(server: Server, placement: Placement) -> None:
    """A migration is anybody's SQL. Its own password it may change, which is good for nothing."""
    role = placement.migrator_role
    with server.migrator(placement) as conn:
        conn.execute("SET ROLE NONE")
        for statement in (f"ALTER ROLE {role} LOGIN", f"ALTER ROLE {role} VALID UNTIL 'infinity'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)
        conn.execute(f"ALTER ROLE {role} PASSWORD 'of-a-migration'")
    assert not gets_in(server, Credential(role, "of-a-migration", dbname=placement.database))
