"""Real servers for tests: started once for a run, when the first test asks for one.

Only what more than one folder uses is here; a folder with needs of its own has its own conftest.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from controlplane.localcloud.aws.emulator import AwsEmulator
from controlplane.localcloud.cloud import LocalCloud
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import make_data_root
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from tests.tls import TlsServer, tls_postgres

# These folders are imported as parts of `controlplane` alone; by their own names, which a string may hold as
# well, their modules would be there twice.
sys.modules |= dict.fromkeys(("workers", "localcloud"))

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # how long an example takes says how busy the machine is, and nothing else

NEWER_RELEASE = "TESTS_SCHEMA_OF"
"""Names the folder of a newer release, whose schema these tests are to run against (tests/packaging)."""

MEMORY, ROOM = Path("/dev/shm"), 4 << 30  # bytes that must be free, for the server's log of 1 GiB and more

ONE_WORKER = ("acceptance", "browser")
"""Folders whose tests share something that is dear to start: one worker of a parallel run has them all."""

LONGEST = (
    "tests/acceptance/",
    "tests/terraform/test_faults.py",
    "tests/engine/test_crash_at_every_call.py",
    "tests/terraform/test_restored.py",
    "tests/browser/",
    "tests/terraform/test_retire.py",
    "tests/provider/test_terraform.py",
    "tests/engine/test_order.py",
    "tests/faults/",
)
"""What takes minutes comes first, so that no worker is left alone with it at the end. Most of it waits: the
AWS provider looks at a cluster every half minute. So there are more workers than cores (`make test`)."""


class WholeFiles(LoadScopeScheduling):
    """A parallel run hands out whole files, so module fixtures start once. By the names of tests and not
    by xdist's groups: those have no effect under pytest 9.2, which keeps an item's name elsewhere."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        folder = file.split("/")[1]
        return folder if folder in ONE_WORKER else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return next((n for n, path in enumerate(LONGEST) if item.nodeid.startswith(path)), len(LONGEST))

    items.sort(key=rank)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles:
    return WholeFiles(config, log)


@pytest.fixture(scope="session")
def data_root() -> Iterator[Path]:
    """A folder that PostgreSQL can reach even when root runs the tests (pytest's own can't be)."""
    root = make_data_root("localcloud-tests-")
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """In memory where there is room: each database is some four hundred files, and making and deleting
    them on a disk takes longer than most tests."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    root = make_data_root("localcloud-tests-", within=MEMORY if roomy else None)
    with PostgresServer(root / "postgres") as server:
        yield server
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def tls_server() -> Iterator[TlsServer]:
    root = make_data_root("tls-tests-")
    with tls_postgres(root) as server:
        yield server
    shutil.rmtree(root)


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of the test's own without any schema, as its superuser."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def registry_template(postgres_server: PostgresServer) -> str:
    """The name of an up-to-date registry to copy: the schema's files are run once, not for each test."""
    name = "registry_template"
    url = postgres_server.create_database(name)
    with Registry(url) as opened, opened.connection() as conn:
        schema_version.upgrade(conn)
    if newer := os.environ.get(NEWER_RELEASE):
        upgrade = [sys.executable, "-m", "controlplane.cli.main", "db", "upgrade"]
        environment = {**os.environ, "CONTROLPLANE_REGISTRY_URL": url}
        subprocess.run(upgrade, cwd=newer, env=environment, check=True)
    return name


@pytest.fixture
def database_url(postgres_server: PostgresServer, registry_template: str) -> Iterator[str]:
    """A registry of the test's own, its schema up to date, as its superuser."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_server.create_database(name, template=registry_template)
    postgres_server.drop_database(name)


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    with Registry(database_url, size=16) as opened:
        yield opened


@pytest.fixture(scope="session")
def broker_server(data_root: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(data_root / "broker", maxmemory_policy="noeviction") as server:
        yield server


@pytest.fixture
def broker(broker_server: ValkeyServer) -> ValkeyServer:
    """The broker's Valkey, emptied."""
    broker_server.start()  # a test may have killed it
    broker_server.flush()
    return broker_server


@pytest.fixture(scope="session")
def cache_server(data_root: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(data_root / "cache", maxmemory_policy="allkeys-lru") as server:
        yield server


@pytest.fixture
def cache(cache_server: ValkeyServer) -> ValkeyServer:
    """The config cache's Valkey, emptied."""
    cache_server.start()
    cache_server.flush()
    return cache_server


@pytest.fixture(scope="session")
def aws_emulator(data_root: Path) -> Iterator[AwsEmulator]:
    with AwsEmulator(data_root / "aws") as emulator:
        yield emulator


@pytest.fixture
def aws(aws_emulator: AwsEmulator, monkeypatch: pytest.MonkeyPatch) -> AwsEmulator:
    """The emulated account, and an environment in which boto3 and Terraform find it. It is shared
    by all tests: name things so that no other test has them."""
    for name, value in aws_emulator.environ().items():
        monkeypatch.setenv(name, value)
    return aws_emulator


@pytest.fixture(scope="session")
def local_cloud() -> Iterator[LocalCloud]:
    """All of it at once, shared by the tests of a run; `environment()` leads to it."""
    with LocalCloud() as cloud:
        yield cloud
