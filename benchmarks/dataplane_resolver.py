"""The resolver: from memory against a bare dict, the tiers behind it, memory, and invalidations."""

from __future__ import annotations

import gc
import itertools
import json
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import redis

from benchmarks.report import Bar, Report, percentile, side_by_side
from dataplane.hosts import normalise_host
from dataplane.invalidations import InvalidationListener
from dataplane.memory import Policy
from dataplane.resolver import Resolver
from dataplane.tenant_config import (
    INVALIDATION_CHANNEL,
    DatabaseAddress,
    Status,
    TenantConfig,
    cache_key,
    sign,
)
from dataplane.tiers import RedisTier

KEYS = {"k1": b"benchmark benchmark benchmark 32"}
ZONE = "tenants.example.com"


def config(number: int, epoch: int = 1) -> TenantConfig:
    tenant_id, placement = f"t-{number:012d}", f"p-{number:012d}"
    return TenantConfig(
        host=f"tenant-{number}.{ZONE}",
        tenant_id=tenant_id,
        slug=f"tenant-{number}",
        status=Status.ACTIVE,
        epoch=epoch,
        plan="business",
        pool_size=5,
        dedicated=False,
        release="0002",
        placement=placement,
        database=DatabaseAddress(
            f"c-{number % 100:012d}.cluster-x.eu-central-1.rds.amazonaws.com",
            5432,
            placement.replace("-", "_"),
            f"arn:aws:secretsmanager:eu-central-1:123456789012:secret:placements/{placement}/app-AbCdEf",
            f"arn:aws:iam::123456789012:role/c-{number % 100:012d}",
        ),
        profile={"plan_name": "Business", "subscription_status": "active", "limits": {"seats": 25}},
    )


def entry(of: TenantConfig) -> str:
    return sign(of.to_payload(), key_id="k1", key=KEYS["k1"])


class Parsing:
    """A tier that makes each record from its JSON, as a real one does."""

    def __init__(self, tenants: int) -> None:
        self._texts = {config(n).host: json.dumps(config(n).to_payload()) for n in range(tenants)}

    def read(self, host: str) -> TenantConfig | None:
        text = self._texts.get(host)
        return None if text is None else TenantConfig.from_payload(json.loads(text))

    def alive(self) -> None:
        """It always is."""


def from_memory(report: Report, *, rounds: int) -> None:
    section = "Resolver, answered from this process's memory"
    tenants = 10_000
    resolver = Resolver(cache=Parsing(tenants), policy=Policy(ttl=36_000))
    hosts = [config(n).host for n in range(tenants)]
    for host in hosts:
        resolver.resolve(host)
    bare = {host: resolver.resolve(host) for host in hosts}
    draw = random.Random(1)
    order = [draw.choice(hosts) for _ in range(5000)]
    plain = itertools.cycle(order)
    ported = itertools.cycle([f"{host}:8443" for host in order])

    def dict_only() -> TenantConfig:
        return bare[next(plain)]

    def dict_parsed() -> TenantConfig:
        return bare[normalise_host(next(plain))]

    def ours() -> TenantConfig:
        return resolver.resolve(next(plain))

    def dict_parsed_port() -> TenantConfig:
        return bare[normalise_host(next(ported))]

    def ours_port() -> TenantConfig:
        return resolver.resolve(next(ported))

    floor, parsed, mine, parsed_port, mine_port = (
        seconds * 1e6
        for seconds in side_by_side(
            [dict_only, dict_parsed, ours, dict_parsed_port, ours_port],
            number=2000,
            rounds=rounds,
            clock=time.thread_time,
        )
    )
    report.add(section, "dict without host parsing (floor)", f"{floor:.2f} µs")
    report.add(section, "dict with the same host parsing", f"{parsed:.2f} µs")
    report.add(section, "resolver", f"{mine:.2f} µs", "under 2 µs", mine < 2)
    report.add(
        section, "resolver ÷ dict with host parsing", f"{mine / parsed:.2f} ×", "≤ 3 ×", mine <= 3 * parsed
    )
    report.add(
        section,
        "the same with a port in the header, which has to be parsed",
        f"{mine_port:.2f} µs, {mine_port / parsed_port:.2f} ×",
        "under 2 µs, ≤ 3 ×",
        mine_port < 2 and mine_port <= 3 * parsed_port,
    )
    report.bars += [Bar("dict, host parsed", parsed), Bar("resolver, from memory", mine, ours=True)]


