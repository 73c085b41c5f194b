"""How many connections: a tenant's own limit, the budget, and who stands outside of it."""

from __future__ import annotations

import threading
import time

import pytest

from dataplane.checkout import Limits
from dataplane.errors import (
    PoolExhausted,
)
from dataplane.pools import KeyedPools
from tests.dataplane.reading import read
from tests.dataplane.tenants import Logins, TenantDatabase


def test_a_tenant_has_its_own_limit_and_a_clear_error(logins: Logins, tenants: list[TenantDatabase]) -> None:
    config = tenants[0].config(pool_size=2)
    pools = KeyedPools(logins.connector(), limits=Limits(waiting=1), timeout=0.2)
    with pools.connection(config), pools.connection(config):
        with pytest.raises(PoolExhausted, match="none of its connections became free in time"):
            read(pools, config)
        pools._timeout = 60
        waiter = threading.Thread(target=read, args=(pools, config))
        waiter.start()
        time.sleep(0.1)
        with pytest.raises(PoolExhausted, match="1 requests are in line already"):
            read(pools, config)
        assert read(pools, tenants[1].config())[0] == tenants[1].name, "others have theirs"
    waiter.join(60)
    assert pools.statistics.refused == 2
    pools.close()


def test_dedicated_tenants_stand_outside_the_budget(logins: Logins, tenants: list[TenantDatabase]) -> None:
    shared, vip, _ = tenants
    pools = KeyedPools(logins.connector(), limits=Limits(budget=1), timeout=0.2)
    with pools.connection(shared.config()):
        with pools.connection(vip.config(dedicated=True)):
            assert pools.open_connections == (1, 1)
        with pytest.raises(PoolExhausted):
            read(pools, tenants[2].config())
    pools.close()


def test_idle_connections_are_closed_by_the_one_keeper(logins: Logins, tenants: list[TenantDatabase]) -> None:
    pools = KeyedPools(logins.connector(), idle=0.2)
    before = threading.active_count()
    for tenant in tenants:
        read(pools, tenant.config())
    assert threading.active_count() <= before + 1, "no thread per tenant"
    until = time.monotonic() + 60
    while pools.open_connections != (0, 0):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not pools._scheduler.tenants
    reaper = pools._reaper
    assert reaper is not None
    pools.close()
    reaper.join(60)
    assert not reaper.is_alive()
