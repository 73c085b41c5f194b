"""Versions of a stack, initialised once, and the folders of their runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.terraform import folder
from controlplane.workers.providers.terraform import installation as module
from controlplane.workers.providers.terraform.installation import Installations
from tests.harness.terraform import ROOT


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "terraform")) / "stacks"


def installations(stacks: Path, **inputs: str) -> Installations:
    work = stacks.parents[1] / "work"
    return Installations(stacks, work, inputs=inputs, init_lock=work / "init.lock")


class Init:
    """Counts; takes as long as a race needs."""

    def __init__(self) -> None:
        self.runs: list[Path] = []

    def __call__(self, root: Path, data: Path) -> None:
        self.runs.append(root)
        time.sleep(0.2)
        data.mkdir()


def test_many_at_once_initialise_once(stacks: Path) -> None:
    init, seen = Init(), []

    def use() -> None:
        with installations(stacks).use("tenant", init) as version:
            seen.append(version.path)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(init.runs) == 1
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_changed_files_and_inputs_make_another_version(stacks: Path) -> None:
    paths = []
    for change in (None, "file", "module", "lock", "input"):
        if change == "file":
            (stacks / "tenant" / "extra.tf").write_text("")
        elif change == "module":
            (stacks.parent / "modules" / "tenant" / "extra.tf").write_text("")
        elif change == "lock":
            (stacks / "tenant" / ".terraform.lock.hcl").write_text("")
        inputs = {"bucket": "other"} if change == "input" else {}
        with installations(stacks, **inputs).use("tenant", Init()) as version:
            paths.append(version.path)
            assert (version.root / "main.tf").is_file()
            assert (version.root / "../../modules/tenant/main.tf").is_file()
    assert len(set(paths)) == 5


def test_a_failed_init_is_tried_again_and_leaves_no_ready_version(stacks: Path) -> None:
    def fails(root: Path, data: Path) -> None:
        raise NeedsHuman("no provider", runbook="terraform-configuration")

    with pytest.raises(NeedsHuman), installations(stacks).use("tenant", fails):
        pass
    init = Init()
    with installations(stacks).use("tenant", init):
        assert len(init.runs) == 1


def test_a_version_whose_provider_has_gone_is_initialised_anew(stacks: Path) -> None:
    def links(root: Path, data: Path) -> None:
        place = data / "providers" / "registry" / "hashicorp" / "aws" / "5.100.0"
        place.mkdir(parents=True)
        (place / "linux_amd64").symlink_to(stacks / "tenant")

    with installations(stacks).use("tenant", links) as version:
        link = next(version.data.glob("providers/*/*/*/*/*"))
    link.unlink()
    link.symlink_to("/nowhere/to/be/found")
    init = Init()
    with installations(stacks).use("tenant", init):
        assert len(init.runs) == 1


def test_an_unknown_stack_is_named(stacks: Path) -> None:
    with pytest.raises(NeedsHuman, match="'nope'"), installations(stacks).use("nope", Init()):
        pass


def test_a_folder_is_private_linked_and_wiped(stacks: Path) -> None:
    with (
        installations(stacks).use("tenant", Init()) as version,
        folder.open_folder(version.runs, "t-a-1", version.root) as own,
    ):
        assert own.path.stat().st_mode & 0o777 == 0o700
        assert (own.path / "main.tf").resolve() == version.root / "main.tf"
        assert (own.path / ".terraform.lock.hcl").exists()
        assert folder.is_alive(own.path)
    assert not own.path.exists()


def test_a_state_that_could_not_be_saved_keeps_its_folder(stacks: Path) -> None:
    known = installations(stacks)
    with known.use("tenant", Init()) as version:
        with folder.open_folder(version.runs, "t-a-1", version.root) as own:
            own.errored.write_text("{}")
        known.tidy("tenant")
    assert known.runs_of("tenant", "t-a-1") == [own.path]
    assert known.runs_of("tenant", "t-a-2") == []


HOLDER = """
import os, subprocess, sys
from pathlib import Path
from controlplane.workers.providers.terraform import folder
with folder.open_folder(Path(sys.argv[1]), "t-a-1", Path(sys.argv[2])) as own:
    subprocess.Popen(["sleep", "60"], pass_fds=(own.descriptor,))  # terraform, which holds it too
    print(own.path, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_dead_workers_folder_lives_as_long_as_its_terraform(stacks: Path) -> None:
    known = installations(stacks)
    with known.use("tenant", Init()) as version:
        worker = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(version.runs), str(version.root)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert worker.stdout is not None
        with worker.stdout:
            path = Path(worker.stdout.readline().strip())
        worker.wait(20)
        assert folder.is_alive(path)
        known.tidy("tenant")
        assert path.exists()
        os.killpg(worker.pid, 9)
        end = time.monotonic() + 10
        while folder.is_alive(path):
            assert time.monotonic() < end
            time.sleep(0.05)
        known.tidy("tenant")
        assert not path.exists()


def test_versions_that_nobody_uses_any_more_go(stacks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installations(stacks, deploy="old").use("tenant", Init()) as old:
        pass
    known = installations(stacks, deploy="new")
    with known.use("tenant", Init()) as new:
        known.tidy("tenant")
        assert old.path.exists()  # a deploy has both at work
        monkeypatch.setattr(module, "_KEPT", 0.0)
        known.tidy("tenant")
        assert not old.path.exists()
        assert new.path.exists()
