"""Both fake servers as processes: quick to start, clear about mistakes, gone when their parent is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.processes import is_running

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "stripe": ["controlplane.localcloud.stripe"],
    "cloudflare": ["controlplane.localcloud.cloudflare", "--zone-id", "z"],
}
TOKEN = "LOCALCLOUD_CLOUDFLARE_TOKEN"
PARENT = """
import subprocess, sys
command = [sys.executable, "-m", *sys.argv[1:], "--port", "0"]
child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline().split()[-1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "t")


def test_a_missing_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN)
    done = subprocess.run(
        [sys.executable, "-m", *COMMANDS["cloudflare"], "--port", "0"],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        timeout=30,
    )
    assert done.returncode == 2
    assert f"{TOKEN}: expected" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_it_dies_with_its_parent(name: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *COMMANDS[name]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        assert httpx.get(f"{url}/_localcloud/health").json()["service"] == name
        assert is_running(int(pid))
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while is_running(int(pid)):
        assert time.monotonic() < deadline, f"{name} outlived its parent"
        time.sleep(0.05)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_ends_in_order_when_told_to(name: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", *COMMANDS[name], "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith(f"{name} fake server listening on http://127.0.0.1:")
        child.terminate()
        assert child.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["controlplane.localcloud.stripe"], "--port"),
        (
            ["controlplane.localcloud.stripe", "--port", "0", "--api-version", "latest"],
            "--api-version: expected YYYY-MM-DD",
        ),
        (["controlplane.localcloud.stripe", "--port", "0", "--retry-seconds", "1,-2"], "--retry-seconds"),
        (["controlplane.localcloud.stripe", "--port", "0", "--retry-seconds", "soon"], "--retry-seconds"),
        (
            ["controlplane.localcloud.stripe", "--port", "0", "--delivery-threads", "0"],
            "--delivery-threads: expected 1 to 64",
        ),
        (["controlplane.localcloud.cloudflare", "--port", "0"], "--zone-id"),
        ([*COMMANDS["cloudflare"], "--port", "0", "--records-seconds", "9"], "--records-seconds: expected"),
        ([*COMMANDS["cloudflare"], "--port", "0", "--rate-limit", "0"], "--rate-limit"),
    ],
)
def test_a_wrong_option_is_named(command: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        timeout=30,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
