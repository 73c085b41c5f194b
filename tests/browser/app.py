"""The example application as a running process, and requests to it that no browser would send."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.localcloud.servers.process import (
    Child,
    accepts,
    free_port,
    spawn,
)
from tests.browser.package import require


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


class App:
    """`next start` on 127.0.0.1, in a session of its own: killing it must take `next-server` along."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self._log = log
        self._child: Child = spawn(
            "next start",
            [
                require("node", "nodejs (20 or newer)"),
                folder / "node_modules" / "next" / "dist" / "bin" / "next",
                # Not "127.0.0.1": Next.js then takes its own rewrites for another server's.
                *("start", "--hostname", "localhost", "--port", str(self.port)),
            ],
            log=log,
            env={
                **environment,
                "NEXT_TELEMETRY_DISABLED": "1",
                "NODE_ENV": "production",
                "NODE_OPTIONS": "--dns-result-order=ipv4first",
            },
            cwd=folder / "example",
        )
        self._child.wait_until(lambda: accepts(self.port))

    def get(self, host: str, path: str = "/", **headers: str) -> Answer:
        return self.request("GET", host, path, headers)

    def request(
        self, method: str, host: str, path: str, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> Answer:
        """One request with exactly this Host header. Names in `headers` with `_` for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host.encode("latin-1"))
            for name, value in (headers or {}).items():
                connection.putheader(name.replace("_", "-"), value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body.encode())
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read().decode(errors="replace"))
        finally:
            connection.close()

    def url(self, host: str, path: str = "/") -> str:
        return f"http://{host}:{self.port}{path}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self._child.stop()
