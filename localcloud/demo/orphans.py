"""Processes that outlive the one which started them come to us, so that the demo can wait for them.

A worker that is stopped in the middle of Terraform ends before Terraform has: that one still saves its
state and gives its lock back. "Nothing is left running" would be a lie, and the folder would be removed
under it, had the demo no way to know. On Linux a process can ask to be given such orphans
(prctl(2), PR_SET_CHILD_SUBREAPER); elsewhere nothing is waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt(*, on: bool) -> None:
    """Become the parent of our descendants' orphans, or stop to."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def children() -> set[int]:
    """The pids of this process's children, adopted ones among them; zombies count."""
    found: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, listing.read_text().split()))
    return found


def outlive(ours: Collection[int], seconds: float) -> None:
    """Wait until no child is left but `ours`; kill what is left after `seconds`."""
    deadline = time.monotonic() + seconds
    while orphans := children() - set(ours):
        if time.monotonic() > deadline:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)  # a zombie at worst: it is not reaped before the next line
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
