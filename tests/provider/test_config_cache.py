"""What `ports.ConfigCache` promises, of Redis and of the fake alike; then what only Redis can show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from controlplane.domain.errors import Invalid, Retryable
from controlplane.localcloud.fakes.config_cache import ENTRY, FakeConfigCache
from controlplane.localcloud.fakes.world import World
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.workers.providers.config_cache import TOMBSTONE_SECONDS, RedisConfigCache
from dataplane.tenant_config import (
    INVALIDATION_CHANNEL,
    LIFETIME_SECONDS,
    REISSUE_SECONDS,
    DatabaseAddress,
    Invalidation,
    Status,
    TenantConfig,
    cache_key,
    issued,
    sign,
    undated,
    verify,
)

AnyCache = RedisConfigCache | FakeConfigCache
KEY = ("k1", b"\x01" * 32)
OLD_KEY = ("k0", b"\x02" * 32)
HOST = "acme.tenants.example"
TENANT, PLACEMENT = "t-aaaaaaaaaaaa", "p-aaaaaaaaaaaa"
SECRET = f"arn:aws:secretsmanager:eu-central-1:123456789012:secret:placements/{PLACEMENT}/app-AbCdEf"
ROLE = "arn:aws:iam::123456789012:role/c-aaaaaaaaaaaa"


def payload(epoch: int, host: str = HOST, **changes: object) -> dict[str, Any]:
    config = TenantConfig(
        host=host,
        tenant_id=TENANT,
        slug="acme",
        status=Status.ACTIVE,
        epoch=epoch,
        plan="team",
        pool_size=5,
        dedicated=False,
        release="0001",
        placement=PLACEMENT,
        database=DatabaseAddress("c-1.example", 5432, "p_aaaaaaaaaaaa", SECRET, ROLE),
        profile={"name": "Ünïcode ✓"},
    )
    return undated(config.to_payload()) | changes


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    folder: Path = tmp_path_factory.mktemp("valkey")
    with ValkeyServer(folder, maxmemory_policy="allkeys-lru") as server:
        yield server


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    valkey.flush()
    with redis.Redis.from_url(valkey.url, socket_timeout=5) as connection:
        yield connection


@pytest.fixture
def real(valkey: ValkeyServer, client: redis.Redis) -> Iterator[RedisConfigCache]:
    cache = RedisConfigCache(valkey.url, [KEY, OLD_KEY])
    yield cache
    cache.close()


@pytest.fixture
def fake() -> Iterator[FakeConfigCache]:
    world = World()
    yield FakeConfigCache(world)
    world.close()


@pytest.fixture(params=["real", "fake"])
def cache(request: pytest.FixtureRequest) -> AnyCache:
    subject: AnyCache = request.getfixturevalue(request.param)
    return subject


def test_nothing_is_there_at_first(cache: AnyCache) -> None:
    assert cache.read(HOST) is None
    assert list(cache.hosts()) == []


def test_what_was_published_is_read(cache: AnyCache) -> None:
    assert cache.publish(payload(7))
    seen = cache.read(HOST)
    assert seen is not None
    assert (seen.host, seen.epoch, seen.payload) == (HOST, 7, payload(7))


def test_the_newer_epoch_wins(cache: AnyCache) -> None:
    assert cache.publish(payload(7))
    assert cache.publish(payload(8, slug="newer"))
    assert not cache.publish(payload(7))
    assert cache.publish(payload(8, slug="again"))
    seen = cache.read(HOST)
    assert seen is not None
    assert seen.payload["slug"] == "again"


def test_a_tombstone_keeps_the_late_one_out(cache: AnyCache) -> None:
    assert cache.publish(payload(7))
    for _ in range(2):
        assert cache.remove(HOST, epoch=9)
    assert not cache.publish(payload(8))
    seen = cache.read(HOST)
    assert seen is not None
    assert (seen.epoch, seen.payload["status"], seen.payload["database"]) == (9, "gone", None)
    assert TenantConfig.from_payload(issued(seen.payload, at=time.time())).status is Status.GONE
    assert cache.publish(payload(10))


def test_entries_are_listed_with_what_they_say(cache: AnyCache) -> None:
    for number in range(450):
        cache.publish(payload(number, f"h{number}.example"))
    cache.remove(HOST, epoch=9)
    found = dict(cache.entries())
    assert len(found) == 451
    listed = found["h7.example"]
    assert listed is not None
    assert (listed.epoch, listed.payload) == (7, payload(7, "h7.example"))
    tombstone = found[HOST]
    assert tombstone is not None
    assert tombstone.payload["status"] == "gone"


def test_an_entry_that_is_not_ours_is_listed_as_such(real: RedisConfigCache, client: redis.Redis) -> None:
    client.set(cache_key(HOST), b"garbage")
    assert dict(real.entries()) == {HOST: None}


def test_a_late_removal_loses(cache: AnyCache) -> None:
    assert cache.publish(payload(7))
    assert not cache.remove(HOST, epoch=6)
    seen = cache.read(HOST)
    assert seen is not None
    assert seen.payload["status"] == "active"


def test_a_host_never_published_can_be_removed(cache: AnyCache) -> None:
    assert cache.remove(HOST, epoch=1)
    assert list(cache.hosts()) == [HOST]


def test_a_full_pass_writes_what_is_missing_or_older(cache: AnyCache) -> None:
    hosts = [f"h{number}.tenants.example" for number in range(450)]
    assert cache.publish(payload(5, hosts[0]))  # newer than the pass knows
    assert cache.publish(payload(2, hosts[1]))  # older
    assert cache.publish(payload(3, hosts[2]))  # the same
    full_pass = [payload(3, host) for host in hosts]
    assert cache.publish_many(full_pass) == 448
    assert cache.publish_many(iter(full_pass)) == 0
    assert sorted(cache.hosts()) == sorted(hosts)
    newest = cache.read(hosts[0])
    assert newest is not None
    assert newest.epoch == 5


def test_a_full_pass_names_the_hosts_whose_entry_is_newer(cache: AnyCache) -> None:
    cache.publish(payload(5))
    newer: list[str] = []
    assert cache.publish_many([payload(3), payload(3, "other.example")], newer=newer) == 1
    assert newer == [HOST]


def test_an_entry_that_was_judged_forged_does_not_stay(cache: AnyCache) -> None:
    cache.publish(payload(9))
    assert not cache.publish(payload(3), instead_of=8), "another was judged"
    assert cache.publish(payload(3, slug="true"), instead_of=9)
    seen = cache.read(HOST)
    assert seen is not None
    assert (seen.epoch, seen.payload["slug"]) == (3, "true")
    cache.publish(payload(9))
    assert not cache.remove(HOST, epoch=4, instead_of=8)
    assert cache.remove(HOST, epoch=4, instead_of=9)


def test_what_is_wrong_with_one_host_keeps_no_other_from_the_full_pass(cache: AnyCache) -> None:
    hosts = [f"h{number}.tenants.example" for number in range(450)]
    full_pass = [payload(3, host) for host in hosts]
    full_pass[0] |= {"epoch": 2**53}
    with pytest.raises(Invalid, match="epoch: expected an integer"):
        cache.publish_many(full_pass)
    assert sorted(cache.hosts()) == sorted(hosts[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": "7"}, "epoch: expected an integer"),
        ({"status": "odd"}, "status"),
        ({"database": None}, "database: expected an object"),
        ({"v": 1}, "v: expected 2"),
        ({"profile": {"x": float("nan")}}, "JSON"),
        ({"profile": {"x": object()}}, "JSON"),
    ],
)
def test_what_is_no_tenant_config_is_refused(cache: AnyCache, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        cache.publish(payload(7) | changes)
    assert cache.read(HOST) is None


def test_an_entry_is_issued_anew_when_a_third_of_its_life_is_left(cache: AnyCache) -> None:
    at = [1_800_000_000.5]
    cache._now = lambda: at[0]
    cache.publish(payload(7))
    seen = cache.read(HOST)
    assert seen is not None
    assert seen.not_after == 1_800_000_000 + LIFETIME_SECONDS
    at[0] += LIFETIME_SECONDS - REISSUE_SECONDS - 10
    assert cache.publish_many([payload(7)]) == 0
    at[0] += 20
    assert cache.publish_many([payload(7)]) == 1
    assert cache.publish_many([payload(7)]) == 0
    again = cache.read(HOST)
    assert again is not None
    assert (again.epoch, again.payload, again.not_after) == (7, payload(7), int(at[0]) + LIFETIME_SECONDS)


def test_an_entry_that_is_believed_for_longer_than_ours_is_issued_anew(cache: AnyCache) -> None:
    ahead = time.time() + 3600
    cache._now = lambda: ahead
    cache.publish(payload(7))
    cache._now = time.time
    assert cache.publish_many([payload(7)]) == 1
    assert cache.publish_many([payload(7)]) == 0


# --------------------------------------------------------------------------------------- only Redis


def test_the_entry_is_what_the_data_plane_verifies(real: RedisConfigCache, client: redis.Redis) -> None:
    real.publish(payload(7))
    entry = client.get(cache_key(HOST))
    assert isinstance(entry, bytes)
    assert entry.startswith(b"v2-hmac-sha256.k1.")
    assert undated(verify(entry, host=HOST, keys=dict([KEY]))) == payload(7)
    assert client.ttl(cache_key(HOST)) == -1


def test_a_tombstone_ends_after_seven_days(real: RedisConfigCache, client: redis.Redis) -> None:
    real.remove(HOST, epoch=7)
    assert TOMBSTONE_SECONDS - 10 < client.ttl(cache_key(HOST)) <= TOMBSTONE_SECONDS == 604_800
    real.publish(payload(8))
    assert client.ttl(cache_key(HOST)) == -1


def test_each_change_and_only_a_change_is_noticed(real: RedisConfigCache, client: redis.Redis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as invalidations:
        invalidations.subscribe(INVALIDATION_CHANNEL)
        assert invalidations.get_message(timeout=2) is None  # the subscription's own
        real.publish(payload(7))
        real.publish(payload(7))  # whoever missed the first hears the second
        real.publish(payload(6))  # lost: silence
        real.publish_many([payload(7), payload(1, "other.example")])  # only the other is a change
        real.remove(HOST, epoch=8)
        real.notify_credential(TENANT)
        heard = []
        while (message := invalidations.get_message(timeout=0.5)) is not None:
            heard.append(Invalidation.decode(message["data"]))
    assert heard == [
        Invalidation("config", HOST, 7, TENANT),
        Invalidation("config", HOST, 7, TENANT),
        Invalidation("config", "other.example", 1, TENANT),
        Invalidation("config", HOST, 8, ""),
        Invalidation("credential", "", 0, TENANT),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        b"garbage",
        b"v2-hmac-sha256.k1.e30.AAAA",
        sign(issued(payload(99), at=time.time()), key_id="k9", key=b"\x09" * 32).encode(),
        sign(issued(payload(99), at=time.time()), key_id="k1", key=b"\x09" * 32).encode(),
        sign(issued(payload(99, "other.example"), at=time.time()), key_id="k1", key=KEY[1]).encode(),
        b"x" * 100_000,
        b"",
    ],
)
def test_what_our_keys_did_not_sign_neither_is_read_nor_stays(
    real: RedisConfigCache, client: redis.Redis, entry: bytes
) -> None:
    client.set(cache_key(HOST), entry)
    assert real.read(HOST) is None
    assert real.publish(payload(1))
    client.set(cache_key(HOST), entry)
    assert real.publish_many([payload(1)]) == 1
    seen = real.read(HOST)
    assert seen is not None
    assert seen.epoch == 1


def test_keys_are_rolled_by_a_full_pass(
    valkey: ValkeyServer, real: RedisConfigCache, client: redis.Redis
) -> None:
    before = RedisConfigCache(valkey.url, [OLD_KEY])
    before.publish(payload(7))
    before.close()
    assert real.read(HOST) is not None
    assert not real.publish(payload(6)), "the old key's entry still counts"
    assert real.publish_many([payload(7)]) == 1
    entry = client.get(cache_key(HOST))
    assert isinstance(entry, bytes)
    assert entry.startswith(b"v2-hmac-sha256.k1.")


def test_an_evicted_entry_is_published_anew(real: RedisConfigCache, client: redis.Redis) -> None:
    real.publish(payload(7))
    client.delete(cache_key(HOST))
    assert real.publish(payload(7))
    client.script_flush()
    assert real.publish(payload(8)), "the script is loaded again where the server has forgotten it"
    client.script_flush()
    assert real.publish_many([payload(9)]) == 1


def test_writers_at_once_leave_the_newest(valkey: ValkeyServer, real: RedisConfigCache) -> None:
    def write(start: int) -> None:
        cache = RedisConfigCache(valkey.url, [KEY])
        for epoch in range(start, 60, 4):
            retrying(partial(cache.publish, payload(epoch)))
        cache.close()

    threads = [threading.Thread(target=write, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    seen = real.read(HOST)
    assert seen is not None
    assert seen.epoch == 59


def retrying(call: Callable[[], object]) -> None:
    for _ in range(20):
        try:
            call()
        except Retryable:
            continue
        return
    raise AssertionError("20 rounds of contention")


def test_a_fake_that_is_stopped_before_it_writes_puts_nothing_over_a_newer_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Redis compares and swaps: a worker that wakes up past its lease would take the route back."""
    stopped, other = FakeConfigCache(World(tmp_path / "world")), FakeConfigCache(World(tmp_path / "world"))
    get = stopped.world.get

    def get_and_stop(kind: str, key: str) -> Any:
        found = get(kind, key)
        if kind == ENTRY:
            other.publish(payload(8))
        return found

    monkeypatch.setattr(stopped.world, "get", get_and_stop)
    assert not stopped.publish(payload(7))
    seen = other.read(HOST)
    assert seen is not None
    assert seen.epoch == 8
    stopped.world.close()
    other.world.close()


