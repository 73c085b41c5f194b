"""What `ports.Databases` promises, of the real provider on a real server and of the fake alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from controlplane.domain.errors import Invalid, NeedsHuman, Retryable
from controlplane.domain.placement import Identity, Placement
from controlplane.localcloud.fakes.databases import FakeDatabases
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.ports import (
    ClusterEndpoint,
    Credential,
    DatabaseDescription,
    Databases,
)
from tests.harness.databases import (
    MASTER_ARN,
    NOTES,
    MemorySecrets,
    Server,
    credential_of,
    new_placement,
    run_server,
    write_migrations,
)


@dataclass
class Subject:
    databases: Databases
    at: ClusterEndpoint
    unreachable: ClusterEndpoint
    alter_own: Callable[..., None]
    """(the login's credential, password="…" or a setting=…): what it may change about its own role."""
    may_log_in: Callable[[str], bool]
    """(role)"""
    leave_open: Callable[[Placement], None]
    """As a worker does that dies while it lets the migrator in."""

    def ready(self, placement: Placement, tmp_path: Path) -> Credential:
        """A tenant's database as the engine leaves it: the application's credential."""
        self.databases.create(self.at, placement, connection_limit=5)
        app = credential_of(placement, placement.app_roles[0])
        self.databases.set_password(self.at, app)
        self.databases.migrate(self.at, placement, write_migrations(tmp_path / "m", _0001_notes=NOTES))
        return app


@pytest.fixture(scope="module")
def real_server() -> Iterator[Server]:
    with run_server() as server:
        yield server


def real_subject(request: pytest.FixtureRequest) -> Subject:
    server: Server = request.getfixturevalue("real_server")
    return subject_of(server)


def subject_of(server: Server) -> Subject:
    def alter_own(credential: Credential, *, password: str | None = None, **settings: str) -> None:
        with server.login(credential) as conn:
            if password is not None:
                conn.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(sql.Literal(password)))
            for name, value in settings.items():
                conn.execute(
                    sql.SQL("ALTER ROLE CURRENT_USER SET {} = {}").format(
                        sql.Identifier(name), sql.Literal(value)
                    )
                )

    def may_log_in(role: str) -> bool:
        with server.superuser() as conn:
            found = conn.execute(
                "SELECT rolcanlogin, rolpassword IS NOT NULL FROM pg_authid WHERE rolname = %s", (role,)
            ).fetchone()
        assert found in ((True, True), (False, False)), f"{role} is half open: {found}"
        return found == (True, True)

    def leave_open(placement: Placement) -> None:
        with server.superuser() as conn:
            conn.execute(f"ALTER ROLE {placement.migrator_role} LOGIN PASSWORD 'known to a dead worker'")

    unreachable = dataclasses.replace(server.at, port=1)
    return Subject(server.provider(), server.at, unreachable, alter_own, may_log_in, leave_open)


def fake_subject(request: pytest.FixtureRequest) -> Subject:
    world = World()
    request.addfinalizer(world.close)
    at = ClusterEndpoint("c-1.example.internal", 5432, MASTER_ARN, "cluster-RESOURCE")
    databases = FakeDatabases(world, MemorySecrets({MASTER_ARN: Credential("platform", "x")}))
    unreachable = dataclasses.replace(at, port=1)
    databases.down(unreachable)

    def alter_own(credential: Credential, **changes: str) -> None:
        databases.alter_own(at, credential, **changes)

    return Subject(
        databases,
        at,
        unreachable,
        alter_own,
        lambda role: databases.may_log_in(at, role),
        lambda placement: databases.leave_open(at, placement),
    )


@pytest.fixture(params=[real_subject, fake_subject], ids=["real", "fake"])
def subject(request: pytest.FixtureRequest) -> Subject:
    build: Callable[[pytest.FixtureRequest], Subject] = request.param
    return build(request)


def whole(
    placement: Placement, *, tenant: str | None, logins_open: bool = True, release: str | None = None
) -> DatabaseDescription:
    return DatabaseDescription(
        exists=True,
        hardened=True,
        logins_open=logins_open,
        release=release,
        roles=True,
        identity=Identity(placement.id, tenant),
    )


def test_nothing_is_there_at_first(subject: Subject) -> None:
    assert subject.databases.observe(subject.at, new_placement()) == DatabaseDescription(
        exists=False, hardened=False, logins_open=False, release=None
    )


