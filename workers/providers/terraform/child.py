"""Become a command that ends with its parent: `child.py PARENT_PID COMMAND …`.

The kernel sends SIGINT when the thread that started this process ends, however it ends, so that a
terraform whose worker was killed stops within seconds, saves its state and gives its lock back
(prctl(2), PR_SET_PDEATHSIG; the setting survives execve). A process of its own, not a `preexec_fn`:
Python code between fork and exec can deadlock in a worker that has threads. Signals that the parent
ignores or blocks are made ordinary again, because Celery's children ignore SIGINT and would hand that
on. This file runs alone (`python -I -S child.py`) and imports nothing of ours.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(130)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
