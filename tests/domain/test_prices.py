"""The monthly floor of an idle tenant, by its parts."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain import prices
from controlplane.domain.catalogue import Isolation, Plan
from tests.domain.test_pool import plan


def shared(**fields: Any) -> Plan:
    usual: dict[str, Any] = {"isolation": Isolation.SHARED, "slots": 25, "min_acu": 0.0}
    return plan("shared", **usual | {"seconds_until_auto_pause": 300} | fields)


def test_a_tenant_pays_for_its_secret_and_its_share_of_a_full_cluster() -> None:
    found = prices.idle_floor(shared())
    assert {name: round(usd, 4) for name, usd in found.items()} == {
        "secret": 0.4,
        "master_secret": 0.016,
        "key": 0.04,
        "capacity": 0.0,
        "storage": 0.0009,
        "snapshot": 0.0002,
        "log_group": 0.0,
        "available": 0.0,
    }
    alone = prices.idle_floor(shared(isolation=Isolation.DEDICATED, slots=1))
    assert (alone["secret"], alone["master_secret"], alone["key"]) == (0.4, 0.4, 1.0)


@pytest.mark.parametrize(("least", "instances", "usd"), [(0.5, 1, 43.8), (1.0, 2, 175.2), (0.0, 2, 0.0)])
def test_capacity_is_what_every_instance_uses_at_its_least(least: float, instances: int, usd: float) -> None:
    found = prices.idle_floor(shared(min_acu=least, instance_count=instances, slots=10))
    assert round(found["capacity"], 4) == round(usd / 10, 4)


def test_unbound_placements_are_paid_for_by_those_that_are_bound() -> None:
    without, some = prices.idle_floor(shared()), prices.idle_floor(shared(warm_slots=5))
    assert some["available"] == pytest.approx(sum(without.values()) * 5 / 25)
    assert {name: usd for name, usd in some.items() if name != "available"} == {
        name: usd for name, usd in without.items() if name != "available"
    }


@pytest.mark.parametrize(
    ("fields", "over"),
    [
        ({}, False),
        ({"warm_slots": 2}, False),
        ({"warm_slots": 3}, True),
        ({"slots": 14}, False),
        ({"slots": 13}, True),
        ({"min_acu": 0.5}, True),
        ({"isolation": Isolation.DEDICATED, "slots": 1}, False),
    ],
)
def test_the_goal_is_a_shared_tenants(fields: dict[str, Any], over: bool) -> None:
    assert prices.over_goal(shared(**fields)) is over
