"""Children end with their parent, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.localcloud.servers.process import (
    ServiceError,
    free_port,
    spawn,
)
from tests.processes import is_running

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_everything_ends_with_a_parent_that_is_killed(data_root: Path, ending: signal.Signals) -> None:
    """A grandchild too: PostgreSQL behind an emulated cluster is one."""
    script = """
import signal, sys, time
from pathlib import Path
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import spawn
from controlplane.localcloud.servers.valkey import ValkeyServer
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
root = Path(sys.argv[1])
postgres, valkey = PostgresServer(root / "postgres"), ValkeyServer(root / "valkey")
postgres.start()
valkey.start()
inner = '''
import sys, time
from pathlib import Path
from controlplane.localcloud.servers.process import spawn
root = Path(sys.argv[1])
child = spawn("inner", [sys.executable, "-c", "import time; time.sleep(600)"], log=root / "b.log")
(root / "inner.pid").write_text(str(child.pid))
time.sleep(600)
'''
outer = spawn("outer", [sys.executable, "-c", inner, str(root)], log=root / "a.log", cwd=Path.cwd())
outer.wait_until((root / "inner.pid").exists)
print(postgres.pid, valkey.pid, outer.pid, (root / "inner.pid").read_text(), flush=True)
time.sleep(600)
"""
    root = data_root / f"ending-{ending.name}"
    root.mkdir(mode=0o755)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as parent:
        try:
            assert parent.stdout is not None
            pids = [int(word) for word in parent.stdout.readline().split()]
            assert len(pids) == 4
            assert all(is_running(pid) for pid in pids)
            parent.send_signal(ending)
            parent.wait(timeout=10)
        finally:
            parent.kill()
    assert wait_for(lambda: not any(is_running(pid) for pid in pids)), [
        pid for pid in pids if is_running(pid)
    ]


def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    made = []
    thread = threading.Thread(target=lambda: made.append(spawn("sleep", SLEEP, log=tmp_path / "log")))
    thread.start()
    thread.join()
    [child] = made
    time.sleep(0.5)
    assert child.running
    child.kill()


def test_stopping_takes_the_children_of_the_child_along(tmp_path: Path) -> None:
    family = (
        "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(600)"
    )
    child = spawn("family", [sys.executable, "-c", family, *SLEEP], log=tmp_path / "log")
    child.wait_until(lambda: child.log_tail().isdigit())
    grandchild = int(child.log_tail())
    assert is_running(grandchild)
    child.stop()
    assert wait_for(lambda: not is_running(grandchild))


def test_a_child_that_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    deaf = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print(1, flush=True); time.sleep(99)"
    child = spawn("deaf", [sys.executable, "-c", deaf], log=tmp_path / "log")
    child.wait_until(lambda: child.log_tail() == "1")
    began = time.monotonic()
    child.stop(grace=0.3)
    assert time.monotonic() - began >= 0.3
    assert not child.running


def test_a_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    failing = spawn(
        "failing", [sys.executable, "-c", "raise SystemExit('no such port')"], log=tmp_path / "log"
    )
    with pytest.raises(ServiceError, match=r"(?s)failing: ended with status 1.*no such port"):
        failing.wait_until(lambda: False)


def test_a_start_that_never_ends_is_bounded_and_killed(tmp_path: Path) -> None:
    child = spawn("slow", SLEEP, log=tmp_path / "log")
    with pytest.raises(ServiceError, match="slow: not ready after 0 s"):
        child.wait_until(lambda: False, timeout=0.2)
    assert not child.running


def test_a_child_can_be_started_after_a_fork(tmp_path: Path) -> None:
    """A worker that forks (Celery's) keeps the module but not the thread that spawns."""
    spawn("before", [sys.executable, "-c", ""], log=tmp_path / "log").stop()
    pid = os.fork()
    if pid == 0:
        try:
            spawn("after", [sys.executable, "-c", ""], log=tmp_path / "log").stop()
            os._exit(0)
        finally:
            os._exit(1)
    assert wait_for(lambda: not is_running(pid))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_free_port_is_free() -> None:
    assert len({free_port() for _ in range(20)}) > 1
