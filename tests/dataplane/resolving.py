"""What the resolver's tests share: a policy in round numbers, invalidations, patience."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

from dataplane.memory import Policy
from dataplane.tenant_config import Invalidation, TenantConfig, sign
from tests.dataplane.tenants import KEYS

HOST = "acme.example"
POLICY = Policy(ttl=60, jitter=0, grace=30, unwatched_ttl=2, unknown_ttl=5, max_age=600, retry=1, wait=5)


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.002)


def invalidation(epoch: int, host: str = HOST) -> Invalidation:
    return Invalidation("config", host, epoch, "")


def entry(of: TenantConfig) -> str:
    return sign(of.to_payload(), key_id="k1", key=KEYS["k1"])


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
