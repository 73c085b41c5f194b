"""Who is asked, and what each answer means; time, and what is served when nobody answers."""

from __future__ import annotations

import pytest

from dataplane.errors import (
    Provisioning,
    RoutingError,
    RoutingUnavailable,
    Suspended,
    UnknownHost,
)
from dataplane.hosts import Zones
from dataplane.resolver import Resolver
from dataplane.tenant_config import Status
from tests.dataplane.resolving import HOST, POLICY, eventually, invalidation
from tests.dataplane.tiers import Clock, FakeTier, config


def test_one_read_for_a_cold_host_and_none_for_a_warm_one(
    resolver: Resolver, near: FakeTier, far: FakeTier
) -> None:
    for raw in (HOST, HOST.upper(), f"{HOST}:443", f"{HOST}."):
        assert resolver.resolve(raw).slug == "acme"
    assert near.reads == {HOST: 1}
    assert not far.reads


def test_what_the_cache_lacks_comes_from_behind_it(resolver: Resolver, near: FakeTier) -> None:
    near.entries.clear()
    assert resolver.resolve(HOST).slug == "acme"


def test_no_tenant_only_where_the_last_tier_says_so(
    resolver: Resolver, near: FakeTier, far: FakeTier, clock: Clock
) -> None:
    with pytest.raises(UnknownHost):
        resolver.resolve("nobody.example")
    with pytest.raises(UnknownHost):
        resolver.resolve("nobody.example")
    assert far.reads == {"nobody.example": 1}, "it is remembered"
    clock.pass_by(POLICY.unknown_ttl)
    far.down = True
    with pytest.raises(RoutingUnavailable) as caught:
        resolver.resolve("nobody.example")
    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    near.down, far.down = True, False
    with pytest.raises(UnknownHost):
        resolver.resolve("nobody.example")


def test_states_have_errors_of_their_own(resolver: Resolver, near: FakeTier) -> None:
    for status, error in (
        (Status.SUSPENDED, Suspended),
        (Status.PROVISIONING, Provisioning),
        (Status.GONE, UnknownHost),
    ):
        host = f"{status}.example"
        near.put(config(host, status=status, database=None))
        for _ in range(2):
            with pytest.raises(error):
                resolver.resolve(host)
        assert near.reads[host] == 1


def test_a_host_being_set_up_is_looked_at_again_soon(
    resolver: Resolver, near: FakeTier, clock: Clock
) -> None:
    near.put(config(HOST, status=Status.PROVISIONING, database=None))
    with pytest.raises(Provisioning):
        resolver.resolve(HOST)
    near.put(config(HOST, 2))
    clock.pass_by(POLICY.unknown_ttl)
    assert resolver.resolve(HOST).epoch == 2


def test_hosts_in_a_zone_that_no_tenant_can_have_are_never_looked_up(near: FakeTier) -> None:
    resolver = Resolver(cache=near, zones=Zones(("tenants.example",)))
    for label in ("", "www.", "billing.", "mta-sts.", "a.b.", "x_y."):
        host = f"{label}tenants.example"
        with pytest.raises(RoutingError):
            resolver.resolve(host)
    assert not near.reads


def test_without_any_tier_there_is_no_resolver() -> None:
    with pytest.raises(ValueError, match="cache, fallback: expected at least one tier"):
        Resolver()


def test_an_old_entry_is_served_while_it_is_read_anew_behind(
    resolver: Resolver, near: FakeTier, clock: Clock
) -> None:
    resolver.resolve(HOST)
    near.put(config(HOST, 2))
    clock.pass_by(POLICY.ttl)
    assert resolver.resolve(HOST).epoch == 1, "nobody waits"
    eventually(lambda: resolver.resolve(HOST).epoch == 2)
    assert near.reads[HOST] == 2


def test_after_the_grace_it_is_read_before_it_is_served(
    resolver: Resolver, near: FakeTier, clock: Clock
) -> None:
    resolver.resolve(HOST)
    near.put(config(HOST, 2))
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).epoch == 2


def test_with_everything_down_the_known_are_served_until_a_set_age(
    resolver: Resolver, near: FakeTier, far: FakeTier, clock: Clock
) -> None:
    resolver.resolve(HOST)
    near.down = far.down = True
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
    near.down = False
    assert resolver.resolve(HOST).slug == "acme"


