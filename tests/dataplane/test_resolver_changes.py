"""Changes: an invalidation takes effect at once, and what was read before it loses."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataplane.errors import (
    RoutingUnavailable,
    Suspended,
    UnknownHost,
)
from dataplane.resolver import Resolver
from dataplane.tenant_config import MAX_EPOCH, Status
from tests.dataplane.resolving import HOST, POLICY, eventually, invalidation
from tests.dataplane.tiers import Clock, FakeTier, config


def test_a_notice_takes_effect_on_the_next_request(resolver: Resolver, near: FakeTier) -> None:
    resolver.resolve(HOST)
    near.put(config(HOST, 2, status=Status.SUSPENDED))
    resolver.invalidated(invalidation(2))
    with pytest.raises(Suspended):
        resolver.resolve(HOST)
    near.put(config(HOST, 3))
    resolver.invalidated(invalidation(3))
    assert resolver.resolve(HOST).epoch == 3


def test_a_notice_ends_not_known(resolver: Resolver, far: FakeTier) -> None:
    with pytest.raises(UnknownHost):
        resolver.resolve("new.example")
    far.put(config("new.example"))
    resolver.invalidated(invalidation(1, "new.example"))
    assert resolver.resolve("new.example").slug == "new"


def test_a_notice_of_what_is_known_costs_nothing(resolver: Resolver, near: FakeTier) -> None:
    near.put(config(HOST, 7))
    resolver.resolve(HOST)
    for epoch in (7, 6):
        resolver.invalidated(invalidation(epoch))
        resolver.resolve(HOST)
    assert near.reads[HOST] == 1


def test_a_notice_without_an_epoch_is_looked_after_in_any_case(
    resolver: Resolver, near: FakeTier, far: FakeTier
) -> None:
    resolver.resolve(HOST)
    resolver.invalidated(invalidation(0))
    resolver.resolve(HOST)
    assert near.reads[HOST] == 2
    near.down = far.down = True
    resolver.invalidated(invalidation(0))
    assert resolver.resolve(HOST).epoch == 1, "nothing says that it is outdated"


def test_a_slow_read_from_before_the_change_loses(resolver: Resolver, near: FakeTier) -> None:
    """The race: a reader has fetched the old entry, then the change and its invalidation come, then the
    reader would store what it has."""
    near.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(resolver.resolve, HOST)
        assert near.looked.wait(60)
        near.put(config(HOST, 2))
        resolver.invalidated(invalidation(2))
        near.gate.set()
        assert slow.result(60).epoch == 2
    assert resolver.resolve(HOST).epoch == 2
    assert resolver.statistics.late == 1


def test_a_slow_not_found_from_before_the_first_publication_loses(resolver: Resolver, near: FakeTier) -> None:
    near.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(resolver.resolve, "new.example")
        assert near.looked.wait(60)
        near.put(config("new.example", 9))
        resolver.invalidated(invalidation(9, "new.example"))
        near.gate.set()
        assert slow.result(60).epoch == 9


def test_a_slow_read_from_before_the_listener_was_there_is_done_again(
    resolver: Resolver, near: FakeTier
) -> None:
    near.gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(resolver.resolve, HOST)
        assert near.looked.wait(60)
        near.put(config(HOST, 2))  # whose invalidation nobody heard
        resolver.connected()
        near.gate.set()
        assert slow.result(60).epoch == 2


def test_a_tier_that_lags_behind_a_notice_is_not_believed(
    resolver: Resolver, near: FakeTier, far: FakeTier, clock: Clock
) -> None:
    """A read replica, or a registry from before the change: better 503 than the tenant of yesterday."""
    resolver.resolve(HOST)
    resolver.invalidated(invalidation(5))
    with pytest.raises(RoutingUnavailable):
        resolver.resolve(HOST)
    far.put(config(HOST, 5, tenant_id="t-other"))
    assert resolver.resolve(HOST).tenant_id == "t-other"
    near.put(config(HOST, 4))
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).epoch == 5, "and epochs never fall"


def test_a_forged_epoch_holds_for_a_bounded_time(resolver: Resolver, clock: Clock) -> None:
    resolver.resolve(HOST)
    resolver.invalidated(invalidation(2**50))
    with pytest.raises(RoutingUnavailable):
        resolver.resolve(HOST)
    clock.pass_by(POLICY.hold_outdated)
    assert resolver.resolve(HOST).epoch == 1


def test_known_to_be_outdated_is_not_served_even_in_an_outage(
    resolver: Resolver, near: FakeTier, far: FakeTier
) -> None:
    resolver.resolve(HOST)
    resolver.invalidated(invalidation(2))
    near.down = far.down = True
    with pytest.raises(RoutingUnavailable):
        resolver.resolve(HOST)


def test_while_nobody_listens_entries_live_short(near: FakeTier, far: FakeTier, clock: Clock) -> None:
    resolver = Resolver(cache=near, fallback=far, policy=POLICY, clock=clock)
    resolver.connected()
    resolver.resolve(HOST)
    resolver.lost()
    near.put(config(HOST, 2))
    assert resolver.resolve(HOST).epoch == 1
    clock.pass_by(POLICY.unwatched_ttl)
    resolver.resolve(HOST)
    eventually(lambda: resolver.resolve(HOST).epoch == 2)
    near.put(config(HOST, 3))
    resolver.connected()
    assert resolver.resolve(HOST).epoch == 3, "what was missed is caught up with before it is served"
    resolver.close()


def test_a_forged_entry_is_let_go_of_when_the_control_plane_has_overwritten_it(
    resolver: Resolver, near: FakeTier, far: FakeTier
) -> None:
    """Its epoch is signed and the highest there is; the true entry is older, and the last tier knows it."""
    near.put(config(HOST, MAX_EPOCH, tenant_id="t-attacker"))
    assert resolver.resolve(HOST).tenant_id == "t-attacker"
    near.put(config(HOST, 7))
    far.put(config(HOST, 7))
    resolver.invalidated(invalidation(7))
    assert resolver.resolve(HOST).epoch == 7
    assert resolver.resolve(HOST).epoch == 7
    near.put(config(HOST, 8, status=Status.SUSPENDED))
    resolver.invalidated(invalidation(8))
    with pytest.raises(Suspended):
        resolver.resolve(HOST)


def test_without_the_notice_a_forged_entry_is_let_go_of_when_it_is_confirmed(
    resolver: Resolver, near: FakeTier, far: FakeTier, clock: Clock
) -> None:
    near.put(config(HOST, 9, tenant_id="t-attacker"))
    resolver.resolve(HOST)
    near.put(config(HOST, 7))
    far.put(config(HOST, 7))
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).epoch == 7


def test_an_older_entry_of_the_cache_alone_is_not_taken(
    resolver: Resolver, near: FakeTier, far: FakeTier, clock: Clock
) -> None:
    """Somebody has put back an entry that was signed once."""
    near.put(config(HOST, 9))
    far.put(config(HOST, 9))
    resolver.resolve(HOST)
    near.put(config(HOST, 5, tenant_id="t-former"))
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).epoch == 9
    far.down = True
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).epoch == 9
