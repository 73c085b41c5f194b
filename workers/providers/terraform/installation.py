"""A stack of one release, unpacked and initialised once and used by every run of it.

`terraform init` costs 1 to 6 seconds and, with the public registry, 700 MB of provider; a run must
not pay that. So the archive of the release is unpacked, under a digest of it and of all else that `init`
depends on, to

    <work_dir>/<stack>-<digest>/stacks/<stack>   the stack     (init runs here)
                               /modules          what it calls as ../../modules/…
                               /data             TF_DATA_DIR, shared by all runs
                               /runs/<run>       a run's folder: the same ../../modules

and no release ever pulls files away from under a running terraform. A version is ready once a last file says
so: who is killed in the middle of unpacking leaves a folder that the next one begins anew. Concurrent inits
race for the provider's files (hashicorp/terraform#25849), so one lock serialises them; a run holds a shared
lock on its version, and only a version that nobody holds is ever removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.terraform import archive, folder

_READY = "ready"
_KEPT = 172_800.0  # seconds since its last use for which an idle version stays: a cluster is looked at daily


class Installations:
    """The initialised versions under `work_dir`."""

    def __init__(
        self,
        work_dir: Path,
        *,
        read: Callable[[str, str], bytes],
        inputs: Mapping[str, str],
        init_lock: Path,
    ) -> None:
        """`read(stack, release)`: the archive, as it must be; raises NeedsHuman where it can't be had.
        `inputs`: what else `init` depends on (backend, binary). `init_lock`: the file that all who share a
        provider cache lock."""
        self._work_dir = work_dir
        self._read = read
        self._inputs = dict(inputs)
        self._init_lock = init_lock

    @contextmanager
    def use(
        self, stack: str, release: str, initialise: Callable[[Path, Path], None]
    ) -> Iterator[Installation]:
        """The version of `stack` that is of this release, held for as long as the block runs.

        `initialise(folder, data)` is called, once a version, to run `init` in `folder` with
        TF_DATA_DIR `data`.
        """
        version = Installation(self._work_dir / f"{stack}-{self._digest(release)}", stack)
        self._work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            with _locked(version.lock, fcntl.LOCK_SH):
                if version.ready:
                    os.utime(version.lock)
                    yield version
                    return
            with _locked(self._init_lock, fcntl.LOCK_EX):
                if not version.ready:
                    self._install(version, stack, release, initialise)

    def runs_of(self, stack: str, workspace: str) -> list[Path]:
        """Folders of runs on this workspace, of any version and any state."""
        return sorted(self._work_dir.glob(f"{stack}-*/runs/{workspace}.*"))

    def tidy(self, stack: str) -> None:
        """Remove what dead runs left, and versions that nobody has used for two days. A folder with an
        errored state stays: it may be the only copy."""
        for run in self._work_dir.glob(f"{stack}-*/runs/*"):
            # A folder with a dot is being filled; should its worker die there, the version's end takes it.
            if run.name[0] != "." and not folder.must_stay(run):
                folder.wipe(run)
        for path in self._work_dir.glob(f"{stack}-*/"):
            version = Installation(path, stack)
            if version.idle() < _KEPT or any(map(folder.must_stay, version.runs.glob("*"))):
                continue
            with _locked(version.lock, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
                if alone:
                    shutil.rmtree(path)

    def _digest(self, release: str) -> str:
        inputs = repr(sorted({**self._inputs, "release": release}.items()))
        return hashlib.sha256(inputs.encode()).hexdigest()[:16]

    def _install(
        self, version: Installation, stack: str, release: str, initialise: Callable[[Path, Path], None]
    ) -> None:
        body = self._read(stack, release)
        shutil.rmtree(version.path, ignore_errors=True)  # an earlier try that did not end
        version.runs.mkdir(mode=0o700, parents=True)
        archive.unpack(body, version.path)
        if not (version.root / "main.tf").is_file():
            raise NeedsHuman(
                f"release {release[:12]} has no stack {stack!r}", runbook="terraform-configuration"
            )
        initialise(version.root, version.data)
        (version.path / _READY).touch()


class Installation:
    """One initialised version of a stack."""

    def __init__(self, path: Path, stack: str) -> None:
        self.path = path
        self.root = path / "stacks" / stack
        self.data = path / "data"
        self.runs = path / "runs"
        self.lock = path.with_name(path.name + ".lock")

    @property
    def ready(self) -> bool:
        """Initialised, and its providers (links into a mirror or a cache) are still where they were."""
        providers = self.data.glob("providers/*/*/*/*/*")
        return (self.path / _READY).is_file() and all(provider.exists() for provider in providers)

    def idle(self) -> float:
        """Seconds since it was last taken into use."""
        return time.time() - self.lock.stat().st_mtime if self.lock.exists() else _KEPT


@contextmanager
def _locked(path: Path, how: int) -> Iterator[bool]:
    """Hold `path` locked; False where LOCK_NB was asked for and somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
