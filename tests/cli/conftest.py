"""Commands against the API as it runs: a server in a thread over a real registry."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from controlplane.cli.main import cli
from controlplane.localcloud.cloud import LocalCloud
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from tests.web.conftest import registry, shared_registry, shared_registry_url
from tests.web.site import SECRET, TOKENS, Site

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


@pytest.fixture(scope="session")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the product's processes on a local cloud. Terraform only says its version."""
    folder = tmp_path_factory.mktemp("harness")
    migrations = folder / "migrations"
    migrations.mkdir()
    (migrations / "0001_note.sql").write_text("CREATE TABLE app.note (id bigint PRIMARY KEY);")
    terraform = folder / "terraform"
    terraform.write_text('#!/bin/sh\necho \'{"terraform_version": "1.11.4"}\'\n')
    terraform.chmod(0o755)
    with LocalCloud() as cloud:
        found = cloud.environment() | {
            "PATH": os.environ["PATH"],
            "CONTROLPLANE_TENANT_MIGRATIONS": str(migrations),
            "CONTROLPLANE_TERRAFORM_BINARY": str(terraform),
            "CONTROLPLANE_STRIPE_WEBHOOK_SECRETS": SECRET,
            "CONTROLPLANE_DUTY_INTERVAL": "1",
        }
        with Registry(found["CONTROLPLANE_REGISTRY_URL"]) as opened, opened.connection() as conn:
            schema_version.upgrade(conn)
        yield found
