"""Three tenants that all tests of this folder share, and what leads to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from dataplane.pools import KeyedPools
from localcloud.postgres import PostgresServer
from localcloud.valkey import ValkeyServer
from tests.dataplane.tenants import Logins, TenantDatabase, create_tenant


@pytest.fixture(scope="session")
def tenants(postgres_server: PostgresServer) -> list[TenantDatabase]:
    return [create_tenant(postgres_server, slug) for slug in ("acme", "globex", "initech")]


@pytest.fixture
def logins(tenants: list[TenantDatabase]) -> Logins:
    logins = Logins()
    logins.add(*tenants)
    return logins


@pytest.fixture
def pools(logins: Logins) -> Iterator[KeyedPools]:
    pools = KeyedPools(logins.connector())
    yield pools
    pools.close()


@pytest.fixture
def cache_client(cache: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(cache.url, protocol=2) as client:
        yield client
