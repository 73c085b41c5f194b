"""Herds, scanners, bounds, forks."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataplane.errors import (
    BadHost,
    RoutingUnavailable,
    UnknownHost,
)
from dataplane.memory import Policy
from dataplane.resolver import Resolver
from dataplane.tenant_config import TenantConfig
from tests.dataplane.resolving import HOST, eventually
from tests.dataplane.tiers import Clock, FakeTier, config


def test_a_herd_on_a_cold_host_is_one_read(resolver: Resolver, near: FakeTier) -> None:
    """Issue: 1,000 simultaneous requests for one cold host cause 1 read behind."""
    near.gate = threading.Event()
    start = threading.Barrier(1001)
    seen: list[TenantConfig] = []

    def ask() -> None:
        start.wait()
        seen.append(resolver.resolve(HOST))

    herd = [threading.Thread(target=ask) for _ in range(1000)]
    for thread in herd:
        thread.start()
    start.wait()
    eventually(lambda: resolver.statistics.shared == 999)
    near.gate.set()
    for thread in herd:
        thread.join(10)
    assert len(seen) == 1000
    assert near.reads == {HOST: 1}


def test_a_herd_of_coroutines_is_one_read(resolver: Resolver, near: FakeTier) -> None:
    near.gate = threading.Event()

    async def herd() -> list[TenantConfig | BaseException]:
        asked = [asyncio.create_task(resolver.resolve_async(host)) for host in (HOST, "no.example") * 500]
        await asyncio.to_thread(near.looked.wait, 5)
        asked[0].cancel()
        assert near.gate is not None
        near.gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(herd())
    assert isinstance(answers[0], asyncio.CancelledError), "one that gives up takes nobody with it"
    assert all(isinstance(answer, UnknownHost) for answer in answers[1::2])
    assert all(isinstance(answer, TenantConfig) for answer in answers[2::2])
    assert near.reads == {HOST: 1, "no.example": 1}


def test_one_slow_host_holds_up_no_other(resolver: Resolver, near: FakeTier) -> None:
    near.put(config("other.example"))
    resolver.resolve("other.example")
    near.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(resolver.resolve, HOST)
        assert near.looked.wait(60)
        for _ in range(1000):
            resolver.resolve("other.example")
        assert not slow.done(), "it still waits"
        near.gate.set()
        slow.result(60)


def test_who_waits_too_long_for_anothers_read_is_answered(near: FakeTier) -> None:
    resolver = Resolver(cache=near, policy=Policy(wait=0.05))
    near.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(resolver.resolve, HOST)
        assert near.looked.wait(60)
        with pytest.raises(RoutingUnavailable):
            resolver.resolve(HOST)
        near.gate.set()
        assert first.result(60).slug == "acme"


def test_memory_is_bounded_and_keeps_what_is_used(clock: Clock) -> None:
    hosts = [f"h{number}.example" for number in range(100)]
    near = FakeTier(*(config(host) for host in hosts))
    resolver = Resolver(cache=near, policy=Policy(capacity=10), clock=clock)
    for host in hosts:
        resolver.resolve(host)
        resolver.resolve(hosts[0])
        assert len(resolver) <= 10
    assert near.reads[hosts[0]] == 1
    assert resolver._memory.evictions == 90


def test_scanners_push_no_tenant_out_of_memory(clock: Clock) -> None:
    near = FakeTier(config(HOST))
    resolver = Resolver(cache=near, policy=Policy(capacity=10, unknown_capacity=50), clock=clock)
    resolver.resolve(HOST)
    for number in range(1000):
        with pytest.raises(UnknownHost):
            resolver.resolve(f"scan{number}.example")
    assert len(resolver._memory.unknown) <= 50
    resolver.resolve(HOST)
    assert near.reads[HOST] == 1


def test_a_thousand_fuzzed_hosts_reach_no_tenant(resolver: Resolver) -> None:
    """Whatever is sent: an answer other than a tenant's, unless it is the tenant's host in one of its
    allowed spellings."""
    draw = random.Random(4)
    pieces = [
        "acme",
        "example",
        ".",
        ":",
        "443",
        "@",
        "/",
        "\\",
        "\0",
        " ",
        "\t",
        ",",
        "%00",
        "xn--",
        "ａ",
        "ı",
        "-",
    ]
    reached = 0
    for _ in range(1000):
        raw = "".join(draw.choices(pieces, k=draw.randint(0, 9)))
        if draw.random() < 0.5:
            at = draw.randint(0, len(HOST))
            raw = HOST[:at] + draw.choice(pieces) + HOST[at:]
        try:
            resolver.resolve(raw)
        except (BadHost, UnknownHost):
            continue
        reached += 1
        assert raw.partition(":")[0].lower().removesuffix(".") == HOST, raw
    assert reached < 100


def test_a_child_process_starts_with_an_empty_memory_and_working_locks(
    resolver: Resolver, near: FakeTier
) -> None:
    resolver.resolve(HOST)
    held = resolver._lock
    with held:  # as another thread of the parent might at the moment of the fork
        child = os.fork()
        if child == 0:
            os._exit(0 if resolver.resolve(HOST).slug == "acme" and near.reads[HOST] == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
