"""What the memory of a process may say, and when it must ask: the rules, on a clock that stands still."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataplane.contract import Notice, Status, TenantConfig
from dataplane.errors import (
    BadHost,
    Provisioning,
    RoutingError,
    RoutingUnavailable,
    Suspended,
    UnknownHost,
)
from dataplane.hosts import Zones
from dataplane.resolver import Policy, Resolver
from tests.dataplane.levels import Clock, FakeLevel, config

HOST = "acme.example"
POLICY = Policy(ttl=60, jitter=0, grace=30, unwatched_ttl=2, unknown_ttl=5, max_age=600, retry=1, wait=5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache() -> FakeLevel:
    return FakeLevel(config(HOST))


@pytest.fixture
def registry() -> FakeLevel:
    return FakeLevel(config(HOST))


@pytest.fixture
def resolver(cache: FakeLevel, registry: FakeLevel, clock: Clock) -> Iterator[Resolver]:
    resolver = Resolver(cache=cache, fallback=registry, policy=POLICY, clock=clock)
    yield resolver
    resolver.close()


def eventually(true: Callable[[], bool], seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.002)


def notice(epoch: int, host: str = HOST) -> Notice:
    return Notice("config", host, epoch, "")


# ----------------------------------------------------------------------------------------- levels


def test_one_read_for_a_cold_host_and_none_for_a_warm_one(
    resolver: Resolver, cache: FakeLevel, registry: FakeLevel
) -> None:
    for raw in (HOST, HOST.upper(), f"{HOST}:443", f"{HOST}."):
        assert resolver.resolve(raw).slug == "acme"
    assert cache.reads == {HOST: 1}
    assert not registry.reads


def test_what_the_cache_lacks_comes_from_behind_it(resolver: Resolver, cache: FakeLevel) -> None:
    cache.entries.clear()
    assert resolver.resolve(HOST).slug == "acme"


def test_no_tenant_only_where_the_last_level_says_so(
    resolver: Resolver, cache: FakeLevel, registry: FakeLevel, clock: Clock
) -> None:
    with pytest.raises(UnknownHost):
        resolver.resolve("nobody.example")
    with pytest.raises(UnknownHost):
        resolver.resolve("nobody.example")
    assert registry.reads == {"nobody.example": 1}, "it is remembered"
    clock.pass_by(POLICY.unknown_ttl)
    registry.down = True
    with pytest.raises(RoutingUnavailable) as caught:
        resolver.resolve("nobody.example")
    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    cache.down, registry.down = True, False
    with pytest.raises(UnknownHost):
        resolver.resolve("nobody.example")


def test_states_have_errors_of_their_own(resolver: Resolver, cache: FakeLevel) -> None:
    for status, error in (
        (Status.SUSPENDED, Suspended),
        (Status.PROVISIONING, Provisioning),
        (Status.GONE, UnknownHost),
    ):
        host = f"{status}.example"
        cache.put(config(host, status=status, database=None))
        for _ in range(2):
            with pytest.raises(error):
                resolver.resolve(host)
        assert cache.reads[host] == 1


def test_a_host_being_set_up_is_looked_at_again_soon(
    resolver: Resolver, cache: FakeLevel, clock: Clock
) -> None:
    cache.put(config(HOST, status=Status.PROVISIONING, database=None))
    with pytest.raises(Provisioning):
        resolver.resolve(HOST)
    cache.put(config(HOST, 2))
    clock.pass_by(POLICY.unknown_ttl)
    assert resolver.resolve(HOST).epoch == 2


def test_hosts_in_a_zone_that_no_tenant_can_have_are_never_looked_up(cache: FakeLevel) -> None:
    resolver = Resolver(cache=cache, zones=Zones(("tenants.example",)))
    for host in ("tenants.example", "www.tenants.example", "a.b.tenants.example", "x_y.tenants.example"):
        with pytest.raises(RoutingError):
            resolver.resolve(host)
    assert not cache.reads


def test_without_any_level_there_is_no_resolver() -> None:
    with pytest.raises(ValueError, match="cache, fallback: expected at least one level"):
        Resolver()


# ----------------------------------------------------------------------------------------- time


def test_an_old_entry_is_served_while_it_is_read_anew_behind(
    resolver: Resolver, cache: FakeLevel, clock: Clock
) -> None:
    resolver.resolve(HOST)
    cache.put(config(HOST, 2))
    clock.pass_by(POLICY.ttl)
    assert resolver.resolve(HOST).epoch == 1, "nobody waits"
    eventually(lambda: resolver.resolve(HOST).epoch == 2)
    assert cache.reads[HOST] == 2


def test_after_the_grace_it_is_read_before_it_is_served(
    resolver: Resolver, cache: FakeLevel, clock: Clock
) -> None:
    resolver.resolve(HOST)
    cache.put(config(HOST, 2))
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).epoch == 2


def test_with_everything_down_the_known_are_served_until_a_set_age(
    resolver: Resolver, cache: FakeLevel, registry: FakeLevel, clock: Clock
) -> None:
    resolver.resolve(HOST)
    cache.down = registry.down = True
    for _ in range(int(POLICY.max_age // 60)):
        clock.pass_by(59.9)
        assert resolver.resolve(HOST).slug == "acme"
    with pytest.raises(RoutingUnavailable):
        resolver.resolve("cold.example")
    clock.pass_by(2)
    eventually(lambda: not resolver._flights)
    clock.pass_by(600)
    with pytest.raises(RoutingUnavailable):
        resolver.resolve(HOST)
    cache.down = False
    assert resolver.resolve(HOST).slug == "acme"


def test_in_an_outage_only_the_first_request_waits_for_a_level(
    resolver: Resolver, cache: FakeLevel, registry: FakeLevel, clock: Clock
) -> None:
    resolver.resolve(HOST)
    cache.down = registry.down = True
    clock.pass_by(POLICY.ttl + POLICY.grace)
    resolver.resolve(HOST)
    reads = cache.reads[HOST]
    for _ in range(100):
        resolver.resolve(HOST)
    assert cache.reads[HOST] == reads


def test_a_cache_that_lost_everything_takes_nobody_offline_who_is_known(clock: Clock) -> None:
    cache = FakeLevel(config(HOST))
    resolver = Resolver(cache=cache, policy=POLICY, clock=clock)
    resolver.resolve(HOST)
    cache.entries.clear()
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).slug == "acme"
    cache.put(config(HOST, 2, status=Status.GONE, database=None))
    clock.pass_by(POLICY.retry)
    resolver.noticed(notice(2))
    with pytest.raises(UnknownHost):
        resolver.resolve(HOST)


# ----------------------------------------------------------------------------------------- changes


def test_a_notice_takes_effect_on_the_next_request(resolver: Resolver, cache: FakeLevel) -> None:
    resolver.resolve(HOST)
    cache.put(config(HOST, 2, status=Status.SUSPENDED))
    resolver.noticed(notice(2))
    with pytest.raises(Suspended):
        resolver.resolve(HOST)
    cache.put(config(HOST, 3))
    resolver.noticed(notice(3))
    assert resolver.resolve(HOST).epoch == 3


def test_a_notice_ends_not_known(resolver: Resolver, registry: FakeLevel) -> None:
    with pytest.raises(UnknownHost):
        resolver.resolve("new.example")
    registry.put(config("new.example"))
    resolver.noticed(notice(1, "new.example"))
    assert resolver.resolve("new.example").slug == "new"


def test_a_notice_of_what_is_known_costs_nothing(resolver: Resolver, cache: FakeLevel) -> None:
    cache.put(config(HOST, 7))
    resolver.resolve(HOST)
    for epoch in (7, 6):
        resolver.noticed(notice(epoch))
        resolver.resolve(HOST)
    assert cache.reads[HOST] == 1


def test_a_notice_without_an_epoch_is_looked_after_in_any_case(
    resolver: Resolver, cache: FakeLevel, registry: FakeLevel
) -> None:
    resolver.resolve(HOST)
    resolver.noticed(notice(0))
    resolver.resolve(HOST)
    assert cache.reads[HOST] == 2
    cache.down = registry.down = True
    resolver.noticed(notice(0))
    assert resolver.resolve(HOST).epoch == 1, "nothing says that it is outdated"


def test_a_slow_read_from_before_the_change_loses(resolver: Resolver, cache: FakeLevel) -> None:
    """The race: a reader has fetched the old entry, then the change and its notice come, then the
    reader would store what it has."""
    cache.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(resolver.resolve, HOST)
        assert cache.looked.wait(5)
        cache.put(config(HOST, 2))
        resolver.noticed(notice(2))
        cache.gate.set()
        assert slow.result(5).epoch == 2
    assert resolver.resolve(HOST).epoch == 2
    assert resolver.statistics.late == 1


def test_a_slow_not_found_from_before_the_first_publication_loses(
    resolver: Resolver, cache: FakeLevel
) -> None:
    cache.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(resolver.resolve, "new.example")
        assert cache.looked.wait(5)
        cache.put(config("new.example", 9))
        resolver.noticed(notice(9, "new.example"))
        cache.gate.set()
        assert slow.result(5).epoch == 9


def test_a_slow_read_from_before_the_listener_was_there_is_done_again(
    resolver: Resolver, cache: FakeLevel
) -> None:
    cache.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(resolver.resolve, HOST)
        assert cache.looked.wait(5)
        cache.put(config(HOST, 2))  # whose notice nobody heard
        resolver.connected()
        cache.gate.set()
        assert slow.result(5).epoch == 2


def test_a_level_that_lags_behind_a_notice_is_not_believed(
    resolver: Resolver, cache: FakeLevel, registry: FakeLevel, clock: Clock
) -> None:
    """A read replica, or a registry from before the change: better 503 than the tenant of yesterday."""
    resolver.resolve(HOST)
    resolver.noticed(notice(5))
    with pytest.raises(RoutingUnavailable):
        resolver.resolve(HOST)
    registry.put(config(HOST, 5, tenant_id="t-other"))
    assert resolver.resolve(HOST).tenant_id == "t-other"
    cache.put(config(HOST, 4))
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).epoch == 5, "and epochs never fall"


def test_a_forged_epoch_holds_for_a_bounded_time(resolver: Resolver, clock: Clock) -> None:
    resolver.resolve(HOST)
    resolver.noticed(notice(2**50))
    with pytest.raises(RoutingUnavailable):
        resolver.resolve(HOST)
    clock.pass_by(POLICY.hold_outdated)
    assert resolver.resolve(HOST).epoch == 1


def test_known_to_be_outdated_is_not_served_even_in_an_outage(
    resolver: Resolver, cache: FakeLevel, registry: FakeLevel
) -> None:
    resolver.resolve(HOST)
    resolver.noticed(notice(2))
    cache.down = registry.down = True
    with pytest.raises(RoutingUnavailable):
        resolver.resolve(HOST)


def test_while_nobody_listens_entries_live_short(cache: FakeLevel, registry: FakeLevel, clock: Clock) -> None:
    resolver = Resolver(cache=cache, fallback=registry, policy=POLICY, clock=clock)
    resolver.connected()
    resolver.resolve(HOST)
    resolver.lost()
    cache.put(config(HOST, 2))
    assert resolver.resolve(HOST).epoch == 1
    clock.pass_by(POLICY.unwatched_ttl)
    resolver.resolve(HOST)
    eventually(lambda: resolver.resolve(HOST).epoch == 2)
    cache.put(config(HOST, 3))
    resolver.connected()
    assert resolver.resolve(HOST).epoch == 3, "what was missed is caught up with before it is served"
    resolver.close()


# ----------------------------------------------------------------------------------------- load


def test_a_herd_on_a_cold_host_is_one_read(resolver: Resolver, cache: FakeLevel) -> None:
    """Issue: 1,000 simultaneous requests for one cold host cause 1 read behind."""
    cache.gate = threading.Event()
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
    cache.gate.set()
    for thread in herd:
        thread.join(10)
    assert len(seen) == 1000
    assert cache.reads == {HOST: 1}


def test_a_herd_of_coroutines_is_one_read(resolver: Resolver, cache: FakeLevel) -> None:
    cache.gate = threading.Event()

    async def herd() -> list[TenantConfig | BaseException]:
        asked = [asyncio.create_task(resolver.resolve_async(host)) for host in (HOST, "no.example") * 500]
        await asyncio.to_thread(cache.looked.wait, 5)
        asked[0].cancel()
        assert cache.gate is not None
        cache.gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(herd())
    assert isinstance(answers[0], asyncio.CancelledError), "one that gives up takes nobody with it"
    assert all(isinstance(answer, UnknownHost) for answer in answers[1::2])
    assert all(isinstance(answer, TenantConfig) for answer in answers[2::2])
    assert cache.reads == {HOST: 1, "no.example": 1}


def test_one_slow_host_holds_up_no_other(resolver: Resolver, cache: FakeLevel) -> None:
    cache.put(config("other.example"))
    resolver.resolve("other.example")
    cache.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(resolver.resolve, HOST)
        assert cache.looked.wait(5)
        began = time.perf_counter()
        for _ in range(1000):
            resolver.resolve("other.example")
        assert time.perf_counter() - began < 1
        cache.gate.set()
        slow.result(5)


def test_who_waits_too_long_for_anothers_read_is_answered(cache: FakeLevel) -> None:
    resolver = Resolver(cache=cache, policy=Policy(wait=0.05))
    cache.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(resolver.resolve, HOST)
        assert cache.looked.wait(5)
        with pytest.raises(RoutingUnavailable):
            resolver.resolve(HOST)
        cache.gate.set()
        assert first.result(5).slug == "acme"


def test_memory_is_bounded_and_keeps_what_is_used(clock: Clock) -> None:
    hosts = [f"h{number}.example" for number in range(100)]
    cache = FakeLevel(*(config(host) for host in hosts))
    resolver = Resolver(cache=cache, policy=Policy(capacity=10), clock=clock)
    for host in hosts:
        resolver.resolve(host)
        resolver.resolve(hosts[0])
        assert len(resolver) <= 10
    assert cache.reads[hosts[0]] == 1
    assert resolver.statistics.evictions == 90


def test_scanners_push_no_tenant_out_of_memory(clock: Clock) -> None:
    cache = FakeLevel(config(HOST))
    resolver = Resolver(cache=cache, policy=Policy(capacity=10, unknown_capacity=50), clock=clock)
    resolver.resolve(HOST)
    for number in range(1000):
        with pytest.raises(UnknownHost):
            resolver.resolve(f"scan{number}.example")
    assert len(resolver._unknown) <= 50
    resolver.resolve(HOST)
    assert cache.reads[HOST] == 1


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
    resolver: Resolver, cache: FakeLevel
) -> None:
    resolver.resolve(HOST)
    held = resolver._lock
    with held:  # as another thread of the parent might at the moment of the fork
        child = os.fork()
        if child == 0:
            os._exit(0 if resolver.resolve(HOST).slug == "acme" and cache.reads[HOST] == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
