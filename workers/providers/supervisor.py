"""Run a command that ends with its parent, is interrupted once, and leaves nobody behind:
`supervisor.py PARENT_PID GRACE COMMAND …`.

Terraform saves its state and gives its lock back on the *first* SIGINT; at the second it runs away at
once and leaves its provider to the machine, where it goes on creating and never ends. A worker that
is stopped gives it two: its own, and the kernel's at the worker's death. So this process stands
between them. It hands on one interrupt, whoever sent how many, kills the command after GRACE seconds,
and once the command has ended kills what is left of its group: a provider whose terraform is gone has
nobody to tell its results to.

The kernel sends SIGINT here when the thread that started this process ends, however it ends
(prctl(2), PR_SET_PDEATHSIG), and to the command when this process does. A process of its own, not a
`preexec_fn`: Python code between fork and exec can deadlock in a worker that has threads. Signals
that the parent ignores or blocks are made ordinary again for the command, because Celery's children
ignore SIGINT and would hand that on. This file runs alone (`python -I -S supervisor.py`) and imports
nothing of ours.
"""

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK = 0.5  # seconds between two looks, should a signal have been missed


def main() -> None:
    parent, grace, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    signal.pthread_sigmask(signal.SIG_SETMASK, (*ENDINGS, signal.SIGCHLD))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an ignored one would reap the command unseen
    for number in ENDINGS:
        signal.signal(number, signal.SIG_DFL)  # an ignored one would never become pending
    _end_with(parent)
    here = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, here)
    _end_as(_watch(pid, grace))


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(130)


def _become(command: list[str], parent: int) -> None:
    """In the fork: a process group of its own, ordinary signals, and then the command."""
    os.setpgid(0, 0)
    _end_with(parent)
    for number in (*ENDINGS, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _watch(pid: int, grace: float) -> int:
    """The command's wait status, once it and its group are gone."""
    kill_at = None
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        got = signal.sigtimedwait((*ENDINGS, signal.SIGCHLD), TICK)
        if got is not None and got.si_signo != signal.SIGCHLD and kill_at is None:
            kill_at = time.monotonic() + grace
            os.kill(pid, signal.SIGINT)
        if kill_at is not None and time.monotonic() >= kill_at:
            os.killpg(pid, signal.SIGKILL)
    # Not reaped yet, so its number still names its group and no other.
    os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _end_as(status: int) -> None:
    """End as the command did, by signal or by status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
