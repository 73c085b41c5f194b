"""Both sides of the contract as they ship: what the workers publish and the API answers, read here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from werkzeug.serving import make_server

from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import route
from controlplane.store.registry import Registry
from controlplane.workers.providers.config_cache import RedisConfigCache
from dataplane.control_plane import ControlPlaneTier
from dataplane.errors import Suspended, UnknownHost
from dataplane.invalidations import InvalidationListener
from dataplane.memory import Policy
from dataplane.resolver import Resolver
from dataplane.tenant_config import LIFETIME_SECONDS, MAX_SECONDS, Status, TenantConfig
from dataplane.tiers import RedisTier, TierDown
from tests.dataplane.resolving import eventually
from tests.dataplane.tiers import config
from tests.web.site import KEY, KEY_ID, TOKENS, Site

HOST = "acme.tenants.example"
KEYS = {KEY_ID: KEY}


@pytest.fixture
def publisher(cache: ValkeyServer) -> Iterator[RedisConfigCache]:
    publisher = RedisConfigCache(cache.url, [(KEY_ID, KEY)])
    yield publisher
    publisher.close()


def undated(found: TenantConfig | None) -> TenantConfig:
    """Without the times of its issue, which was a moment ago."""
    assert found is not None
    assert found.not_after == found.issued_at + LIFETIME_SECONDS
    assert abs(found.issued_at - time.time()) < 600
    return replace(found, issued_at=0, not_after=MAX_SECONDS)


def test_what_the_workers_publish_is_served(cache: ValkeyServer, publisher: RedisConfigCache) -> None:
    tier = RedisTier.from_url(cache.url, KEYS)
    assert publisher.publish(config(HOST, 3).to_payload())
    assert undated(tier.read(HOST)) == config(HOST, 3)
    publisher.remove(HOST, epoch=4)
    gone = tier.read(HOST)
    assert gone is not None
    assert gone.status is Status.GONE
    with pytest.raises(UnknownHost):
        Resolver(cache=tier).resolve(HOST)


def test_what_the_workers_change_is_noticed(cache: ValkeyServer, publisher: RedisConfigCache) -> None:
    resolver = Resolver(
        cache=RedisTier.from_url(cache.url, KEYS),
        invalidations=InvalidationListener(cache.url),
        policy=Policy(ttl=600, jitter=0),
    )
    resolver.start()
    try:
        eventually(lambda: resolver._hearing)
        publisher.publish(config(HOST, 3).to_payload())
        resolver.resolve(HOST)
        publisher.publish(config(HOST, 4, status=Status.SUSPENDED, database=None).to_payload())
        eventually(lambda: is_suspended(resolver), seconds=2)
    finally:
        resolver.close()


def is_suspended(resolver: Resolver) -> bool:
    try:
        resolver.resolve(HOST)
    except Suspended:
        return True
    return False


def test_what_the_api_answers_is_understood(registry: Registry) -> None:
    site = Site(registry)
    tenant_id = site.found("sub_1")
    payload = config(HOST, tenant_id=tenant_id).to_payload()
    with registry.connection() as conn, conn.transaction():
        epoch = route.decide(conn, HOST, tenant_id, {k: v for k, v in payload.items() if k != "epoch"})
    server = make_server("127.0.0.1", 0, site.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    tier = ControlPlaneTier(url, TOKENS["dataplane"], KEYS, pause=0.0)
    stranger = ControlPlaneTier(url, "not a token", KEYS, pause=0.0)
    lost = ControlPlaneTier(url + "/elsewhere", TOKENS["dataplane"], KEYS, pause=0.0)
    try:
        assert undated(tier.read(HOST)) == config(HOST, epoch, tenant_id=tenant_id)
        assert tier.read("nobody.tenants.example") is None
        assert tier.read("localhost") is None, "which the control plane does not take for a host"
        for wrong in (stranger, lost):
            with pytest.raises(TierDown):
                wrong.read(HOST)
    finally:
        for each in (tier, stranger, lost):
            each.close()
        server.shutdown()
        thread.join()
        server.server_close()