def memory(report: Report) -> None:
    tenants = 20_000
    tier = Parsing(tenants)
    resolver = Resolver(cache=tier)
    hosts = [config(n).host for n in range(tenants)]
    gc.collect()
    tracemalloc.start()
    for host in hosts:
        resolver.resolve(host)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    report.add(
        "Memory", f"a cached tenant, {tenants:,} of them (925-byte entries)", f"{taken / tenants:,.0f} bytes"
    )


def reads(client: redis.Redis) -> int:
    stats: dict[str, Any] = client.info("commandstats")
    return sum(entry["calls"] for name, entry in stats.items() if name in ("cmdstat_get", "cmdstat_getrange"))


def behind(report: Report, url: str, *, rounds: int) -> None:
    section = "Resolver, and Redis behind it"
    with redis.Redis.from_url(url, protocol=2) as client:
        for number in range(1000):
            client.set(cache_key(config(number).host), entry(config(number)))
        resolver = Resolver(cache=RedisTier.from_url(url, KEYS))
        hosts = [config(number).host for number in range(1000)]
        before = reads(client)
        began = time.perf_counter()
        for host in hosts:
            resolver.resolve(host)
        cold = (time.perf_counter() - began) / 1000 * 1e6
        cold_reads = reads(client) - before
        for _ in range(100):
            for host in hosts:
                resolver.resolve(host)
        warm_reads = reads(client) - before - cold_reads
        report.add(section, "Redis reads for 1,000 cold hosts", str(cold_reads), "1,000", cold_reads == 1000)
        report.add(section, "Redis reads for 100,000 warm requests", str(warm_reads), "0", warm_reads == 0)
        report.add(section, "a cold host: read, verified, parsed, kept", f"{cold:.0f} µs")
        key = cache_key(hosts[0])
        (raw,) = side_by_side([lambda: client.get(key)], number=500, rounds=rounds)
        report.add(section, "a bare Redis GET by the same client library", f"{raw * 1e6:.0f} µs")
        report.bars += [Bar("resolver, cold host (Redis)", cold, ours=True), Bar("bare Redis GET", raw * 1e6)]
        herd(report, section, client, url)


