from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.store.registry import Registry
from tests.migrations.fleet import Fleet, context

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def make_fleet(postgres_server: PostgresServer, registry: Registry, database_url: str) -> Iterator[MakeFleet]:
    """`make_fleet(5, clusters=2)`: so many tenants, none of them migrated yet."""
    made: list[Fleet] = []

    def make(count: int, *, clusters: int = 1, lease_seconds: float = 30.0, **databases: object) -> Fleet:
        ctx = context(database_url, lease_seconds=lease_seconds, **databases)
        fleet = Fleet(postgres_server, registry, ctx, clusters)
        made.append(fleet)
        fleet.add(count, release=None)
        return fleet

    yield make
    for fleet in made:
        fleet.close()
