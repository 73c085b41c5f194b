"""A plan with fewer readers: the guard lets exactly those go that the new plan does without."""

from __future__ import annotations

from dataclasses import replace

from localcloud.fakes.aws import FakeAccount
from tests.engine.house import House


def test_a_plan_with_one_instance_less_is_applied_without_a_person(house: House) -> None:
    plans = dict(house.ctx.catalogue.plans)
    plans["large"] = replace(
        plans["dedicated"], name="large", lookup_keys=("large",), instance_count=3, max_acu=64
    )
    house.ctx = replace(house.ctx, catalogue=replace(house.ctx.catalogue, plans=plans))
    subscription = house.subscribe(1, plan="large")
    house.hear(subscription)
    house.work()
    home = house.placement(subscription).cluster_id
    account = FakeAccount(house.world)
    assert account.names("instance") == [f"{home}-1", f"{home}-2", f"{home}-3"]
    house.subscribe(1, plan="dedicated")
    house.hear(subscription)
    house.work()
    assert account.names("instance") == [f"{home}-1"]
    assert house.violations() == []
