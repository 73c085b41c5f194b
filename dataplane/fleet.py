"""How many connections all processes together hold to one cluster.

A cluster takes so many connections and no more, and a process can't see what the others hold. So each
writes how many it holds to a hash in Redis, one field a process, and asks before it opens another: the
script adds up who is alive and says yes or no in one step. A process writes its whole number each time,
with an expiry, and repeats it while it lives; so what a killed process held is free again after
`lease` seconds, and a count that was lost with the cache is back after the next beat.

With Redis away nobody can be asked: each process then holds at most `share` connections to a cluster,
beside what it has, so that the known tenants go on being served. Choose `share` so that share × processes
stays below the cluster's own limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from collections import Counter
from typing import Any

import redis

from dataplane.tiers import (
    Pause,
    TierDown,
    connect_redis,
)

log = logging.getLogger(__name__)

KEY_PREFIX = "dataplane:connections:"

# KEYS[1] the cluster's hash. ARGV: process, connections wanted in all, limit (-1: just write), lease in ms.
_CLAIM = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local others = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local count, expires = string.match(fields[i + 1], '^(%d+):(%d+)$')
  if not count or tonumber(expires) < now then
    redis.call('HDEL', KEYS[1], fields[i])
  elseif fields[i] ~= ARGV[1] then
    others = others + tonumber(count)
  end
end
local wanted, limit, lease = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if limit >= 0 and others + wanted > limit then
  return 0
end
if wanted == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d:%.0f', wanted, now + lease))
  redis.call('PEXPIRE', KEYS[1], lease * 2)
end
return 1
"""


class FleetBudget:
    """`limit`: connections to one cluster over all processes. `share`: of this process while Redis is
    away. `lease`: seconds after which a process that says nothing holds nothing. Thread-safe; each
    call takes at most the client's timeout, and during an outage none after the first."""

    def __init__(
        self, client: redis.Redis, *, limit: int, share: int | None = None, lease: float = 30.0
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit: expected at least 1, got {limit}")
        self.limit = limit
        self.share = max(1, limit // 4) if share is None else share
        self.lease = lease
        self._claim = client.register_script(_CLAIM)
        self._pause = Pause(1.0)
        self._new_process()

    @classmethod
    def from_url(cls, url: str, *, limit: int, share: int | None = None) -> FleetBudget:
        return cls(connect_redis(url, timeout=0.3, connections=4), limit=limit, share=share)

    def _new_process(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._pid = os.getpid()
        self._process = f"{socket.gethostname()}:{self._pid}:{secrets.token_hex(4)}"

    def acquire(self, cluster: str) -> bool:
        """May this process open one more connection to `cluster` (host:port)? True counts it."""
        if self._pid != os.getpid():
            self._new_process()
        with self._lock:
            wanted = self._held[cluster] + 1
            try:
                granted = self._write(cluster, wanted, self.limit)
            except TierDown:
                granted = wanted <= self.share
            if granted:
                self._held[cluster] = wanted
            return granted

    def release(self, cluster: str) -> None:
        with self._lock:
            if self._held[cluster] < 1:
                return  # opened by the process that this one was forked from
            self._held[cluster] -= 1
            with contextlib.suppress(TierDown):  # the next beat says it
                self._write(cluster, self._held[cluster], -1)
            if not self._held[cluster]:
                del self._held[cluster]

    def beat(self) -> None:
        """Say again what is held. To be called well within `lease` seconds."""
        with self._lock, contextlib.suppress(TierDown):
            for cluster, held in self._held.items():
                self._write(cluster, held, -1)

    def held(self, cluster: str) -> int:
        """By this process."""
        return self._held.get(cluster, 0)

    def _write(self, cluster: str, wanted: int, limit: int) -> bool:
        self._pause.check()
        try:
            answer: Any = self._claim(
                keys=[KEY_PREFIX + cluster], args=[self._process, wanted, limit, round(self.lease * 1000)]
            )
        except (redis.RedisError, OSError) as error:
            self._pause.failed()
            log.warning("fleet budget: %s", type(error).__name__)
            raise TierDown(f"fleet budget: {type(error).__name__}") from error
        self._pause.worked()
        return bool(answer)