def test_too_long_an_entry_is_refused(real: RedisConfigCache) -> None:
    with pytest.raises(Invalid, match="longer than 16384 bytes"):
        real.publish(payload(7, profile={"x": "y" * 16_000}))


def test_a_cache_that_cannot_be_reached_is_tried_again() -> None:
    cache = RedisConfigCache("redis://:canary@127.0.0.1:1/0", [KEY])
    calls: list[Callable[[], object]] = [
        lambda: cache.read(HOST),
        lambda: cache.publish(payload(1)),
        lambda: cache.remove(HOST, epoch=1),
        lambda: cache.publish_many([payload(1)]),
        lambda: list(cache.hosts()),
        lambda: list(cache.entries()),
        lambda: cache.notify_credential(TENANT),
        cache.ping,
    ]
    for call in calls:
        with pytest.raises(Retryable, match="config cache") as caught:
            call()
        assert "canary" not in str(caught.value)
    cache.close()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "at least one"),
        ([("a.b", b"x" * 32)], "key ids"),
        ([("", b"x" * 32)], "key ids"),
        ([("k1", b"x" * 31)], "signing key k1: expected at least 32 bytes, got 31"),
    ],
)
def test_keys_that_are_refused(keys: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        RedisConfigCache("redis://127.0.0.1:1/0", keys)
