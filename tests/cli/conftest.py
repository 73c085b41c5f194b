"""Commands against the API as it runs: a server in a thread over a real registry."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from controlplane.cli.main import cli
from tests.web.conftest import registry, shared_registry, shared_registry_url
from tests.web.site import TOKENS, Site

__all__ = ["registry", "shared_registry", "shared_registry_url"]


@dataclass
class Desk:
    """Where somebody of support sits. `site`: what the API serves."""

    site: Site
    url: str
    role: str = "operator"

    @property
    def env(self) -> dict[str, str]:
        return {"CONTROLPLANE_API_URL": self.url, "CONTROLPLANE_API_TOKEN": TOKENS[self.role]}

    def run(self, *args: object) -> Result:
        return CliRunner().invoke(cli, [str(arg) for arg in args], env=self.env)

    def ok(self, *args: object) -> str:
        done = self.run(*args)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    def json(self, *args: object) -> Any:
        """What --json prints: one value and nothing else on stdout."""
        return json.loads(self.ok(*args, "--json"))


@pytest.fixture
def desk(registry: Any) -> Iterator[Desk]:
    site = Site(registry)
    server = make_server("127.0.0.1", 0, site.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Desk(site, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()
