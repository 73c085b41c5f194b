"""Becomes a server that ends when its parent ends.

Run as a script between a parent and the server it starts, because the kernel's
`prctl(PR_SET_PDEATHSIG)` must be called by the child itself, after it has changed its user (a
change of user clears it) and before it executes the server. `subprocess`'s `preexec_fn` would run
this inside a forked copy of a process with threads, which may deadlock; a script of its own can't.
The price is one interpreter start without site-packages, about 15 ms.

    python -I -S launcher.py PARENT_PID DEATH_SIGNAL USER COMMAND [ARGUMENT ...]

USER is `uid:gid`, or `-` to stay who we are. Ends with status 1 if the parent is gone already: it
may have died before the kernel was asked to watch it. Where there is no `prctl` (not Linux) it only
executes the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, user = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    command = sys.argv[4:]
    if user != "-":
        uid, gid = (int(part) for part in user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
        if os.getppid() != parent:
            sys.exit("the parent ended before its child began")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in what a shell starts in the background
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
