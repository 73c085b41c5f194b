"""A run's own folder, and how to know whether the run still lives.

Terraform writes `errored.tfstate` into its current folder when the state bucket can't be reached at
the end of an apply, so every run gets a folder to itself: mode 0700, with links to the stack's files.

Its file `alive` is locked (flock) by the worker *and* by every terraform it starts, which inherit the
descriptor. The kernel lets go of the lock with the last of them: a folder whose lock can be taken
belongs to nobody, and one that can't has a terraform that may still be writing, even where its worker
was killed. No process id is read, so none can be mistaken after a restart.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ERRORED = "errored.tfstate"
_ALIVE = "alive"


class RunFolder:
    """`<installation>/runs/<workspace>.<random>`; `descriptor` is what terraform has to inherit."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @property
    def errored(self) -> Path:
        return self.path / ERRORED


@contextmanager
def open_folder(runs: Path, workspace: str, stack: Path) -> Iterator[RunFolder]:
    """A new folder under `runs` with links to the files of `stack`.

    At the end it is wiped, unless Terraform had to leave a state behind in it.
    """
    name = f"{workspace}.{secrets.token_hex(6)}"
    growing = runs / f".{name}"
    growing.mkdir(mode=0o700)
    descriptor = os.open(growing / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for file in stack.iterdir():
            (growing / file.name).symlink_to(file)
        path = growing.rename(runs / name)  # with its lock held: from now on others may look at it
        yield RunFolder(path, descriptor)
        if not (path / ERRORED).exists():
            shutil.rmtree(path)
    finally:
        os.close(descriptor)


def is_alive(folder: Path) -> bool:
    """Does a worker or a terraform still hold this run's folder?"""
    try:
        descriptor = os.open(folder / _ALIVE, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def must_stay(folder: Path) -> bool:
    """Somebody is at work in it, or it may hold the only copy of a state."""
    return is_alive(folder) or (folder / ERRORED).exists()


def wipe(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
