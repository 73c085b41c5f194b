"""The data plane's endpoint map, and database servers that are asleep, silent or gone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.browser.tenants import DATABASE_HOST, DATABASE_PORT


class EndpointFile:
    """`path`: replaced as a whole at each change, so that no reader sees half of it."""

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        self._entries = {f"{DATABASE_HOST}:{DATABASE_PORT}": f"127.0.0.1:{port}"}
        self._write()

    def add(self, host: str, port: int) -> None:
        self._entries[f"{host}:{DATABASE_PORT}"] = f"127.0.0.1:{port}"
        self._write()

    def _write(self) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self._entries))
        os.replace(beside, self.path)


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and says nothing, as a paused cluster's proxy does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]
