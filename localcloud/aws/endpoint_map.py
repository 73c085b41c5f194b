"""The file that says where an emulated endpoint really is.

A cluster's endpoint has the name that AWS would give it, and no DNS server here knows it. Whoever
connects looks the name up in this JSON file, `{"<host>:<port>": "127.0.0.1:<port>"}`, and hands
libpq the address as `hostaddr`: the name stays the name. In production there is no file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


class EndpointMap:
    """Writes the whole file anew at every change, by rename: a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, str] = {}
        self._write()

    def put(self, entries: Mapping[str, str]) -> None:
        """Add these endpoints, or move them."""
        self._entries.update(entries)
        self._write()

    def remove_target(self, target: str) -> None:
        """Forget every endpoint that leads to this address."""
        self._entries = {name: address for name, address in self._entries.items() if address != target}
        self._write()

    def _write(self) -> None:
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        draft.write_text(json.dumps(self._entries, indent=2, sort_keys=True) + "\n")
        draft.replace(self.path)
