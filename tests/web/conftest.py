"""One registry for the whole folder, emptied before each test: a database of its own for each of
these many small tests would take most of their time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from controlplane.store import schema_version
from controlplane.store.registry import Registry
from localcloud.postgres import PostgresServer
from tests.web.site import Site


@pytest.fixture(scope="session")
def shared_registry_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = f"web_{uuid.uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def shared_registry(shared_registry_url: str) -> Iterator[Registry]:
    with Registry(shared_registry_url, size=8) as opened:
        with opened.connection() as conn:
            schema_version.upgrade(conn)
        yield opened


@pytest.fixture
def registry(shared_registry: Registry) -> Registry:
    with shared_registry.connection() as conn:
        tables = conn.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') AS names FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'registry_schema'"
        ).fetchone()
        assert tables is not None
        conn.execute(f"TRUNCATE {tables['names']} RESTART IDENTITY CASCADE".encode())
    return shared_registry


@pytest.fixture
def site(registry: Registry) -> Site:
    return Site(registry)
