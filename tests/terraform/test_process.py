"""A child that can be stopped, and that ends with its parent. The children here are small scripts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlplane.domain.errors import LeaseLost, Retryable
from controlplane.workers.providers.terraform import process
from tests.processes import is_running

# Like terraform: on SIGINT it says so, saves, and ends.
POLITE = """
import signal, sys, time
def end(*_):
    print("Interrupt received", flush=True)
    open("saved", "w").close()
    sys.exit(1)
signal.signal(signal.SIGINT, end)
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
open("ended", "w").close()
"""


def run(folder: Path, script: str, **options):
    return process.run(
        [sys.executable, "-c", script],
        folder=folder,
        name="child",
        environment={"PATH": os.environ["PATH"], "GREETING": "hello"},
        **{"timeout": 30.0} | options,
    )


def test_output_errors_status_and_environment_come_back(tmp_path: Path) -> None:
    lines: list[str] = []
    script = (
        "import os, sys; print(os.environ['GREETING']); print('two'); sys.stderr.write('bad'); sys.exit(3)"
    )
    done = run(tmp_path, script, on_line=lines.append)
    assert (done.code, done.errors, lines, done.text()) == (3, "bad", ["hello", "two"], "hello\ntwo\n")


def test_only_the_end_of_a_long_error_is_kept(tmp_path: Path) -> None:
    done = run(tmp_path, "import sys; sys.stderr.write('x' * 1_000_000 + 'end')")
    assert len(done.errors) == process.ERRORS_LIMIT
    assert done.errors.endswith("xend")


def test_lines_arrive_while_the_child_runs(tmp_path: Path) -> None:
    """This one ends well only if its line was seen before its end."""
    heard = tmp_path / "heard"
    script = (
        "import os, time; print('first', flush=True); end = time.monotonic() + 60\n"
        f"while not os.path.exists({str(heard)!r}): assert time.monotonic() < end; time.sleep(0.01)"
    )
    assert run(tmp_path, script, on_line=lambda _line: heard.touch(), timeout=90.0).code == 0


def test_a_lost_lease_stops_the_child_politely(tmp_path: Path) -> None:
    """It is asked again and again, and not only when the child says something."""
    asked: list[bool] = []
    ready: list[str] = []

    def stopped() -> bool:
        asked.append(bool(ready))
        return asked.count(True) >= 3

    with pytest.raises(LeaseLost):
        run(tmp_path, POLITE, stopped=stopped, on_line=ready.append)
    assert (tmp_path / "saved").exists()


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.5)
    ready: list[str] = []
    with pytest.raises(LeaseLost):
        run(tmp_path, STUBBORN, stopped=lambda: bool(ready), on_line=ready.append)
    assert not (tmp_path / "ended").exists()


def test_the_time_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(Retryable, match="longer than 1 s"):
        run(tmp_path, POLITE, timeout=1.0)
    assert (tmp_path / "saved").exists()


def test_whatever_a_listener_raises_stops_the_child(tmp_path: Path) -> None:
    def listener(_line: str) -> None:
        raise ValueError("the registry is gone")

    with pytest.raises(ValueError, match="registry"):
        run(tmp_path, POLITE, on_line=listener)
    assert (tmp_path / "saved").exists()


PARENT = """
import os, sys
from pathlib import Path
from tests.processes import is_running
from controlplane.workers.providers.terraform import process
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Celery's children do, and children inherit it
process.run([sys.executable, "-c", sys.argv[2]], folder=Path(sys.argv[1]), name="child",
            environment=dict(os.environ), timeout=60,
            on_line=lambda line: Path(sys.argv[1], "up").touch())
"""


def test_a_killed_parent_takes_its_child_along_and_the_child_saves(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), POLITE])
    try:
        wait_for(tmp_path / "up")
        parent.send_signal(signal.SIGKILL)
        wait_for(tmp_path / "saved")
    finally:
        parent.kill()
        parent.wait()


# Like terraform with a provider: the second interrupt makes it run away and leave its helper.
HASTY = """
import signal, subprocess, sys, time
from pathlib import Path
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
asked = []
def interrupted(*_):
    asked.append(1)
    if len(asked) == 2:
        sys.exit(1)
signal.signal(signal.SIGINT, interrupted)
Path("helper").write_text(str(helper.pid))
print("ready", flush=True)
end = time.monotonic() + 60
while not asked and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(1.5)
Path("interrupts").write_text(str(len(asked)))
"""


def test_several_interrupts_are_one_and_nobody_stays_behind(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), HASTY])
    try:
        wait_for(tmp_path / "up")
        child = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
        os.kill(child, signal.SIGINT)
        parent.send_signal(signal.SIGKILL)  # and the kernel's interrupt
        wait_for(tmp_path / "interrupts")
    finally:
        parent.kill()
        parent.wait()
    assert (tmp_path / "interrupts").read_text() == "1"
    helper = int((tmp_path / "helper").read_text())
    end = time.monotonic() + 60
    while is_running(helper):
        assert time.monotonic() < end, "the helper outlived its terraform"
        time.sleep(0.05)


def test_a_command_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = process.run(
        ["no-such-terraform"], folder=tmp_path, name="child", environment={"PATH": "/bin"}, timeout=30.0
    )
    assert (done.code, done.errors) == (127, "no-such-terraform: No such file or directory\n")


def test_a_death_by_signal_is_told_as_one(tmp_path: Path) -> None:
    done = run(tmp_path, "import os; os.kill(os.getpid(), 15)")
    assert done.code == -signal.SIGTERM


def wait_for(path: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.05)
