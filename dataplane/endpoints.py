"""Sends the bytes for a database's endpoint elsewhere, while its name stays what it is.

On one machine the endpoint names of an emulated cloud resolve to nothing; a file maps each
`host:port` to the address that stands in for it. libpq takes the address as `hostaddr` and goes on
using the name for TLS and passwords. Production has no such file.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class EndpointMap:
    """`path`: a JSON file `{"host:port": "address:port"}`, read again whenever it changes."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError where the file can't be read or is not such a map."""
        self._path = path
        self._seen = self._stamp()
        self._map = self._read()

    def address(self, host: str, port: int) -> tuple[str, int] | None:
        """(IP address, port) to connect to instead; None: connect to what the name resolves to."""
        try:
            seen = self._stamp()
            if seen != self._seen:
                self._map = self._read()
                self._seen = seen
        except ValueError as error:  # it is being written at this moment: the last good one holds
            log.warning("%s", error)
        return self._map.get(f"{host}:{port}")

    def _stamp(self) -> tuple[int, int, int]:
        try:
            state = os.stat(self._path)
        except OSError as error:
            raise ValueError(f"endpoint map {self._path}: {error.strerror}") from error
        return state.st_mtime_ns, state.st_size, state.st_ino

    def _read(self) -> dict[str, tuple[str, int]]:
        try:
            return _entries(json.loads(self._path.read_text()))
        except (OSError, ValueError) as error:
            raise ValueError(f"endpoint map {self._path}: {error}") from error


def _entries(document: object) -> dict[str, tuple[str, int]]:
    if not isinstance(document, dict):
        raise ValueError("expected an object")  # noqa: TRY004  # bad data, not a caller's mistake
    return {str(name): _address(name, where) for name, where in document.items()}


def _address(name: str, where: object) -> tuple[str, int]:
    if isinstance(where, str):
        address, _, port = where.rpartition(":")
        if port.isdecimal() and 0 < int(port) <= 65535:
            return str(ipaddress.ip_address(address.strip("[]"))), int(port)
    raise ValueError(f"{name}: expected an IP address and a port, got {where!r}")
