"""A running Cloudflare fake server and an SDK client for it, for provider tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudflare
import httpx
from werkzeug.serving import make_server

from controlplane.localcloud.cloudflare.client import CloudflareControl
from controlplane.localcloud.cloudflare.server import make_app
from controlplane.localcloud.cloudflare.zone import Timings, Zone
from controlplane.localcloud.servers.fake_http.server import QuietHandler
from controlplane.localcloud.servers.fake_http.store import ObjectStore
from controlplane.localcloud.servers.http_service import HttpService

TOKEN = "canary-token-0123456789abcdefghijkl"
ZONE = "023e105f4ecef8ad9ca31a8372d0c353"
QUICK = Timings(records=0.1, ownership=0.2, certificate=0.4)


@dataclass
class CloudflareFixture:
    """`url`: where the fake server listens; `base` is what SDKs are pointed at."""

    url: str
    client: cloudflare.Cloudflare
    control: CloudflareControl
    service: HttpService | None = None

    @property
    def base(self) -> str:
        return f"{self.url}/client/v4"

    def request(
        self, method: str, path: str = "", *, token: str = TOKEN, zone: str = ZONE, **more: Any
    ) -> httpx.Response:
        """A bare call to the zone's custom hostnames, and what came back."""
        return httpx.request(
            method,
            f"{self.base}/zones/{zone}/custom_hostnames{path}",
            headers={"Authorization": f"Bearer {token}"},
            **more,
        )

    def create(self, host: str, **more: Any) -> Any:
        wanted = {"ssl": {"method": "http", "type": "dv"}, **more}
        return self.client.custom_hostnames.create(zone_id=ZONE, hostname=host, **wanted)

    def get(self, key: str) -> Any:
        return self.client.custom_hostnames.get(key, zone_id=ZONE)


@contextmanager
def run_cloudflare(data_dir: Path, *arguments: str) -> Iterator[CloudflareFixture]:
    """As it is run outside of tests: a process of its own."""
    service = HttpService(
        "controlplane.localcloud.cloudflare",
        data_dir,
        arguments=["--zone-id", ZONE, *arguments],
        environment={"LOCALCLOUD_CLOUDFLARE_TOKEN": TOKEN},
    )
    with service, _fixture(service.url) as fixture:
        fixture.service = service
        yield fixture


@contextmanager
def run_cloudflare_here(**settings: Any) -> Iterator[CloudflareFixture]:
    """In a thread, for tests that each want a new one. `settings` as in
    `controlplane.localcloud.cloudflare.zone.Zone`."""
    store = ObjectStore(None)
    zone = Zone(id=ZONE, token=TOKEN, store=store, **{"timings": QUICK, **settings})
    server = make_server("127.0.0.1", 0, make_app(zone), threaded=True, request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with _fixture(f"http://127.0.0.1:{server.server_port}") as fixture:
            yield fixture
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        store.close()


@contextmanager
def _fixture(url: str) -> Iterator[CloudflareFixture]:
    client = cloudflare.Cloudflare(api_token=TOKEN, base_url=f"{url}/client/v4", max_retries=0)
    with client, CloudflareControl(url) as control:
        yield CloudflareFixture(url, client, control)


def eventually(probe: Callable[[], Any], *, timeout: float = 60) -> Any:
    """What `probe` returns once it is true."""
    deadline = time.monotonic() + timeout
    while not (found := probe()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return found
