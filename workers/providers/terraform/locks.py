"""Whose a state lock is, and what to do about one that is in the way.

Terraform's locks never expire, and breaking one that is alive lets two applies write one state. A
lock is ours to break only where a recorded run of ours took it: its id was recorded, or, where the
worker died before it could record it, it names this run's user and host and is no older than the run.
The caller holds the resource's lease, so no run of ours is alive. Any other lock is somebody's: we
wait, then ask a person, and never run without locking.
"""

from __future__ import annotations

import os
import pwd
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable
from controlplane.workers.providers.ports import PriorRun
from controlplane.workers.providers.terraform.state import Lock

PATIENCE = timedelta(minutes=10)  # how long somebody else's run may take before a person is asked
SKEW = timedelta(seconds=5)  # between the clocks that wrote the run's start and the lock
_POLL = 0.5  # seconds between two reads of the lock of a run that has just begun


def lock_owner() -> str:
    """`user@host`, as Terraform started by this process writes it into its locks."""
    return f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def is_ours(lock: Lock, prior_runs: Sequence[PriorRun]) -> bool:
    return any(
        (run.lock_id is not None and run.lock_id == lock.id)
        or (run.who == lock.who and lock.created >= run.started_at - SKEW)
        for run in prior_runs
        if lock.id
    )


def in_the_way(lock: Lock, workspace: str, *, now: datetime) -> ControlPlaneError:
    """The error for a lock that is not ours."""
    held = (
        f"the state of {workspace} is locked by {lock.who or 'somebody unknown'} since {lock.created:%F %T}"
    )
    if lock.id and now - lock.created < PATIENCE:
        return Retryable(held, after=30)
    return NeedsHuman(f"{held} (lock {lock.id or 'unreadable'})", runbook="foreign-state-lock")


class LockWatch:
    """Looks for the lock of a command that has just begun, beside it, until it is observed.

    A thread, because a bucket that does not answer must not keep the lease from being watched. The
    finding is handed over by `poll`, in the caller's thread.
    """

    def __init__(self, read: Callable[[], Lock | None]) -> None:
        self._read = read
        self._since = datetime.now(UTC) - SKEW
        self._found: queue.SimpleQueue[Lock] = queue.SimpleQueue()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="terraform-lock-watch", daemon=True)

    def __enter__(self) -> LockWatch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()

    def poll(self) -> Lock | None:
        """The lock, once."""
        try:
            return self._found.get_nowait()
        except queue.Empty:
            return None

    def _watch(self) -> None:
        while not self._end.wait(_POLL):
            try:
                lock = self._read()
            except ControlPlaneError:
                continue  # the command itself will say what is wrong with the bucket
            if lock is not None and lock.who == lock_owner() and lock.created >= self._since:
                self._found.put(lock)
                return
