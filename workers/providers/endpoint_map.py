"""Where a database endpoint's bytes really go, on a machine that has no RDS.

The emulated AWS names cluster endpoints that resolve nowhere. Rewriting the host would break what
depends on the name (TLS verification, the secret's JSON, the tenant's routing entry), so the name
stays and only libpq's `hostaddr` and `port` change. Production leaves the map out.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from controlplane.domain.errors import Invalid

MAX_BYTES = 4 * 1024 * 1024


class EndpointMap:
    """A JSON object in a file, `{"<host>:<port>": "<IP address>:<port>"}`, reread when it changes.

    `path` None maps nothing. Its writer replaces the file as a whole (write beside it, rename), so
    no half of it is ever read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._addresses: dict[str, tuple[str, int]] = {}

    def resolve(self, host: str, port: int) -> dict[str, str | int]:
        """The libpq parameters `hostaddr` and `port` that lead there; empty where DNS does.

        Raises Invalid, naming the file and the entry, where the file can't be read or understood.
        """
        if self._path is None:
            return {}
        self._refresh(self._path)
        address = self._addresses.get(f"{host}:{port}")
        return {} if address is None else {"hostaddr": address[0], "port": address[1]}

    def _refresh(self, path: Path) -> None:
        try:
            observed = path.stat()
            stamp = (observed.st_mtime_ns, observed.st_size, observed.st_ino)
            if stamp == self._stamp:
                return
            if observed.st_size > MAX_BYTES:
                raise Invalid(f"endpoint map {path}", f"at most {MAX_BYTES} bytes", got=observed.st_size)
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise Invalid(f"endpoint map {path}", f"a readable file ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise Invalid(f"endpoint map {path}", "UTF-8") from error
        self._addresses = _parse(text, path)
        self._stamp = stamp


def _parse(text: str, path: Path) -> dict[str, tuple[str, int]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"endpoint map {path}", f"JSON ({error})") from error
    if not isinstance(entries, dict):
        raise Invalid(f"endpoint map {path}", "a JSON object", got=type(entries).__name__)
    return {
        endpoint: _address(target, f"endpoint map {path}: {endpoint}") for endpoint, target in entries.items()
    }


def _address(target: object, field: str) -> tuple[str, int]:
    expected = '"<IP address>:<port>"'
    host, _, port = target.rpartition(":") if isinstance(target, str) else ("", "", "")
    try:
        address, number = str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError as error:
        raise Invalid(field, expected, got=target) from error
    if not 0 < number < 65536:
        raise Invalid(field, expected, got=target)
    return address, number
