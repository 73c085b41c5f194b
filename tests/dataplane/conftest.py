"""Three tenants that all tests of this folder share, and what leads to them."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
import redis

from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.credentials import StaticCredentials
from dataplane.pools import KeyedPools
from dataplane.resolver import Resolver
from dataplane.settings import DataPlane, from_environment
from tests.dataplane.proxy import Proxy
from tests.dataplane.resolving import HOST, POLICY
from tests.dataplane.tenants import KEYS, ZONE, Logins, TenantDatabase, create_tenant
from tests.dataplane.tiers import Clock, FakeTier, config


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


@pytest.fixture
def dataplane(
    cache: ValkeyServer, cache_client: redis.Redis, logins: Logins, tenants: list[TenantDatabase]
) -> Iterator[DataPlane]:
    """The data plane from its environment, all three tenants published."""
    for tenant in tenants:
        cache_client.set(*tenant.entry())
    dataplane = from_environment(
        {
            "DATAPLANE_CONFIG_KEYS": "k1:" + base64.b64encode(KEYS["k1"]).decode(),
            "DATAPLANE_CACHE_URL": cache.url,
            "DATAPLANE_PLATFORM_ZONES": ZONE,
            "DATAPLANE_SSLMODE": "prefer",
        },
        credentials=StaticCredentials(logins.logins),
    )
    yield dataplane
    dataplane.close()


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    proxy = Proxy(postgres_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def near() -> FakeTier:
    """The tier that is asked first."""
    return FakeTier(config(HOST))


@pytest.fixture
def far() -> FakeTier:
    """The tier that has the last word."""
    return FakeTier(config(HOST))


@pytest.fixture
def resolver(near: FakeTier, far: FakeTier, clock: Clock) -> Iterator[Resolver]:
    resolver = Resolver(cache=near, fallback=far, policy=POLICY, clock=clock)
    yield resolver
    resolver.close()
