"""The folder that one local cloud lives in.

An emulated account starts empty, so a registry from an earlier run would describe clusters that do
not exist: every start is a new world. A folder is therefore cleared at the start, but only one that
carries our mark, and only while no other local cloud uses it.
"""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import IO

from controlplane.localcloud.servers.process import ServiceError, make_data_root

MARK = ".localcloud"


class WorldFolder:
    """`path` None: a temporary folder, which `close` removes. Held by a lock until then."""

    def __init__(self, path: Path | None) -> None:
        """Raises ServiceError where the folder holds something else, is in use or can't be used."""
        self._temporary = path is None
        self.path = (make_data_root() if path is None else path).resolve()
        try:
            self._lock = self._take()
        except OSError as error:
            raise ServiceError(f"data_dir: {self.path}: {error.strerror}") from error

    def _take(self) -> IO[str]:
        """Make the folder if need be, hold it and empty it."""
        self.path.mkdir(parents=True, exist_ok=True)
        mark = self.path / MARK
        others = [entry.name for entry in self.path.iterdir()]
        if others and MARK not in others:
            raise ServiceError(
                f"data_dir: expected an empty folder or one of localcloud's own, got {self.path}"
            )
        lock = _locked(mark)
        for entry in self.path.iterdir():
            if entry == mark:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return lock

    def close(self) -> None:
        """A second time does nothing."""
        if self._temporary and not self._lock.closed:
            shutil.rmtree(self.path)
        self._lock.close()


def _locked(mark: Path) -> IO[str]:
    stream = mark.open("a")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise ServiceError(f"data_dir: another local cloud uses {mark.parent}") from error
    return stream