def test_in_an_outage_only_the_first_request_waits_for_a_tier(
    resolver: Resolver, near: FakeTier, far: FakeTier, clock: Clock
) -> None:
    resolver.resolve(HOST)
    near.down = far.down = True
    clock.pass_by(POLICY.ttl + POLICY.grace)
    resolver.resolve(HOST)
    reads = near.reads[HOST]
    for _ in range(100):
        resolver.resolve(HOST)
    assert near.reads[HOST] == reads


def test_a_cache_that_lost_everything_takes_nobody_offline_who_is_known(clock: Clock) -> None:
    near = FakeTier(config(HOST))
    resolver = Resolver(cache=near, policy=POLICY, clock=clock)
    resolver.resolve(HOST)
    near.entries.clear()
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert resolver.resolve(HOST).slug == "acme"
    near.put(config(HOST, 2, status=Status.GONE, database=None))
    clock.pass_by(POLICY.retry)
    resolver.invalidated(invalidation(2))
    with pytest.raises(UnknownHost):
        resolver.resolve(HOST)


# ------------------------------------------------------------------------------- entries that have expired

PAST = Clock()
"""The time of day, which is not the time by which memory counts."""


@pytest.fixture
def expiring(near: FakeTier, far: FakeTier, clock: Clock) -> Resolver:
    near.put(config(HOST, 3, not_after=999, slug="kept"))
    far.put(config(HOST, 3, not_after=2000, slug="issued"))
    return Resolver(cache=near, fallback=far, policy=POLICY, clock=clock, now=PAST)


def test_a_cold_process_takes_the_control_planes_word_over_an_expired_entry(
    expiring: Resolver, near: FakeTier, far: FakeTier
) -> None:
    assert expiring.resolve(HOST).slug == "issued"
    assert (near.reads[HOST], far.reads[HOST]) == (1, 1)


@pytest.mark.parametrize("not_after", [1000, 1001])
def test_an_entry_is_believed_to_the_end_of_its_last_second(
    expiring: Resolver, near: FakeTier, far: FakeTier, not_after: int
) -> None:
    near.put(config(HOST, 3, not_after=not_after, slug="kept"))
    assert expiring.resolve(HOST).slug == "kept"
    assert not far.reads


def test_an_expired_entry_leads_nowhere_where_the_control_plane_knows_of_none(
    expiring: Resolver, far: FakeTier
) -> None:
    far.entries.clear()
    with pytest.raises(UnknownHost):
        expiring.resolve(HOST)


def test_an_expired_entry_is_better_than_none(expiring: Resolver, far: FakeTier, clock: Clock) -> None:
    far.down = True
    assert expiring.resolve(HOST).slug == "kept"
    far.down = False
    clock.pass_by(POLICY.ttl + POLICY.grace)
    assert expiring.resolve(HOST).slug == "issued"


def test_an_expired_entry_is_not_taken_where_the_control_plane_answers_of_another_time(
    expiring: Resolver, far: FakeTier
) -> None:
    """An invalidation demands epoch 3; the control plane's is older, but it answers: its word is awaited."""
    far.put(config(HOST, 2, not_after=2000))
    assert expiring.resolve(HOST).epoch == 2
    expiring.invalidated(invalidation(3))
    with pytest.raises(RoutingUnavailable):
        expiring.resolve(HOST)


def test_without_a_control_plane_an_expired_entry_serves(near: FakeTier, clock: Clock) -> None:
    near.put(config(HOST, 3, not_after=999))
    assert Resolver(cache=near, policy=POLICY, clock=clock, now=PAST).resolve(HOST).epoch == 3


def test_memory_does_not_ask_for_the_time(near: FakeTier, far: FakeTier, clock: Clock) -> None:
    today = Clock()
    resolver = Resolver(cache=near, fallback=far, policy=POLICY, clock=clock, now=today)
    near.put(config(HOST, 3, not_after=1010))
    assert resolver.resolve(HOST).epoch == 3
    near.down = far.down = True
    today.pass_by(1_000_000)
    clock.pass_by(POLICY.ttl + POLICY.grace)
    for _ in range(3):
        assert resolver.resolve(HOST).epoch == 3