def test_cluster_is_hardened_once_and_again(subject: Subject, tmp_path: Path) -> None:
    app = subject.ready(new_placement(), tmp_path)
    subject.databases.harden_cluster(subject.at)
    subject.databases.harden_cluster(subject.at)
    assert not subject.databases.admits(subject.at, dataclasses.replace(app, dbname="postgres"))


def test_create_makes_it_hardened_and_repeats_harmlessly(subject: Subject) -> None:
    placement = new_placement()
    for _ in range(2):
        subject.databases.create(subject.at, placement, connection_limit=5)
        assert subject.databases.observe(subject.at, placement) == whole(placement, tenant=None)


def test_a_placement_is_bound_to_one_tenant_for_ever(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    subject.databases.prove(subject.at, app, placement)
    for _ in range(2):
        subject.databases.bind(subject.at, placement)
        found = subject.databases.observe(subject.at, placement)
        assert found.hardened
        assert found.identity == Identity(placement.id, placement.tenant_id)
    subject.databases.create(subject.at, placement, connection_limit=5)
    subject.databases.prove(subject.at, app, placement)
    assert subject.databases.observe(subject.at, placement).identity == found.identity


def test_a_bound_placement_is_nobody_elses(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    subject.databases.bind(subject.at, placement)
    other = dataclasses.replace(placement, tenant_id=new_placement().tenant_id)
    assert not subject.databases.observe(subject.at, other).hardened
    calls: list[Callable[[], object]] = [
        lambda: subject.databases.bind(subject.at, other),
        lambda: subject.databases.create(subject.at, other, connection_limit=5),
        lambda: subject.databases.prove(subject.at, app, other),
        lambda: subject.databases.drop(subject.at, other),
    ]
    for call in calls:
        with pytest.raises(NeedsHuman, match=placement.tenant_id) as caught:
            call()
        assert caught.value.runbook == "cross-tenant-marker"
    assert subject.databases.observe(subject.at, placement).identity == Identity(
        placement.id, placement.tenant_id
    )


def test_what_is_not_there_is_not_bound(subject: Subject) -> None:
    with pytest.raises(NeedsHuman, match="does not exist"):
        subject.databases.bind(subject.at, new_placement())


def test_nobody_gets_in_before_a_password_is_set(subject: Subject) -> None:
    placement = new_placement()
    subject.databases.create(subject.at, placement, connection_limit=5)
    assert not subject.may_log_in(placement.migrator_role)
    for name in placement.app_roles:
        credential = credential_of(placement, name)
        assert not subject.databases.accepts(subject.at, credential)
        subject.databases.set_password(subject.at, credential)
        assert subject.databases.accepts(subject.at, credential)
        assert not subject.databases.accepts(subject.at, dataclasses.replace(credential, password="wrong"))


def test_a_new_password_ends_the_old_one(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    old = subject.ready(placement, tmp_path)
    new = credential_of(placement, old.username)
    subject.databases.set_password(subject.at, new)
    assert subject.databases.accepts(subject.at, new)
    assert not subject.databases.accepts(subject.at, old)


@pytest.mark.parametrize(
    "username", ["platform", "postgres", "p_abc_app_a", "p_aaaaaaaaaaaa_owner", "p_aaaaaaaaaaaa_migrator", ""]
)
def test_only_application_logins_get_passwords(subject: Subject, username: str) -> None:
    with pytest.raises(Invalid, match="username"):
        subject.databases.set_password(subject.at, Credential(username, "x"))


def test_password_for_a_login_that_is_not_there(subject: Subject) -> None:
    placement = new_placement()
    with pytest.raises(NeedsHuman, match="42704") as caught:
        subject.databases.set_password(subject.at, credential_of(placement, placement.app_roles[0]))
    assert caught.value.runbook == "tenant-database"


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_connection_limit_is_checked(subject: Subject, limit: int) -> None:
    with pytest.raises(Invalid, match="connection_limit"):
        subject.databases.create(subject.at, new_placement(), connection_limit=limit)
    with pytest.raises(Invalid, match="connection_limit"):
        subject.databases.open_logins(subject.at, new_placement(), connection_limit=limit)


def test_closed_and_opened_again(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    for _ in range(2):
        subject.databases.close_logins(subject.at, placement)
    assert subject.databases.observe(subject.at, placement) == whole(
        placement, tenant=None, logins_open=False, release="0001"
    )
    assert not subject.databases.accepts(subject.at, app)
    for _ in range(2):
        subject.databases.open_logins(subject.at, placement, connection_limit=5)
    assert subject.databases.observe(subject.at, placement).logins_open
    subject.databases.prove(subject.at, app, placement)


def test_create_and_a_new_password_do_not_open_what_was_closed(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    subject.databases.close_logins(subject.at, placement)
    subject.databases.create(subject.at, placement, connection_limit=5)
    assert not subject.databases.observe(subject.at, placement).logins_open
    subject.databases.set_password(subject.at, app)
    assert not subject.databases.observe(subject.at, placement).logins_open
    with pytest.raises(Retryable, match="too many connections"):
        subject.databases.accepts(subject.at, app)


def test_closing_what_is_not_there_is_done(subject: Subject) -> None:
    subject.databases.close_logins(subject.at, new_placement())


def test_a_dropped_database_takes_its_roles_and_sessions_with_it(subject: Subject, tmp_path: Path) -> None:
    placement, other = new_placement(), new_placement()
    app = subject.ready(placement, tmp_path)
    subject.ready(other, tmp_path)
    for _ in range(2):
        subject.databases.drop(subject.at, placement)
        assert subject.databases.observe(subject.at, placement) == DatabaseDescription(
            exists=False, hardened=False, logins_open=False, release=None, roles=False
        )
    assert placement.database not in subject.databases.names(subject.at)
    assert not subject.databases.accepts(subject.at, app)
    assert subject.databases.observe(subject.at, other).hardened
    subject.ready(placement, tmp_path)
    assert subject.databases.observe(subject.at, placement).hardened


def test_opening_what_is_not_there_is_a_persons_case(subject: Subject) -> None:
    with pytest.raises(NeedsHuman, match="42704"):
        subject.databases.open_logins(subject.at, new_placement(), connection_limit=5)


def test_a_retired_login_gets_in_no_more_and_the_other_one_does(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    old = subject.ready(placement, tmp_path)
    new = credential_of(placement, placement.app_roles[1])
    subject.databases.set_password(subject.at, new)
    for _ in range(2):
        subject.databases.retire_login(subject.at, old.username)
    assert not subject.databases.accepts(subject.at, old)
    assert subject.databases.accepts(subject.at, new)
    assert subject.databases.observe(subject.at, placement) == whole(placement, tenant=None, release="0001")
    subject.databases.set_password(subject.at, old)
    assert subject.databases.accepts(subject.at, old)


def test_retiring_what_is_not_there_is_done(subject: Subject) -> None:
    subject.databases.retire_login(subject.at, new_placement().app_roles[0])
    with pytest.raises(Invalid, match="username"):
        subject.databases.retire_login(subject.at, "platform")


def test_migrations_are_applied_once_and_observed(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    subject.ready(placement, tmp_path)
    folder = write_migrations(tmp_path / "m", _0002_stars="ALTER TABLE notes ADD stars int")
    assert subject.databases.observe(subject.at, placement).release == "0001"
    for _ in range(2):
        assert subject.databases.migrate(subject.at, placement, folder) == "0002"
        assert subject.databases.observe(subject.at, placement).release == "0002"


def test_a_changed_past_stops_the_tenant(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    subject.ready(placement, tmp_path)
    folder = write_migrations(tmp_path / "m", _0001_notes=NOTES + " ", _0002_more="SELECT 1")
    with pytest.raises(NeedsHuman, match=r"0001_notes\.sql: was changed") as caught:
        subject.databases.migrate(subject.at, placement, folder)
    assert caught.value.runbook == "tenant-migration"
    assert subject.databases.observe(subject.at, placement).release == "0001"


def test_a_database_ahead_of_its_migrations_stops_the_tenant(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    subject.ready(placement, tmp_path)
    subject.databases.migrate(subject.at, placement, write_migrations(tmp_path / "m", _0002_more="SELECT 1"))
    (tmp_path / "m" / "0002_more.sql").unlink()
    with pytest.raises(NeedsHuman, match=r"0002_more\.sql: was applied"):
        subject.databases.migrate(subject.at, placement, tmp_path / "m")


def test_the_migrator_can_not_log_in_but_while_it_is_let_in(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    subject.ready(placement, tmp_path)
    assert not subject.may_log_in(placement.migrator_role)
    bad = write_migrations(tmp_path / "m", _0001_notes=NOTES + " ")
    with pytest.raises(NeedsHuman, match="was changed"):
        subject.databases.migrate(subject.at, placement, bad)
    assert not subject.may_log_in(placement.migrator_role), "whatever becomes of the run"


def test_a_migrator_that_a_dead_worker_left_open_is_found_and_closed(
    subject: Subject, tmp_path: Path
) -> None:
    placement = new_placement()
    subject.ready(placement, tmp_path)
    subject.leave_open(placement)
    assert subject.may_log_in(placement.migrator_role)
    assert not subject.databases.observe(subject.at, placement).hardened
    subject.databases.create(subject.at, placement, connection_limit=5)
    assert not subject.may_log_in(placement.migrator_role)
    assert subject.databases.observe(subject.at, placement).hardened


def test_the_next_run_closes_behind_itself_what_a_dead_worker_left_open(
    subject: Subject, tmp_path: Path
) -> None:
    placement = new_placement()
    subject.ready(placement, tmp_path)
    subject.leave_open(placement)
    subject.databases.migrate(subject.at, placement, tmp_path / "m")
    assert not subject.may_log_in(placement.migrator_role)
    assert subject.databases.observe(subject.at, placement).hardened


def test_proof(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    subject.databases.prove(subject.at, app, placement)


def test_proof_finds_another_placement(subject: Subject, tmp_path: Path) -> None:
    placement, other = new_placement(), new_placement()
    app = subject.ready(placement, tmp_path)
    with pytest.raises(NeedsHuman, match=placement.id) as caught:
        subject.databases.prove(subject.at, app, other)
    assert caught.value.runbook == "cross-tenant-marker"


def test_proof_with_a_refused_login_is_tried_again(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    with pytest.raises(Retryable):
        subject.databases.prove(subject.at, dataclasses.replace(app, password="wrong"), placement)


@pytest.mark.parametrize(
    "settings", [{"default_transaction_read_only": "on"}, {"statement_timeout": "1"}, {"work_mem": "1GB"}]
)
def test_what_a_login_set_for_itself_is_found_and_taken_back(
    subject: Subject, tmp_path: Path, settings: dict[str, str]
) -> None:
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    subject.alter_own(app, **settings)
    assert not subject.databases.observe(subject.at, placement).hardened
    subject.databases.create(subject.at, placement, connection_limit=5)
    assert subject.databases.observe(subject.at, placement).hardened
    subject.databases.prove(subject.at, app, placement)


def test_proof_finds_a_login_that_may_only_read(subject: Subject, tmp_path: Path) -> None:
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    subject.alter_own(app, default_transaction_read_only="on")
    with pytest.raises(NeedsHuman, match="may only read") as caught:
        subject.databases.prove(subject.at, app, placement)
    assert caught.value.runbook == "tenant-database"


def test_a_password_that_a_login_changed_itself_is_set_again(subject: Subject, tmp_path: Path) -> None:
    """No catalogue that a master may read shows it: a login with the secret's password does."""
    placement = new_placement()
    app = subject.ready(placement, tmp_path)
    subject.alter_own(app, password="known-to-somebody")
    assert subject.databases.accepts(subject.at, dataclasses.replace(app, password="known-to-somebody"))
    with pytest.raises(Retryable):
        subject.databases.prove(subject.at, app, placement)
    subject.databases.set_password(subject.at, app)
    subject.databases.prove(subject.at, app, placement)
    assert not subject.databases.accepts(subject.at, dataclasses.replace(app, password="known-to-somebody"))


def test_a_login_reaches_no_other_database(subject: Subject, tmp_path: Path) -> None:
    mine, other = new_placement(), new_placement()
    app = subject.ready(mine, tmp_path)
    subject.ready(other, tmp_path)
    astray = dataclasses.replace(app, dbname=other.database)
    with pytest.raises(Retryable, match="permission denied for database"):
        subject.databases.prove(subject.at, astray, other)
    with pytest.raises(NeedsHuman, match="does not exist"):
        subject.databases.accepts(subject.at, dataclasses.replace(app, dbname="t_nowhere_1"))


def test_names_and_who_is_let_in(subject: Subject, tmp_path: Path) -> None:
    mine, other = new_placement(), new_placement()
    app = subject.ready(mine, tmp_path)
    subject.ready(other, tmp_path)
    subject.databases.harden_cluster(subject.at)
    assert {mine.database, other.database, "postgres"} <= set(subject.databases.names(subject.at))
    assert "template1" not in subject.databases.names(subject.at)
    assert subject.databases.admits(subject.at, app)
    for dbname in (other.database, "postgres", "template1"):
        assert not subject.databases.admits(subject.at, dataclasses.replace(app, dbname=dbname))
    assert not subject.databases.admits(subject.at, dataclasses.replace(app, password="wrong"))
    with pytest.raises(NeedsHuman, match="does not exist"):
        subject.databases.admits(subject.at, dataclasses.replace(app, dbname="t_nowhere_1"))


def test_a_cluster_that_cannot_be_reached_is_tried_again(subject: Subject, tmp_path: Path) -> None:
    databases, at, placement = subject.databases, subject.unreachable, new_placement()
    credential = credential_of(placement, placement.app_roles[0])
    migrations = write_migrations(tmp_path / "m", _0001_notes=NOTES)
    calls: list[Callable[[], object]] = [
        lambda: databases.harden_cluster(at),
        lambda: databases.observe(at, placement),
        lambda: databases.create(at, placement, connection_limit=5),
        lambda: databases.bind(at, placement),
        lambda: databases.set_password(at, credential),
        lambda: databases.open_logins(at, placement, connection_limit=5),
        lambda: databases.close_logins(at, placement),
        lambda: databases.retire_login(at, credential.username),
        lambda: databases.migrate(at, placement, migrations),
        lambda: databases.accepts(at, credential),
        lambda: databases.admits(at, credential),
        lambda: databases.names(at),
        lambda: databases.prove(at, credential, placement),
    ]
    for call in calls:
        with pytest.raises(Retryable):
            call()


def test_a_master_secret_without_a_value_is_tried_again(subject: Subject) -> None:
    at = dataclasses.replace(subject.at, master_secret_arn="arn:of:nothing")
    with pytest.raises(Retryable, match="no value yet"):
        subject.databases.observe(at, new_placement())


def test_a_superuser_as_master_will_do_as_well(tmp_path: Path) -> None:
    with run_server(superuser_master=True) as server:
        subject = subject_of(server)
        placement = new_placement()
        app = subject.ready(placement, tmp_path)
        inside_postgres = dataclasses.replace(app, dbname="postgres")
        assert subject.databases.admits(server.at, inside_postgres)
        subject.databases.harden_cluster(server.at)
        assert not subject.databases.admits(server.at, inside_postgres)
        subject.databases.prove(server.at, app, placement)
        subject.databases.close_logins(server.at, placement)
        subject.databases.bind(server.at, placement)
        assert subject.databases.observe(server.at, placement) == whole(
            placement, tenant=placement.tenant_id, logins_open=False, release="0001"
        )


def test_a_sealed_cluster_lets_in_the_migrator_alone(subject: Subject, tmp_path: Path) -> None:
    """Also one that was let in at the moment of which the cluster is a copy."""
    mine, anothers = new_placement(), new_placement()
    app = subject.ready(mine, tmp_path)
    (tmp_path / "other").mkdir()
    other = subject.ready(anothers, tmp_path / "other")
    assert all(subject.databases.accepts(subject.at, login) for login in (app, other))
    subject.leave_open(anothers)
    subject.databases.seal(subject.at)
    subject.databases.seal(subject.at)
    assert not any(subject.databases.admits(subject.at, login) for login in (app, other))
    assert not subject.may_log_in(anothers.migrator_role)
    assert subject.databases.observe(subject.at, mine).release == "0001"
    folder = write_migrations(tmp_path / "m", _0002_stars="ALTER TABLE notes ADD stars int")
    assert subject.databases.migrate(subject.at, mine, folder) == "0002"
    assert not any(subject.databases.admits(subject.at, login) for login in (app, other))


def test_sealing_ends_the_sessions_that_are_there(real_server: Server, tmp_path: Path) -> None:
    subject = subject_of(real_server)
    app = subject.ready(new_placement(), tmp_path)
    with real_server.login(app) as conn:
        subject.databases.seal(subject.at)
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
