"""The levels behind memory, on a real Valkey and a real HTTP server: what each says and never says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import redis

from dataplane.contract import MAX_ENTRY_BYTES, NOTICE_CHANNEL, Notice, Status, TenantConfig, cache_key, sign
from dataplane.errors import RoutingUnavailable, Suspended, UnknownHost
from dataplane.levels import ControlPlaneLevel, EntryRefused, LevelDown, RedisLevel, RegistryLevel
from dataplane.notices import NoticeListener
from dataplane.resolver import Policy, Resolver
from localcloud.valkey import ValkeyServer
from tests.dataplane.levels import FakeLevel, config
from tests.dataplane.tenants import KEYS
from tests.dataplane.test_resolver import eventually

HOST = "acme.example"


def entry(of: TenantConfig) -> str:
    return sign(of.to_payload(), key_id="k1", key=KEYS["k1"])


# ----------------------------------------------------------------------------------------- Redis


@pytest.fixture
def level(cache: ValkeyServer) -> RedisLevel:
    return RedisLevel.from_url(cache.url, KEYS)


def commands(client: redis.Redis) -> int:
    return sum(stats["calls"] for name, stats in client.info("commandstats").items() if "get" in name.lower())


def test_a_cold_host_costs_one_command_and_a_warm_one_none(
    level: RedisLevel, cache_client: redis.Redis
) -> None:
    cache_client.set(cache_key(HOST), entry(config(HOST)))
    resolver = Resolver(cache=level)
    before = commands(cache_client)
    for _ in range(50):
        assert resolver.resolve(HOST).slug == "acme"
    assert commands(cache_client) - before == 1


def test_a_tombstone_is_an_entry_and_nothing_is_none(level: RedisLevel, cache_client: redis.Redis) -> None:
    cache_client.set(cache_key(HOST), entry(config(HOST, 3, status=Status.GONE, database=None)))
    gone = level.read(HOST)
    assert gone is not None
    assert (gone.status, gone.epoch) == (Status.GONE, 3)
    assert level.read("nobody.example") is None


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
    level: RedisLevel, cache_client: redis.Redis, planted: str
) -> None:
    cache_client.set(cache_key(HOST), planted)
    with pytest.raises(EntryRefused):
        level.read(HOST)
    with pytest.raises(RoutingUnavailable):
        Resolver(cache=level).resolve(HOST)
    assert Resolver(cache=level, fallback=FakeLevel(config(HOST))).resolve(HOST).tenant_id == "t-acme"
    assert level.refused == 3


def test_a_key_of_another_kind_serves_nobody(level: RedisLevel, cache_client: redis.Redis) -> None:
    cache_client.lpush(cache_key(HOST), "x")
    with pytest.raises(EntryRefused):
        level.read(HOST)


def test_a_dead_cache_costs_one_try_a_pause(cache: ValkeyServer, cache_client: redis.Redis) -> None:
    cache_client.set(cache_key(HOST), entry(config(HOST)))
    level = RedisLevel.from_url(cache.url, KEYS)
    assert level.read(HOST) is not None
    cache.kill()
    for _ in range(3):
        with pytest.raises(LevelDown):
            level.read(HOST)
    cache.start()
    with pytest.raises(LevelDown, match="a moment ago"):
        level.read(HOST)
    time.sleep(1.05)
    assert level.read(HOST) is None


def test_a_cache_that_hangs_costs_its_timeout_once(cache: ValkeyServer) -> None:
    level = RedisLevel.from_url(cache.url, KEYS, timeout=0.2)
    level.read(HOST)
    with frozen(cache.pid):
        began = time.monotonic()
        with pytest.raises(LevelDown, match="Timeout"):
            level.read(HOST)
        for _ in range(100):
            with pytest.raises(LevelDown):
                level.read(HOST)
        assert time.monotonic() - began < 1


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# ----------------------------------------------------------------------------------------- control plane


class Endpoint(ThreadingHTTPServer):
    """`/v1/resolve` as the control plane answers it, or as `broken` says."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.entries: dict[str, str] = {}
        self.broken: tuple[int, str, bytes] | None = None
        self.hang: threading.Event | None = None
        self.asked: list[tuple[str, str | None]] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        if self.hang is not None:
            self.hang.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        host = parse_qs(url.query)["host"][0]
        self.server.asked.append((url.path, self.headers["Authorization"]))
        if self.server.hang is not None:
            self.server.hang.wait(10)
        if self.server.broken is not None:
            self.answer(*self.server.broken)
        elif host in self.server.entries:
            self.answer(200, "application/json", json.dumps({"entry": self.server.entries[host]}).encode())
        else:
            self.answer(404, "application/json", b'{"error": {"code": "unknown_host", "message": "none"}}')

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that gave up is part of these tests
            super().handle()

    def log_message(self, *_: object) -> None:
        """Tests look at what was asked, not at a log."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.stop()


@pytest.fixture
def control_plane(endpoint: Endpoint) -> Iterator[ControlPlaneLevel]:
    level = ControlPlaneLevel(endpoint.url + "/", "token-1", KEYS, timeout=0.5, pause=0.0)
    yield level
    level.close()


def test_the_resolve_endpoint_is_asked_with_the_token(
    endpoint: Endpoint, control_plane: ControlPlaneLevel
) -> None:
    endpoint.entries[HOST] = entry(config(HOST))
    assert control_plane.read(HOST) == config(HOST)
    assert control_plane.read("nobody.example") is None
    assert endpoint.asked == [("/v1/resolve", "Bearer token-1")] * 2


@pytest.mark.parametrize(
    "broken",
    [
        (404, "text/html", b"<h1>Not Found</h1>"),
        (404, "application/json", b'{"error": {"code": "no_such_url", "message": "a wrong base URL"}}'),
        (404, "application/json", b'{"error": "unknown_host"}'),
        (400, "application/json", b'{"error": {"code": "invalid", "field": "page"}}'),
        (200, "text/html", b"<h1>Welcome</h1>"),
        (401, "application/json", b"{}"),
        (500, "application/json", b"{}"),
        (302, "application/json", b"{}"),
        (200, "application/json", b"[]"),
        (200, "application/json", b"{"),
        (200, "application/json", b"[" * 20_000),
        (200, "application/json", b'{"entry": 7}'),
        (200, "application/json", json.dumps({"entry": entry(config("other.example"))}).encode()),
        (200, "application/json", b" " * 100_000),
    ],
    ids=lambda broken: f"{broken[0]}-{broken[1].split('/')[1]}-{broken[2][:8]!r}",
)
def test_anything_else_than_an_answer_means_that_nobody_can_tell(
    endpoint: Endpoint, control_plane: ControlPlaneLevel, broken: tuple[int, str, bytes]
) -> None:
    endpoint.broken = broken
    with pytest.raises(LevelDown):
        control_plane.read(HOST)
    with pytest.raises(RoutingUnavailable):
        Resolver(fallback=control_plane).resolve(HOST)


def test_a_host_that_the_control_plane_refuses_has_no_tenant(
    endpoint: Endpoint, control_plane: ControlPlaneLevel
) -> None:
    endpoint.broken = (400, "application/json", b'{"error": {"code": "invalid", "field": "host"}}')
    assert control_plane.read("localhost") is None


def test_the_endpoint_may_hang_or_be_away(endpoint: Endpoint, control_plane: ControlPlaneLevel) -> None:
    endpoint.hang = threading.Event()
    began = time.monotonic()
    with pytest.raises(LevelDown, match="Timeout"):
        control_plane.read(HOST)
    assert time.monotonic() - began < 2
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = ControlPlaneLevel(f"http://127.0.0.1:{unused.getsockname()[1]}", "t", KEYS, pause=60)
        for _ in range(2):
            with pytest.raises(LevelDown):
                away.read(HOST)


def test_at_most_so_many_hosts_are_asked_for_at_once(endpoint: Endpoint) -> None:
    level = ControlPlaneLevel(endpoint.url, "t", KEYS, timeout=0.3, concurrent=2, pause=0.0)
    endpoint.hang = threading.Event()
    failures: list[str] = []

    def ask(number: int) -> None:
        try:
            level.read(f"h{number}.example")
        except LevelDown as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(failures) == 6
    assert len(endpoint.asked) <= 6
    assert any("too many" in failure for failure in failures)
    level.close()


def test_a_registry_is_any_callable() -> None:
    answers = {HOST: config(HOST), "mixed.example": config(HOST)}
    level = RegistryLevel(answers.get, pause=0.0)
    assert level.read(HOST) == config(HOST)
    assert level.read("nobody.example") is None
    with pytest.raises(EntryRefused):
        level.read("mixed.example")

    def broken(host: str) -> TenantConfig | None:
        raise RuntimeError(host)

    with pytest.raises(LevelDown, match="RuntimeError"):
        RegistryLevel(broken).read(HOST)


# ----------------------------------------------------------------------------------------- notices


def publish(client: redis.Redis, of: TenantConfig) -> None:
    client.set(cache_key(of.host), entry(of))
    client.publish(NOTICE_CHANNEL, json.dumps({"host": of.host, "epoch": of.epoch, "kind": "config"}))


@pytest.fixture
def watching(cache: ValkeyServer) -> Iterator[Resolver]:
    policy = Policy(ttl=600, jitter=0, unwatched_ttl=0.3, retry=0.2)
    resolver = Resolver(
        cache=RedisLevel.from_url(cache.url, KEYS),
        notices=NoticeListener(cache.url, silence=0.6, reconnect=0.05),
        policy=policy,
    )
    resolver.start()
    eventually(lambda: resolver._hearing)
    yield resolver
    resolver.close()


def test_a_change_is_seen_within_milliseconds(watching: Resolver, cache_client: redis.Redis) -> None:
    publish(cache_client, config(HOST))
    assert watching.resolve(HOST).epoch == 1
    delays = []
    for epoch in range(2, 102):
        publish(cache_client, config(HOST, epoch))
        began = time.perf_counter()
        while watching.resolve(HOST).epoch < epoch:
            time.sleep(0)
        delays.append(time.perf_counter() - began)
    assert sorted(delays)[50] < 0.05, "of an entry that would live for ten minutes"


def test_subscribers_hear_of_credentials(watching: Resolver, cache_client: redis.Redis) -> None:
    heard: list[Notice] = []
    watching.subscribe(heard.append)
    cache_client.publish(NOTICE_CHANNEL, b"not a notice")
    cache_client.publish(
        NOTICE_CHANNEL, json.dumps({"kind": "credential", "tenant_id": "t-a", "host": "", "epoch": 1})
    )
    eventually(lambda: heard == [Notice("credential", "", 1, "t-a")])


def test_redis_killed_under_load_takes_no_known_tenant_offline(
    watching: Resolver, cache: ValkeyServer, cache_client: redis.Redis
) -> None:
    hosts = [f"h{number}.example" for number in range(20)]
    for host in hosts:
        publish(cache_client, config(host))
        watching.resolve(host)
    cache.kill()
    until = time.monotonic() + 2
    slowest = 0.0
    while time.monotonic() < until:
        for host in hosts:
            began = time.monotonic()
            assert watching.resolve(host).epoch == 1
            slowest = max(slowest, time.monotonic() - began)
    with pytest.raises(RoutingUnavailable):
        watching.resolve("cold.example")
    assert not watching._hearing
    assert slowest < 0.5
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
    ("data", "notice"),
    [
        (b'{"host": "a.example", "epoch": 3}', Notice("config", "a.example", 3, "")),
        (b'{"host": "a.example", "epoch": 3, "more": 1}', Notice("config", "a.example", 3, "")),
        (b'{"kind": "credential", "tenant_id": "t-a"}', Notice("credential", "", 0, "t-a")),
        (b'{"kind": "credential", "tenant_id": "t-a", "host": null}', Notice("credential", "", 0, "t-a")),
        (b'{"kind": "later"}', None),
        (b'{"host": 7, "epoch": 3}', None),
        (b'{"host": "a", "epoch": "3"}', None),
        (b'{"host": "a", "epoch": true}', None),
        (b'{"host": "a", "epoch": -1}', None),
        (b'{"host": "a"}', Notice("config", "a", 0, "")),
        (b"acme.example", None),
        (Notice("config", "a.example", 7, "t-a").encode(), Notice("config", "a.example", 7, "t-a")),
        (b"[1]", None),
        (b"\xff", None),
        (b"[" * 4000, None),
        (b" " * 5000, None),
    ],
)
def test_notices_are_read_or_passed_over(data: bytes, notice: Notice | None) -> None:
    assert Notice.decode(data) == notice
