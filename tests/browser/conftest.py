"""The example application over real servers, and Debian's Chromium to look at it with."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from controlplane.localcloud.aws.account import session_of
from controlplane.localcloud.aws.emulator import AwsEmulator
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.valkey import ValkeyServer
from tests.browser.app import App
from tests.browser.endpoints import EndpointFile, numbering_server
from tests.browser.package import copy_and_build, require
from tests.browser.tenants import KEY, KEY_ID, Platform, Tenant
from tests.harness.access import app_role

ZONE = "tenants.localhost"
BUDGET = 4
CLUSTER_BUDGET = 40


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_and_build(tmp_path_factory.mktemp("nextjs"))


@pytest.fixture(scope="session")
def config_cache(data_root: Path) -> Iterator[ValkeyServer]:
    """One of our own, since a test stops it and others of the run empty theirs."""
    with ValkeyServer(data_root / "browser-cache", maxmemory_policy="allkeys-lru") as server:
        yield server


@pytest.fixture(scope="session")
def platform(
    postgres_server: PostgresServer, config_cache: ValkeyServer, aws_emulator: AwsEmulator
) -> Iterator[Platform]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_emulator.environ().items():
            patch.setenv(name, value)
        yield Platform(postgres_server, config_cache)


@pytest.fixture(scope="session")
def acme(platform: Platform) -> Tenant:
    hosts = (f"acme.{ZONE}", "notes.acme.example")
    tenant = Tenant("t-browseracme2", "acme", hosts, ("Acme canary one", "Acme canary two"))
    platform.create(tenant)
    return tenant


@pytest.fixture(scope="session")
def globex(platform: Platform) -> Tenant:
    tenant = Tenant("t-browserglobe", "globex", (f"globex.{ZONE}",), ("Globex canary",))
    platform.create(tenant)
    return tenant


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> EndpointFile:
    return EndpointFile(tmp_path_factory.mktemp("endpoints") / "map.json", postgres_server.port)


@pytest.fixture(scope="session")
def app(
    package: Path,
    platform: Platform,
    aws_emulator: AwsEmulator,
    endpoints: EndpointFile,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[App]:
    with numbering_server() as rates_url:
        environment = {
            "PATH": os.environ["PATH"],
            **aws_emulator.environ(),
            **session_of(app_role(), aws_emulator.environ()),
            "DATAPLANE_CONFIG_KEYS": f"{KEY_ID}:{base64.b64encode(KEY).decode()}",
            "DATAPLANE_CACHE_URL": platform.cache.url,
            "DATAPLANE_PLATFORM_ZONES": ZONE,
            "DATAPLANE_RELEASES": "0002..0003",
            "DATAPLANE_ENDPOINT_MAP": str(endpoints.path),
            "DATAPLANE_SSLMODE": "disable",
            "DATAPLANE_POOL_BUDGET": str(BUDGET),
            "DATAPLANE_CLUSTER_BUDGET": str(CLUSTER_BUDGET),
            "DATAPLANE_WAKE_SECONDS": "10",
            "SESSION_SECRET": "the browser tests' session secret, long enough",
            "RATES_URL": rates_url,
        }
        running = App(package, environment, tmp_path_factory.mktemp("app") / "next.log")
        yield running
        running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a file, not for the run: while it lives, Playwright keeps an event loop running in this
    thread, in which no later test of the same process could start one of its own."""
    chromium = require("chromium", "chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--host-resolver-rules=MAP *.example 127.0.0.1, MAP *.localhost 127.0.0.1",
            ],
        )
        yield launched
        launched.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor with no cookies yet."""
    context = browser.new_context()
    context.set_default_timeout(15_000)
    yield context
    context.close()
