"""The range of releases that an application serves: shared vectors, and what the resolver makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataplane.credentials import StaticCredentials
from dataplane.errors import BeingUpdated, Suspended
from dataplane.pages import answer
from dataplane.releases import ALL, Releases
from dataplane.resolver import Resolver
from dataplane.settings import SettingsError, from_environment
from dataplane.tenant_config import Status
from tests.dataplane.resolving import HOST, POLICY, invalidation
from tests.dataplane.test_settings import GOOD
from tests.dataplane.tiers import Clock, FakeTier, config

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "releases.json").read_text())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: str(case["range"]))
def test_served_vector(case: dict[str, Any]) -> None:
    releases = ALL if case["range"] is None else Releases.parse(case["range"])
    assert [release for release in case["served"] if not releases.serve(release)] == []
    assert [release for release in case["refused"] if releases.serve(release)] == []


@pytest.mark.parametrize("text", VECTORS["errors"], ids=ascii)
def test_error_vector(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected releases such as 0003\.\.0005"):
        Releases.parse(text)


@pytest.fixture
def tier() -> FakeTier:
    return FakeTier(config(HOST, release="0003"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(tier: FakeTier, clock: Clock) -> Resolver:
    """Of an application for 0002 to 0003."""
    made = Resolver(cache=tier, policy=POLICY, releases=Releases.parse("0002..0003"), clock=clock)
    made.connected()
    return made


def test_a_tenant_within_the_range_is_served_from_memory(resolver: Resolver, tier: FakeTier) -> None:
    assert [resolver.resolve(HOST).release for _ in range(3)] == ["0003"] * 3
    assert tier.reads[HOST] == 1


def test_one_that_a_rollout_took_out_of_it_is_told_so_at_the_notice(
    resolver: Resolver, tier: FakeTier
) -> None:
    resolver.resolve(HOST)
    tier.put(config(HOST, 2, release="0004"))
    resolver.invalidated(invalidation(2))
    with pytest.raises(BeingUpdated) as caught:
        resolver.resolve(HOST)
    status, headers, body = answer(caught.value, "application/json")
    assert (status, dict(headers)["Retry-After"]) == (503, "5")
    assert json.loads(body)["error"] == "being-updated"


def test_one_that_its_rollout_has_not_reached_yet_is_served_once_it_has(
    resolver: Resolver, tier: FakeTier, clock: Clock
) -> None:
    tier.put(config(HOST, 1, release="0001"))
    for _ in range(3):
        with pytest.raises(BeingUpdated):
            resolver.resolve(HOST)
    assert tier.reads[HOST] == 1
    tier.put(config(HOST, 2, release="0002"))
    clock.pass_by(POLICY.unknown_ttl)  # no invalidation came: it is looked at again all the same
    assert resolver.resolve(HOST).release == "0002"


def test_a_suspended_tenant_is_suspended_whatever_its_release(resolver: Resolver, tier: FakeTier) -> None:
    tier.put(config(HOST, status=Status.SUSPENDED, database=None))
    with pytest.raises(Suspended):
        resolver.resolve(HOST)


def test_an_application_that_says_nothing_serves_every_release(tier: FakeTier) -> None:
    tier.put(config(HOST))
    assert Resolver(cache=tier, policy=POLICY).resolve(HOST).release is None


def test_the_environment_says_it() -> None:
    made = from_environment(GOOD | {"DATAPLANE_RELEASES": "0002.."}, credentials=StaticCredentials({}))
    assert made.resolver._memory.releases == Releases("0002", None)
    made.close()
    with pytest.raises(SettingsError, match=r"DATAPLANE_RELEASES: expected releases such as .* got '2\.\.'"):
        from_environment(GOOD | {"DATAPLANE_RELEASES": "2.."})
