"""The last release's code against this one's schema: in a deploy the two run side by side.

Its own tests are run, by its own checkout, on a registry that this checkout has upgraded. The last release is
the newest tag `v*` of the history; until there is one it is this commit itself, which says no more than that
a schema that takes something away is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NEWER_RELEASE

ROOT = Path(__file__).parents[2]
SCHEMA = "controlplane/store/schema"
WHOLE = ("tests/store", "tests/engine", "tests/web", "--ignore=tests/engine/test_crash_at_every_call.py")
SHORT = ("tests/engine/test_life.py", "-x")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def last_release() -> str:
    return git("describe", "--tags", "--match", "v*", "--abbrev=0") or "HEAD"


def unpacked(revision: str, into: Path) -> Path:
    into.mkdir()
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(into)], input=archive.stdout, check=True)
    return into


def run_tests(
    release: Path, *tests: str, schema_of: Path, temporary: Path
) -> subprocess.CompletedProcess[str]:
    temporary.mkdir()
    environment = {
        **os.environ,
        NEWER_RELEASE: str(schema_of),
        "PYTEST_DEBUG_TEMPROOT": str(temporary),
        "PYTHONPATH": str(release),  # before what is installed from this checkout
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not soak", *tests]
    return subprocess.run(command, cwd=release, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_last_release_passes_its_tests_on_this_schema(tmp_path: Path) -> None:
    release = unpacked(last_release(), tmp_path / "release")
    ran = run_tests(release, *WHOLE, schema_of=ROOT, temporary=tmp_path / "t")
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    assert " passed" in ran.stdout


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_schema_that_takes_away_what_the_last_release_reads_fails_it(tmp_path: Path) -> None:
    release = unpacked(last_release(), tmp_path / "release")
    next_one = unpacked("HEAD", tmp_path / "next")
    (next_one / SCHEMA / "9999_contract.sql").write_text("ALTER TABLE tenant RENAME display_name TO name;\n")
    ran = run_tests(release, *SHORT, schema_of=next_one, temporary=tmp_path / "t")
    assert ran.returncode == 1, ran.stdout[-4000:] + ran.stderr[-4000:]
    assert "display_name" in ran.stdout