def herd(report: Report, section: str, client: redis.Redis, url: str) -> None:
    client.set(cache_key("herd.example"), entry_for("herd.example"))
    resolver = Resolver(cache=RedisTier.from_url(url, KEYS))
    resolver.resolve(config(0).host)
    before = reads(client)
    start = threading.Barrier(1000)

    def ask() -> None:
        start.wait()
        resolver.resolve("herd.example")

    threads = [threading.Thread(target=ask) for _ in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = reads(client) - before
    report.add(
        section, "reads for 1,000 simultaneous requests of one cold host", str(counted), "1", counted == 1
    )


def entry_for(host: str) -> str:
    payload = config(0).to_payload() | {"host": host}
    return sign(payload, key_id="k1", key=KEYS["k1"])


# ------------------------------------------------------------------------------- how changes are heard


def invalidations(report: Report, url: str, *, changes: int) -> None:
    """Pub/sub invalidations against `CLIENT TRACKING … BCAST`: from the write to the first fresh answer."""
    section = f"From a change to the first answer that knows it ({changes} changes each)"
    with redis.Redis.from_url(url, protocol=2) as client:
        for name, prepare in (
            ("pub/sub invalidation (ours)", by_invalidation),
            ("CLIENT TRACKING BCAST", by_tracking),
        ):
            delays = []
            for resolve, close in prepare(client, url):
                epoch = resolve().epoch
                for step in range(1, changes + 1):
                    changed = config(0, epoch + step)
                    client.set(cache_key(changed.host), entry(changed))
                    if prepare is by_invalidation:
                        invalidation = {"host": changed.host, "epoch": changed.epoch, "kind": "config"}
                        client.publish(INVALIDATION_CHANNEL, json.dumps(invalidation))
                    began = time.perf_counter()
                    while resolve().epoch < changed.epoch:
                        time.sleep(0)
                    delays.append((time.perf_counter() - began) * 1e3)
                    time.sleep(0.001)
                close()
            report.add(
                section,
                name,
                f"p50 {percentile(delays, 0.5):.2f} ms, p99 {percentile(delays, 0.99):.2f} ms, "
                f"worst {max(delays):.2f} ms",
            )
        republished(report, client, url)


Watched = Iterator[tuple[Callable[[], TenantConfig], Callable[[], None]]]


def by_invalidation(client: redis.Redis, url: str) -> Watched:
    client.set(cache_key(config(0).host), entry(config(0, 10)))
    resolver = Resolver(
        cache=RedisTier.from_url(url, KEYS),
        invalidations=InvalidationListener(url),
        policy=Policy(ttl=36_000),
    )
    resolver.start()
    while not resolver._hearing:
        time.sleep(0.01)
    yield (lambda: resolver.resolve(config(0).host)), resolver.close


class Tracking:
    """The same resolver, told by the server's own invalidation messages instead of invalidations. They name
    the key and nothing else, so every write of a key outdates what is known of it."""

    def __init__(self, url: str) -> None:
        self.resolver = Resolver(cache=RedisTier.from_url(url, KEYS), policy=Policy(ttl=36_000))
        self.heard = 0
        self._stop = False
        self._client = redis.Redis.from_url(url, protocol=2, socket_timeout=0.2)
        listener = self._client.connection_pool.get_connection()
        listener.send_command("CLIENT", "ID")
        ident = listener.read_response()
        listener.send_command("SUBSCRIBE", "__redis__:invalidate")
        listener.read_response()
        self._tracker = self._client.connection_pool.get_connection()
        self._tracker.send_command(
            "CLIENT", "TRACKING", "ON", "REDIRECT", ident, "BCAST", "PREFIX", cache_key("")
        )
        self._tracker.read_response()
        self._thread = threading.Thread(target=self._listen, args=(listener,), daemon=True)
        self._thread.start()

    def _listen(self, listener: Any) -> None:
        while not self._stop:
            try:
                message = listener.read_response(disconnect_on_error=False)
            except redis.TimeoutError:
                continue
            for key in message[2] or ():
                self.heard += 1
                slot = self.resolver._slots.get(key.decode().removeprefix(cache_key("")))
                if slot is not None:
                    slot.fresh_until = slot.soft_until = 0.0

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        self._client.connection_pool.disconnect()


def by_tracking(client: redis.Redis, url: str) -> Watched:
    client.set(cache_key(config(0).host), entry(config(0, 10)))
    tracking = Tracking(url)
    yield (lambda: tracking.resolver.resolve(config(0).host)), tracking.close


def republished(report: Report, client: redis.Redis, url: str) -> None:
    """The periodic full pass writes every entry again: what it costs those who have them in memory."""
    tenants = [config(number) for number in range(1000)]
    section = "A full pass writes 1,000 unchanged entries again: reads it causes in one process"
    for name, prepare in (
        ("pub/sub invalidation (ours)", by_invalidation),
        ("CLIENT TRACKING BCAST", by_tracking),
    ):
        for of in tenants:
            client.set(cache_key(of.host), entry(of))
        resolver, close = watched(prepare, client, url)
        for of in tenants:
            client.set(cache_key(of.host), entry(of))
            resolver.resolve(of.host)
        time.sleep(0.5)
        for of in tenants:
            resolver.resolve(of.host)
        before = reads(client)
        for of in tenants:
            client.set(cache_key(of.host), entry(of))
            if prepare is by_invalidation:
                client.publish(
                    INVALIDATION_CHANNEL, json.dumps({"host": of.host, "epoch": of.epoch, "kind": "config"})
                )
        time.sleep(0.5)
        for of in tenants:
            resolver.resolve(of.host)
        report.add(section, name, f"{reads(client) - before:,}")
        close()


def watched(
    prepare: Callable[..., Watched], client: redis.Redis, url: str
) -> tuple[Resolver, Callable[[], None]]:
    if prepare is by_tracking:
        tracking = Tracking(url)
        return tracking.resolver, tracking.close
    resolver = Resolver(
        cache=RedisTier.from_url(url, KEYS),
        invalidations=InvalidationListener(url),
        policy=Policy(ttl=36_000),
    )
    resolver.start()
    while not resolver._hearing:
        time.sleep(0.01)
    return resolver, resolver.close
