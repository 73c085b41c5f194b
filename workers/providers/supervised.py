"""A command that ends with us and takes along all that it started (`supervisor.py` says how).

One place knows the supervisor's arguments and how long it may take, for everything that runs a foreign
program: Terraform, and the commands of tenants' migrations.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

SUPERVISOR = Path(__file__).with_name("supervisor.py")
MARGIN = 5.0  # seconds that the supervisor may take for the interrupt and the kill


class Supervised:
    """A command that has been started. `grace`: seconds from the interrupt to the kill."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        grace: float,
        folder: Path,
        environment: Mapping[str, str],
        output: IO[bytes],
        errors: IO[bytes] | int,
        keep_open: Sequence[int] = (),
    ) -> None:
        """`errors` as `subprocess.Popen` takes them; `keep_open`: file descriptors that the command
        shall hold as long as it lives."""
        self._grace = grace
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR), str(os.getpid()), str(grace), *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )

    def wait(self, seconds: float) -> int | None:
        """Its exit status, negative for a signal; None while it runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """SIGINT, so that it can save what it has; SIGKILL after the grace. Nothing where it has ended."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        if self.wait(self._grace + MARGIN) is None:
            self._process.kill()
            self._process.wait()
