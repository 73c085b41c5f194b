"""The examples, each with its tool, on hardened databases: applied once, recorded, bounded, reported
apart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane import migration_project
from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.domain.release import Adapter, MigrationFailed, Release
from controlplane.workers.providers.databases.migrations import LOCK
from controlplane.workers.providers.ports import Bounds, FileRun
from tests.harness.databases import (
    Server,
    new_placement,
    run_server,
)
from tests.processes import is_running

EXAMPLES = Path(__file__).parents[2] / "examples/migrations"
TOOLS = ("alembic", "django", "drizzle")
BOUNDS = Bounds(lock_timeout=2.0, statement_timeout=30.0)


class Tenant:
    """A hardened database; `bring` runs the project in a folder."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.placement = new_placement()
        server.provider().create(server.at, self.placement, connection_limit=4)

    def bring(self, folder: Path, number: str = "0001", *, bounds: Bounds = BOUNDS) -> list[FileRun]:
        return self.server.provider(projects=folder).bring_to(
            self.server.at, self.placement, release_of(folder, number), bounds
        )

    def columns(self) -> list[str]:
        with self.server.superuser(self.placement.database) as conn:
            rows = conn.execute(
                "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass('app.note')"
                " AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            )
            return [name for (name,) in rows]

    @property
    def release(self) -> str | None:
        return self.server.provider().observe(self.server.at, self.placement).release

    @property
    def hardened(self) -> bool:
        return self.server.provider().observe(self.server.at, self.placement).hardened


def release_of(folder: Path, number: str) -> Release:
    project = migration_project.read(folder)
    return Release(number, project.adapter, project.files)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server() as running:
        yield running


@pytest.fixture
def tenant(server: Server) -> Tenant:
    return Tenant(server)


@pytest.fixture(autouse=True)
def _this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-migration-tools")


@pytest.fixture(scope="session")
def drizzle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Drizzle example with its packages, installed once for a run."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on PATH")
    folder = tmp_path_factory.mktemp("drizzle") / "project"
    shutil.copytree(EXAMPLES / "drizzle", folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        pytest.skip(f"npm ci: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture(params=TOOLS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    source = request.getfixturevalue("drizzle") if request.param == "drizzle" else EXAMPLES / request.param
    folder = tmp_path / request.param
    shutil.copytree(source, folder, symlinks=True)
    return folder


def test_the_example_is_applied_once_and_recorded(tenant: Tenant, project: Path) -> None:
    runs = tenant.bring(project)
    assert len(runs) == 1
    assert tenant.columns() == ["id", "body", "stars"]
    assert tenant.release == "0001"
    assert tenant.bring(project) == []
    assert tenant.hardened


def test_numbered_sql_builds_its_index_outside_a_transaction(tenant: Tenant) -> None:
    runs = tenant.bring(EXAMPLES / "sql", "0003")
    assert [run.name for run in runs] == ["0001_notes.sql", "0002_stars.sql", "0003_note_stars_index.sql"]
    assert tenant.columns() == ["id", "body", "stars"]
    assert tenant.release == "0003"


def test_an_index_that_a_crash_left_invalid_is_built_again(tenant: Tenant, tmp_path: Path) -> None:
    tenant.bring(EXAMPLES / "sql", "0003")
    with tenant.server.superuser(tenant.placement.database) as conn:
        conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.note_stars'::regclass")
        conn.execute("DELETE FROM platform.schema_migration WHERE number = '0003'")
    tenant.bring(EXAMPLES / "sql", "0003")
    with tenant.server.superuser(tenant.placement.database) as conn:
        row = conn.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'app.note_stars'::regclass"
        ).fetchone()
    assert row == (True,)


def test_files_of_another_deployment_are_left_alone(tenant: Tenant, project: Path) -> None:
    release = release_of(project, "0001")
    manifest = project / "migrations.toml"
    manifest.write_text(manifest.read_text() + "# changed\n")
    with pytest.raises(Retryable, match="are not those of release 0001"):
        tenant.server.provider(projects=project).bring_to(tenant.server.at, tenant.placement, release, BOUNDS)
    assert tenant.columns() == []


def test_projects_of_several_releases_stand_side_by_side(tenant: Tenant, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "alembic", tmp_path / "0002")
    shutil.copytree(EXAMPLES / "alembic", tmp_path / "0001")
    (tmp_path / "0001/versions/0002_stars.py").unlink()
    databases = tenant.server.provider(projects=tmp_path)
    for number, columns in (("0001", ["id", "body"]), ("0002", ["id", "body", "stars"])):
        release = release_of(tmp_path / number, number)
        databases.bring_to(tenant.server.at, tenant.placement, release, BOUNDS)
        assert tenant.columns() == columns
    assert tenant.release == "0002"


def test_a_failing_revision_is_told_with_its_statement(tenant: Tenant, tmp_path: Path) -> None:
    folder = tmp_path / "alembic"
    shutil.copytree(EXAMPLES / "alembic", folder)
    (folder / "versions/0003_bad.py").write_text(
        "from alembic import op\nrevision = '0003'\ndown_revision = '0002'\n"
        "def upgrade():\n    op.execute('SELECT nowhere FROM nothing')\n"
    )
    with pytest.raises(MigrationFailed) as caught:
        tenant.bring(folder)
    assert caught.value.statement == "SELECT nowhere FROM nothing"
    assert caught.value.error == '42P01 relation "nothing" does not exist'
    assert tenant.columns() == []
    assert tenant.release is None


def test_another_migrator_is_waited_for(tenant: Tenant, project: Path) -> None:
    with tenant.server.superuser(tenant.placement.database) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        with pytest.raises(Retryable, match="55P03"):
            tenant.bring(project, bounds=Bounds(0.2, 30))
    assert tenant.columns() == []


# ------------------------------------------------------------------------------------ commands


def command(folder: Path, script: str, *, timeout: float = 60) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "run.py").write_text(script)
    (folder / "migrations.toml").write_text(
        f'adapter = "command"\ncommand = ["{sys.executable}", "run.py"]\n'
        f'files = ["run.py"]\ntimeout = {timeout}\n'
    )
    return folder


