"""Invalidations over a real Valkey: heard in milliseconds, missed knowingly."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.errors import RoutingUnavailable, Suspended, UnknownHost
from dataplane.invalidations import InvalidationListener
from dataplane.memory import Policy
from dataplane.resolver import Resolver
from dataplane.tenant_config import INVALIDATION_CHANNEL, Invalidation, Status, TenantConfig, cache_key
from dataplane.tiers import RedisTier
from tests.dataplane.resolving import HOST, entry, eventually, frozen
from tests.dataplane.tenants import KEYS
from tests.dataplane.tiers import config


def publish(client: redis.Redis, of: TenantConfig) -> None:
    client.set(cache_key(of.host), entry(of))
    client.publish(INVALIDATION_CHANNEL, json.dumps({"host": of.host, "epoch": of.epoch, "kind": "config"}))


@pytest.fixture
def watching(cache: ValkeyServer) -> Iterator[Resolver]:
    policy = Policy(ttl=600, jitter=0, unwatched_ttl=0.3, retry=0.2)
    resolver = Resolver(
        cache=RedisTier.from_url(cache.url, KEYS),
        invalidations=InvalidationListener(cache.url, silence=0.6, reconnect=0.05),
        policy=policy,
    )
    resolver.start()
    eventually(lambda: resolver._hearing)
    yield resolver
    resolver.close()


def test_a_change_is_seen_long_before_its_entry_is_old(watching: Resolver, cache_client: redis.Redis) -> None:
    publish(cache_client, config(HOST))
    assert watching.resolve(HOST).epoch == 1
    for epoch in range(2, 102):
        publish(cache_client, config(HOST, epoch))
        eventually(lambda epoch=epoch: watching.resolve(HOST).epoch == epoch)  # type: ignore[misc]


def test_subscribers_hear_of_credentials(watching: Resolver, cache_client: redis.Redis) -> None:
    heard: list[Invalidation] = []
    watching.subscribe(heard.append)
    cache_client.publish(INVALIDATION_CHANNEL, b"not an invalidation")
    cache_client.publish(
        INVALIDATION_CHANNEL, json.dumps({"kind": "credential", "tenant_id": "t-a", "host": "", "epoch": 1})
    )
    eventually(lambda: heard == [Invalidation("credential", "", 1, "t-a")])


def test_redis_killed_under_load_takes_no_known_tenant_offline(
    watching: Resolver, cache: ValkeyServer, cache_client: redis.Redis
) -> None:
    hosts = [f"h{number}.example" for number in range(20)]
    for host in hosts:
        publish(cache_client, config(host))
        watching.resolve(host)
    cache.kill()
    for _ in range(200):
        for host in hosts:
            assert watching.resolve(host).epoch == 1
    eventually(lambda: not watching._hearing)
    for host in hosts:
        assert watching.resolve(host).epoch == 1
    with pytest.raises(RoutingUnavailable):
        watching.resolve("cold.example")
    cache.start()
    publish(cache_client, config(hosts[0], 2, status=Status.SUSPENDED))

    def suspended() -> bool:
        try:
            watching.resolve(hosts[0])
        except Suspended:
            return True
        return False

    eventually(suspended)
    assert watching.resolve(hosts[1]).epoch == 1, "lost with the cache, without a tombstone"


def test_a_listener_that_hears_nothing_knows_it(watching: Resolver, cache: ValkeyServer) -> None:
    with frozen(cache.pid):
        eventually(lambda: not watching._hearing)
    eventually(lambda: watching._hearing)


def test_a_flushed_cache_is_a_404_for_the_unknown_only(watching: Resolver, cache_client: redis.Redis) -> None:
    publish(cache_client, config(HOST))
    watching.resolve(HOST)
    cache_client.flushall()
    assert watching.resolve(HOST).epoch == 1
    with pytest.raises(UnknownHost):
        watching.resolve("cold.example")


@pytest.mark.parametrize(
    ("data", "invalidation"),
    [
        (b'{"host": "a.example", "epoch": 3}', Invalidation("config", "a.example", 3, "")),
        (b'{"host": "a.example", "epoch": 3, "more": 1}', Invalidation("config", "a.example", 3, "")),
        (b'{"kind": "credential", "tenant_id": "t-a"}', Invalidation("credential", "", 0, "t-a")),
        (
            b'{"kind": "credential", "tenant_id": "t-a", "host": null}',
            Invalidation("credential", "", 0, "t-a"),
        ),
        (b'{"kind": "later"}', None),
        (b'{"host": 7, "epoch": 3}', None),
        (b'{"host": "a", "epoch": "3"}', None),
        (b'{"host": "a", "epoch": true}', None),
        (b'{"host": "a", "epoch": -1}', None),
        (b'{"host": "a"}', Invalidation("config", "a", 0, "")),
        (b"acme.example", None),
        (
            Invalidation("config", "a.example", 7, "t-a").encode(),
            Invalidation("config", "a.example", 7, "t-a"),
        ),
        (b"[1]", None),
        (b"\xff", None),
        (b"[" * 4000, None),
        (b" " * 5000, None),
    ],
)
def test_notices_are_read_or_passed_over(data: bytes, invalidation: Invalidation | None) -> None:
    assert Invalidation.decode(data) == invalidation
