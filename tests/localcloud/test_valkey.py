"""The broker and the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from controlplane.localcloud.servers.valkey import ValkeyServer


def test_a_full_broker_refuses_and_a_full_cache_forgets(data_root: Path) -> None:
    seen = {}
    for policy in ("noeviction", "allkeys-lru"):
        folder = data_root / f"full-{policy}"
        with (
            ValkeyServer(folder, maxmemory_policy=policy, maxmemory="3mb") as server,
            redis.Redis.from_url(server.url) as client,
        ):
            try:
                for number in range(400):
                    client.set(f"key:{number}", "x" * 10_000)
                seen[policy] = "forgot" if client.dbsize() < 400 else "held"
            except redis.OutOfMemoryError:
                seen[policy] = "refused"
    assert seen == {"noeviction": "refused", "allkeys-lru": "forgot"}


def test_nothing_survives_a_restart(broker: ValkeyServer) -> None:
    with redis.Redis.from_url(broker.url) as client:
        client.set("key", "value")
    port = broker.port
    broker.kill()
    assert not broker.running
    broker.start()
    assert broker.port == port
    with redis.Redis.from_url(broker.url) as client:
        assert client.get("key") is None


def test_flush_forgets_everything(cache: ValkeyServer) -> None:
    with redis.Redis.from_url(cache.url) as client:
        client.set("key", "value")
        cache.flush()
        assert client.dbsize() == 0


def test_a_port_that_another_server_has_is_not_mistaken_for_ours(
    broker: ValkeyServer, data_root: Path
) -> None:
    with pytest.raises(RuntimeError, match="in use"):
        ValkeyServer(data_root / "second", port=broker.port).start()