def test_a_command_gets_the_url_and_none_of_our_secrets(tenant: Tenant, tmp_path: Path) -> None:
    script = "import os, sys\nprint(sorted(os.environ), sys.argv)\nsys.exit(3)"
    with pytest.raises(MigrationFailed, match="status 3") as caught:
        tenant.bring(command(tmp_path / "p", script))
    reported = str(caught.value)
    assert "'DATABASE_URL'" in reported
    assert "AWS_SECRET_ACCESS_KEY" not in reported
    assert "postgresql://" not in reported


def test_what_a_command_prints_is_told_without_the_password_and_without_rows(
    tenant: Tenant, tmp_path: Path
) -> None:
    script = (
        "import os, sys\nprint('URL', os.environ['DATABASE_URL'])\n"
        "print('ERROR: duplicate key')\nprint('DETAIL: Key (mail)=(me@b.c) exists')\nsys.exit(1)"
    )
    with pytest.raises(MigrationFailed) as caught:
        tenant.bring(command(tmp_path / "p", script))
    assert caught.value.error == "status 1: URL … / ERROR: duplicate key"


def test_a_commands_statements_are_bounded_by_the_server(tenant: Tenant, tmp_path: Path) -> None:
    script = "import os, psycopg\npsycopg.connect(os.environ['DATABASE_URL']).execute('SELECT pg_sleep(20)')"
    with pytest.raises(MigrationFailed, match="statement timeout"):
        tenant.bring(command(tmp_path / "p", script), bounds=Bounds(1.0, 0.3))


def test_a_command_that_hangs_is_ended_with_all_it_started(tenant: Tenant, tmp_path: Path) -> None:
    """On a busy machine a second may be too short for it to start anything: then it gets more."""
    mark = tmp_path / "pid"
    script = (
        "import os, subprocess, time\n"
        f"child = subprocess.Popen(['sleep', '600'])\nopen({str(mark)!r} + '~', 'w').write(str(child.pid))\n"
        f"os.rename({str(mark)!r} + '~', {str(mark)!r})\ntime.sleep(600)"
    )
    for seconds in (1, 10, 60):
        with pytest.raises(MigrationFailed, match=f"no end after {seconds} s"):
            tenant.bring(command(tmp_path / f"p{seconds}", script, timeout=seconds))
        if mark.exists():
            break
    grandchild = int(mark.read_text())
    deadline = time.monotonic() + 60
    while is_running(grandchild):
        assert time.monotonic() < deadline, f"{grandchild} outlived the command that started it"
        time.sleep(0.05)


def test_a_program_that_is_not_there_is_named(tenant: Tenant, tmp_path: Path) -> None:
    folder = command(tmp_path / "p", "")
    text = (folder / "migrations.toml").read_text().replace(sys.executable, "no-such-program")
    (folder / "migrations.toml").write_text(text)
    with pytest.raises(MigrationFailed, match="no-such-program: No such file"):
        tenant.bring(folder)


def test_a_worker_without_a_project_says_so(tenant: Tenant) -> None:
    release = Release("0001", Adapter.ALEMBIC, ())
    with pytest.raises(NeedsHuman, match="no folder of tenant migrations"):
        tenant.server.provider().bring_to(tenant.server.at, tenant.placement, release, BOUNDS)
