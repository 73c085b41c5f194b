"""Tenant migrations: what is refused, and that a file and its record happen together or not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.domain.placement import Placement
from controlplane.domain.release import MigrationFailed
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.databases.migrations import LOCK, load
from tests.harness.databases import (
    NOTES,
    Server,
    new_placement,
    run_server,
    write_migrations,
)

GOOD = "SELECT 1"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no migrations there"),
        (["0002_b.sql"], r"0002_b\.sql: expected the number 0001"),
        (["0001_a.sql", "0003_c.sql"], r"0003_c\.sql: expected the number 0002"),
        (["0001_a.sql", "0001_b.sql"], r"0001_b\.sql: the number 0001 is there twice"),
        (["0000_a.sql"], r"0000_a\.sql: the number 0000 is there twice|expected"),
        (["1_a.sql"], r"1_a\.sql: expected a name like"),
        (["0001-a.sql"], r"0001-a\.sql: expected a name like"),
        (["0001_A.sql"], r"0001_A\.sql: expected a name like"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(NeedsHuman, match=message) as caught:
        load(tmp_path)
    assert caught.value.runbook == "tenant-migration"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"SELECT '\xff'", "expected UTF-8"),
        (b"SELECT 1\0", "no NUL"),
        (b"-- " + b"x" * 1024 * 1024, "at most 1048576 bytes"),
        (b"CREATE TABLE a ();\nCOMMIT;", "leave out its BEGIN"),
        (b"begin work;\nSELECT 1;", "leave out its BEGIN"),
    ],
)
def test_contents_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "0001_a.sql").write_bytes(content)
    with pytest.raises(NeedsHuman, match=rf"0001_a\.sql: .*{message}"):
        load(tmp_path)


def test_other_files_are_no_migrations(tmp_path: Path) -> None:
    write_migrations(tmp_path, _0001_a=GOOD)
    (tmp_path / "README.md").write_text("not SQL")
    assert [(file.number, file.name) for file in load(tmp_path)] == [("0001", "0001_a.sql")]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NeedsHuman, match="nowhere: No such file"):
        load(tmp_path / "nowhere")


def test_a_function_body_is_no_transaction_control(tmp_path: Path) -> None:
    body = "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  RETURN 1;\nEND;\n$$;"
    assert load(write_migrations(tmp_path, _0001_f=body))


# ------------------------------------------------------------------------------------- on a server


@dataclass
class Tenant:
    server: Server
    databases: PostgresDatabases
    placement: Placement

    def migrate(self, folder: Path) -> str:
        return self.databases.migrate(self.server.at, self.placement, folder)

    def tables(self) -> list[tuple[str, str]]:
        with self.server.superuser(self.placement.database) as conn:
            return conn.execute(
                "SELECT tablename::text, tableowner::text FROM pg_tables WHERE schemaname = 'app' ORDER BY 1"
            ).fetchall()

    @property
    def release(self) -> str | None:
        return self.databases.observe(self.server.at, self.placement).release


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server() as running:
        yield running


@pytest.fixture
def tenant(server: Server) -> Tenant:
    databases = server.provider(lock_timeout=0.3)
    placement = new_placement()
    databases.create(server.at, placement, connection_limit=4)
    return Tenant(server, databases, placement)


def test_tables_belong_to_the_owner(tenant: Tenant, tmp_path: Path) -> None:
    assert tenant.migrate(write_migrations(tmp_path, _0001_notes=NOTES)) == "0001"
    assert tenant.tables() == [("notes", tenant.placement.owner_role)]


def test_a_failing_file_leaves_nothing_and_those_before_it_stay(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(
        tmp_path,
        _0001_notes=NOTES,
        _0002_bad="CREATE TABLE more (x int);\nINSERT INTO more VALUES (1), (0);\nSELECT 1/x FROM more;",
        _0003_later="CREATE TABLE later ()",
    )
    with pytest.raises(
        NeedsHuman, match=r"^0002_bad\.sql line 3 “SELECT 1/x FROM more”: 22012 div"
    ) as caught:
        tenant.migrate(folder)
    assert isinstance(caught.value, MigrationFailed)
    assert caught.value.runbook == "tenant-migration"
    assert caught.value.file == "0002_bad.sql"
    assert caught.value.statement == "SELECT 1/x FROM more"
    assert caught.value.error == "22012 division by zero"
    assert [name for name, _ in tenant.tables()] == ["notes"]
    assert tenant.release == "0001"


def test_the_place_is_named_where_the_server_tells(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(
        tmp_path, _0001_bad="SELECT 1;\n\nSELECT nothing\nFROM nowhere WHERE " + "x" * 500
    )
    with pytest.raises(
        NeedsHuman, match=r"0001_bad\.sql line 3 “SELECT nothing FROM nowhere WHERE x+…”: 42P01 relation"
    ) as caught:
        tenant.migrate(folder)
    assert len(str(caught.value)) < 400


def test_rows_of_the_tenant_are_not_quoted(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(
        tmp_path,
        _0001_a="CREATE TABLE a (mail text); INSERT INTO a VALUES ('me@b.c'), ('me@b.c')",
        _0002_bad="ALTER TABLE a ADD UNIQUE (mail)",
    )
    with pytest.raises(NeedsHuman, match="23505") as caught:
        tenant.migrate(folder)
    assert "me@b.c" not in str(caught.value)


def test_what_a_file_sets_ends_with_it(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(
        tmp_path,
        _0001_set=f"SET search_path = pg_catalog; SET ROLE {tenant.placement.owner_role}",
        _0002_notes=NOTES,
    )
    assert tenant.migrate(folder) == "0002"
    assert tenant.tables() == [("notes", tenant.placement.owner_role)]


def test_a_file_that_ends_its_transaction_is_named(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(tmp_path, _0001_sly="CREATE TABLE a (); COMMIT AND CHAIN; SELECT 1")
    with pytest.raises(NeedsHuman, match=r"0001_sly\.sql: line 1 runs in a transaction already"):
        tenant.migrate(folder)
    assert tenant.release is None


def test_a_table_in_use_is_waited_for_and_tried_again(tenant: Tenant, tmp_path: Path) -> None:
    tenant.migrate(write_migrations(tmp_path, _0001_notes=NOTES))
    folder = write_migrations(tmp_path, _0002_more="ALTER TABLE notes ADD stars int")
    with tenant.server.superuser(tenant.placement.database) as conn, conn.transaction():
        conn.execute("LOCK TABLE app.notes")
        with pytest.raises(Retryable, match="55P03"):
            tenant.migrate(folder)
    assert tenant.migrate(folder) == "0002"


def test_another_migrator_is_waited_for(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(tmp_path, _0001_notes=NOTES)
    with tenant.server.superuser(tenant.placement.database) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        with pytest.raises(Retryable, match="55P03"):
            tenant.migrate(folder)
    assert tenant.migrate(folder) == "0001"


def test_two_at_once_apply_each_file_once(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(tmp_path, _0001_notes=NOTES, _0002_pause="SELECT pg_sleep(0.1)")
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(tenant.migrate(folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == ["0002", "0002"]


def test_a_killed_session_leaves_no_half(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(tmp_path, _0001_notes=NOTES + "; SELECT pg_sleep(20)")
    killer = threading.Thread(target=end_session, args=(tenant,))
    killer.start()
    with pytest.raises(Retryable, match="57P01"):
        tenant.migrate(folder)
    killer.join(timeout=10)
    assert tenant.tables() == []
    assert tenant.release is None


def end_session(tenant: Tenant) -> None:
    """As soon as it sleeps."""
    deadline = time.monotonic() + 10
    with tenant.server.superuser() as conn:
        while time.monotonic() < deadline:
            ended = conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename = %s AND wait_event = 'PgSleep'",
                (tenant.placement.migrator_role,),
            ).fetchall()
            if ended:
                return
            time.sleep(0.02)


def test_a_recorded_migration_cannot_be_taken_back(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(tmp_path, _0001_notes=NOTES, _0002_undo="DELETE FROM platform.schema_migration")
    with pytest.raises(NeedsHuman, match=r"0002_undo\.sql line 1 “DELETE .*”: 42501"):
        tenant.migrate(folder)
    with tenant.server.superuser(tenant.placement.database) as conn:
        recorded = conn.execute("SELECT number, name FROM platform.schema_migration").fetchall()
    assert recorded == [("0001", "0001_notes.sql")]


def test_copy_from_stdin_is_refused(tenant: Tenant, tmp_path: Path) -> None:
    folder = write_migrations(tmp_path, _0001_copy=NOTES + ";COPY notes (body) FROM STDIN;")
    with pytest.raises(NeedsHuman, match=r"0001_copy\.sql"):
        tenant.migrate(folder)
    assert tenant.release is None
