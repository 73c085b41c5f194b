"""The config cache as a tier, on a real Valkey: what it says, and what it never says."""

from __future__ import annotations

import json
import time

import pytest
import redis

from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.errors import RoutingUnavailable
from dataplane.resolver import Resolver
from dataplane.tenant_config import MAX_ENTRY_BYTES, Status, cache_key, sign
from dataplane.tiers import (
    EntryRefused,
    RedisTier,
    TierDown,
)
from tests.dataplane.resolving import HOST, entry, frozen
from tests.dataplane.tenants import KEYS
from tests.dataplane.tiers import FakeTier, config


@pytest.fixture
def tier(cache: ValkeyServer) -> RedisTier:
    return RedisTier.from_url(cache.url, KEYS)


def commands(client: redis.Redis) -> int:
    return sum(stats["calls"] for name, stats in client.info("commandstats").items() if "get" in name.lower())


def test_a_cold_host_costs_one_command_and_a_warm_one_none(
    tier: RedisTier, cache_client: redis.Redis
) -> None:
    cache_client.set(cache_key(HOST), entry(config(HOST)))
    resolver = Resolver(cache=tier)
    before = commands(cache_client)
    for _ in range(50):
        assert resolver.resolve(HOST).slug == "acme"
    assert commands(cache_client) - before == 1


def test_a_tombstone_is_an_entry_and_nothing_is_none(tier: RedisTier, cache_client: redis.Redis) -> None:
    cache_client.set(cache_key(HOST), entry(config(HOST, 3, status=Status.GONE, database=None)))
    gone = tier.read(HOST)
    assert gone is not None
    assert (gone.status, gone.epoch) == (Status.GONE, 3)
    assert tier.read("nobody.example") is None


@pytest.mark.parametrize(
    "planted",
    [
        entry(config("other.example")),  # B's blob under A's key
        entry(config(HOST))[:-3],
        sign(config(HOST).to_payload(), key_id="k1", key=b"another key of the same name, stolen"),
        json.dumps(config(HOST).to_payload()),
        "x" * (MAX_ENTRY_BYTES + 1),
    ],
    ids=["another host's", "cut", "wrong key", "unsigned", "too long"],
)
def test_what_was_not_signed_for_this_host_serves_nobody(
    tier: RedisTier, cache_client: redis.Redis, planted: str
) -> None:
    cache_client.set(cache_key(HOST), planted)
    with pytest.raises(EntryRefused):
        tier.read(HOST)
    with pytest.raises(RoutingUnavailable):
        Resolver(cache=tier).resolve(HOST)
    assert Resolver(cache=tier, fallback=FakeTier(config(HOST))).resolve(HOST).tenant_id == "t-acme"
    assert tier.refused == 3


def test_a_key_of_another_kind_serves_nobody(tier: RedisTier, cache_client: redis.Redis) -> None:
    cache_client.lpush(cache_key(HOST), "x")
    with pytest.raises(EntryRefused):
        tier.read(HOST)


def test_a_dead_cache_costs_one_try_a_pause(cache: ValkeyServer, cache_client: redis.Redis) -> None:
    cache_client.set(cache_key(HOST), entry(config(HOST)))
    tier = RedisTier.from_url(cache.url, KEYS)
    assert tier.read(HOST) is not None
    cache.kill()
    for _ in range(3):
        with pytest.raises(TierDown):
            tier.read(HOST)
    cache.start()
    with pytest.raises(TierDown, match="a moment ago"):
        tier.read(HOST)
    time.sleep(1.05)
    assert tier.read(HOST) is None


def test_a_cache_that_hangs_costs_its_timeout_once(cache: ValkeyServer) -> None:
    tier = RedisTier.from_url(cache.url, KEYS, timeout=0.2)
    tier.read(HOST)
    with frozen(cache.pid):
        with pytest.raises(TierDown, match="Timeout"):
            tier.read(HOST)
        for _ in range(100):
            with pytest.raises(TierDown, match="a moment ago"):
                tier.read(HOST)
