"""A server of ours as a child process: on loopback, logged, watched, and gone when we are gone.

A demo that is killed with `kill -9` must leave nothing behind, and a test run that times out must
not leave a database that the next one trips over. So every child asks the kernel for a signal at
its parent's death (`launcher.py`) and stands in a session of its own, whose process group is killed
with it.

The kernel sends that signal when the *thread* that forked ends, not the process. Children are
therefore all forked by one thread of this module that lives as long as the process: callers may
start servers from short-lived pool threads.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launcher.py")
LOG_TAIL_BYTES = 4096
POLL_SECONDS = 0.01

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="localcloud-spawner")


def _new_spawner() -> None:
    global _spawner  # noqa: PLW0603 - a forked child has the object but not its thread
    _spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="localcloud-spawner")


os.register_at_fork(after_in_child=_new_spawner)


class ServiceError(RuntimeError):
    """A local service did not start, or did not do what it was asked."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom a child runs as."""

    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> User:
        entry = pwd.getpwnam(name)
        return cls(entry.pw_uid, entry.pw_gid)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago. Somebody else may take it before you do:
    start with a retry."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Does anything listen on this port of 127.0.0.1?"""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_data_root(prefix: str = "localcloud-", *, within: Path | None = None) -> Path:
    """A new folder that other users may pass through (0711), but not list: a PostgreSQL that root runs
    as `nobody` has to reach its data below it. `within` None: below the system's temporary one."""
    root = Path(tempfile.mkdtemp(prefix=prefix, dir=within))
    root.chmod(0o711)
    return root


class Child:
    """A running child process and its log. Made by `spawn`."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def log_tail(self) -> str:
        with self.log.open("rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return stream.read().decode(errors="replace").strip()

    def wait_until(self, ready: Callable[[], bool], *, timeout: float = 60) -> None:
        """Return once `ready()`. Raises ServiceError, with the end of the log, when the child ends
        before that or `timeout` seconds pass; the child is dead then."""
        try:
            self._poll(ready, timeout)
        except BaseException:  # Ctrl-C included: nobody else knows of this child yet
            self.kill()
            raise

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its group."""
        self._popen.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, grace: float = 10) -> None:
        """Ask it to end; after `grace` seconds kill it. Either way its process group is gone then."""
        self._popen.send_signal(number)
        deadline = time.monotonic() + grace
        while not self._ended() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole process group, then reap."""
        if self._popen.returncode is None:
            # Not reaped yet, so the kernel can't have given its number to another group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(timeout=10)

    def _poll(self, ready: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                status = self._popen.returncode
                raise ServiceError(f"{self.name}: ended with status {status} at its start\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name}: not ready after {timeout:.0f} s\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def _ended(self) -> bool:
        """Has it ended? Leaves it unreaped, so that its group can still be named safely."""
        if self._popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: User | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> Child:
    """Start `command` (its first part an absolute path) as a child that gets `death_signal` when
    this process ends. Its output is appended to `log`; `env` None means ours; `user` needs root."""
    launch = [
        sys.executable,
        "-I",
        "-S",
        str(LAUNCHER),
        str(os.getpid()),
        str(int(death_signal)),
        "-" if user is None else f"{user.uid}:{user.gid}",
        *map(str, command),
    ]
    with log.open("ab") as output:
        popen = _spawner.submit(
            subprocess.Popen,
            launch,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd or "/",
            start_new_session=True,
        ).result()
    return Child(name, popen, log)
