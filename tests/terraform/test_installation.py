"""Releases of a stack, unpacked and initialised once, and the folders of their runs."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.terraform import archive, folder
from controlplane.workers.providers.terraform import installation as module
from controlplane.workers.providers.terraform.archive import Archive
from controlplane.workers.providers.terraform.installation import Installations
from tests.harness.terraform import ROOT


def newer() -> Archive:
    """What a deploy with one more file in the stack carries."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(ROOT, Path(folder, "terraform")))
        (copy / "stacks" / "placements" / "extra.tf").write_text("")
        return archive.pack(copy)


RELEASE, NEWER = archive.pack(ROOT), newer()


def files_of(release: Archive) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(release.body)) as tar:
        return {entry.name: found.read() for entry in tar if (found := tar.extractfile(entry)) is not None}


def installations(
    work: Path, *, read: Callable[[str, str], bytes] = lambda _stack, _release: RELEASE.body, **inputs: str
) -> Installations:
    return Installations(work, read=read, inputs=inputs, init_lock=work / "init.lock")


class Init:
    """Counts; takes as long as a race needs."""

    def __init__(self) -> None:
        self.runs: list[Path] = []

    def __call__(self, root: Path, data: Path) -> None:
        self.runs.append(root)
        time.sleep(0.2)
        data.mkdir()


def test_many_at_once_initialise_once(tmp_path: Path) -> None:
    init, seen = Init(), []

    def use() -> None:
        with installations(tmp_path).use("placements", RELEASE.digest, init) as version:
            seen.append(version.path)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(init.runs) == 1
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_another_release_and_other_inputs_make_another_version(tmp_path: Path) -> None:
    """The files are those of the release that was asked for."""
    read = {RELEASE.digest: RELEASE.body, NEWER.digest: NEWER.body}
    paths = []
    for release, bucket in ((RELEASE, "a"), (NEWER, "a"), (RELEASE, "b"), (RELEASE, "a")):
        known = installations(tmp_path, read=lambda _stack, digest: read[digest], bucket=bucket)
        with known.use("placements", release.digest, Init()) as version:
            paths.append(version.path)
            assert (version.root / "../../modules/placements/main.tf").is_file()
            assert (version.root / "extra.tf").exists() is (release is NEWER)
    assert len(set(paths)) == 3
    assert paths[0] == paths[-1]


def test_an_archive_is_read_once_and_needed_no_more(tmp_path: Path) -> None:
    reads: list[tuple[str, str]] = []

    def read(stack: str, release: str) -> bytes:
        reads.append((stack, release))
        if len(reads) > 1:
            raise NeedsHuman("it is missing", runbook="stack-release")
        return RELEASE.body

    for _ in range(2):
        with installations(tmp_path, read=read).use("placements", RELEASE.digest, Init()):
            pass
    assert reads == [("placements", RELEASE.digest)]
    with pytest.raises(NeedsHuman), installations(tmp_path, read=read).use("cluster", RELEASE.digest, Init()):
        pass


KILLED = """
import os, sys
from pathlib import Path
from tests.terraform.test_installation import Init, RELEASE, installations
written, write = [], Path.write_bytes
def dies(path, content):
    written.append(write(path, content[:100]))
    if len(written) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
Path.write_bytes = dies
with installations(Path(sys.argv[1])).use("placements", RELEASE.digest, Init()):
    pass
"""


@pytest.mark.parametrize("files", [1, 7])
def test_a_kill_in_the_middle_of_unpacking_leaves_nothing_that_is_run(tmp_path: Path, files: int) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(files)]
    assert subprocess.run(command, check=False).returncode == -9
    (half,) = tmp_path.glob("placements-*/")
    assert len([path for path in half.rglob("*") if path.is_file()]) == files
    init = Init()
    with installations(tmp_path).use("placements", RELEASE.digest, init) as version:
        assert version.path == half
        for name, content in files_of(RELEASE).items():
            assert (version.path / name).read_bytes() == content
    assert len(init.runs) == 1


def test_a_failed_init_is_tried_again_and_leaves_no_ready_version(tmp_path: Path) -> None:
    def fails(root: Path, data: Path) -> None:
        raise NeedsHuman("no provider", runbook="terraform-configuration")

    with pytest.raises(NeedsHuman), installations(tmp_path).use("placements", RELEASE.digest, fails):
        pass
    init = Init()
    with installations(tmp_path).use("placements", RELEASE.digest, init):
        assert len(init.runs) == 1


def test_a_version_whose_provider_has_gone_is_initialised_anew(tmp_path: Path) -> None:
    def links(root: Path, data: Path) -> None:
        place = data / "providers" / "registry" / "hashicorp" / "aws" / "5.100.0"
        place.mkdir(parents=True)
        (place / "linux_amd64").symlink_to(tmp_path)

    with installations(tmp_path).use("placements", RELEASE.digest, links) as version:
        link = next(version.data.glob("providers/*/*/*/*/*"))
    link.unlink()
    link.symlink_to("/nowhere/to/be/found")
    init = Init()
    with installations(tmp_path).use("placements", RELEASE.digest, init):
        assert len(init.runs) == 1


def test_an_unknown_stack_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(NeedsHuman, match="'nope'"),
        installations(tmp_path).use("nope", RELEASE.digest, Init()),
    ):
        pass


def test_a_folder_is_private_linked_and_wiped(tmp_path: Path) -> None:
    with (
        installations(tmp_path).use("placements", RELEASE.digest, Init()) as version,
        folder.open_folder(version.runs, "t-a-1", version.root) as own,
    ):
        assert own.path.stat().st_mode & 0o777 == 0o700
        assert (own.path / "main.tf").resolve() == version.root / "main.tf"
        assert (own.path / ".terraform.lock.hcl").exists()
        assert folder.is_alive(own.path)
    assert not own.path.exists()


def test_a_state_that_could_not_be_saved_keeps_its_folder(tmp_path: Path) -> None:
    known = installations(tmp_path)
    with known.use("placements", RELEASE.digest, Init()) as version:
        with folder.open_folder(version.runs, "t-a-1", version.root) as own:
            own.errored.write_text("{}")
        known.tidy("placements")
    assert known.runs_of("placements", "t-a-1") == [own.path]
    assert known.runs_of("placements", "t-a-2") == []


HOLDER = """
import os, subprocess, sys
from pathlib import Path
from controlplane.workers.providers.terraform import archive, folder
with folder.open_folder(Path(sys.argv[1]), "t-a-1", Path(sys.argv[2])) as own:
    subprocess.Popen(["sleep", "60"], pass_fds=(own.descriptor,))  # terraform, which holds it too
    print(own.path, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_dead_workers_folder_lives_as_long_as_its_terraform(tmp_path: Path) -> None:
    known = installations(tmp_path)
    with known.use("placements", RELEASE.digest, Init()) as version:
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
        known.tidy("placements")
        assert path.exists()
        os.killpg(worker.pid, 9)
        end = time.monotonic() + 10
        while folder.is_alive(path):
            assert time.monotonic() < end
            time.sleep(0.05)
        known.tidy("placements")
        assert not path.exists()


def test_versions_that_nobody_uses_any_more_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installations(tmp_path, deploy="old").use("placements", RELEASE.digest, Init()) as old:
        pass
    known = installations(tmp_path, deploy="new")
    with known.use("placements", RELEASE.digest, Init()) as new:
        known.tidy("placements")
        assert old.path.exists()  # a deploy has both at work
        monkeypatch.setattr(module, "_KEPT", 0.0)
        known.tidy("placements")
        assert not old.path.exists()
        assert new.path.exists()
