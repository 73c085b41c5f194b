"""A fake server of ours (AWS, Stripe, Cloudflare) as a child process that speaks HTTP.

They share one shape: `python -m controlplane.localcloud.<name> --port P --data-dir D`, on 127.0.0.1, and
`GET /_localcloud/health` answers 200 once they serve.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self
from urllib.error import URLError

from controlplane.localcloud.servers.process import (
    Child,
    ServiceError,
    free_port,
    spawn,
)

START_ATTEMPTS = 5


class HttpService:
    """`module` on 127.0.0.1. `port` 0 takes a free one and keeps it over restarts. `environment`
    adds to this process's own and is the way for secrets; `arguments` show in the process list."""

    def __init__(
        self,
        module: str,
        data_dir: Path,
        port: int = 0,
        *,
        arguments: Sequence[str | Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = module.rpartition(".")[2]
        self.data_dir = data_dir.resolve()
        self.port = port
        self._module = module
        self._arguments = tuple(arguments)
        self._environment = dict(environment or {})
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServiceError(f"{self.name}: not started")
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
                self.name,
                [
                    sys.executable,
                    *("-m", self._module, "--port", str(port), "--data-dir", self.data_dir),
                    *self._arguments,
                ],
                log=self.data_dir / f"{self.name}.log",
                env={**os.environ, **self._environment},
                cwd=Path(__file__).parents[3],  # so that `-m` finds us in a checkout, too
            )
            try:
                child.wait_until(partial(_healthy, port))
            except ServiceError as error:
                if attempt < attempts and "in use" in str(error):
                    continue
                raise
            self.port, self._child = port, child
            return

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """What a power cut does."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_localcloud/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, TimeoutError, ConnectionError):
        return False
