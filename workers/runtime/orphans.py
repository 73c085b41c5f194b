"""A pool process ends with the Celery process that forked it.

Celery's children do not notice when their parent is killed (`kill -9`, out of memory): they go on with
what they have in hand, and then wait for ever for a parent that does not come back. The registry would
bear it, since each still holds its lease; the machine would not, since every such kill leaves four
processes behind. The kernel sends the signal when the forking thread ends, which in Celery is the main
one. The child's Terraform in turn gets SIGINT, and saves its state.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask the kernel for SIGKILL at the parent's death (Linux; elsewhere nothing is asked)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
