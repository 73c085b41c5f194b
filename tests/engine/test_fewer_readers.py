"""A plan with fewer readers: the guard lets exactly those go that the new plan does without."""

from __future__ import annotations

from dataclasses import replace

from controlplane.localcloud.fakes.aws import FakeAccount
from tests.harness.engine import Harness


def test_a_plan_with_one_instance_less_is_applied_without_a_person(harness: Harness) -> None:
    plans = dict(harness.ctx.catalogue.plans)
    plans["large"] = replace(
        plans["dedicated"], name="large", lookup_keys=("large",), instance_count=3, max_acu=64
    )
    harness.ctx = replace(harness.ctx, catalogue=replace(harness.ctx.catalogue, plans=plans))
    subscription = harness.subscribe(1, plan="large")
    harness.hear(subscription)
    harness.work()
    home = harness.placement(subscription).cluster_id
    account = FakeAccount(harness.world)
    assert account.names("instance") == [f"{home}-1", f"{home}-2", f"{home}-3"]
    harness.subscribe(1, plan="dedicated")
    harness.hear(subscription)
    harness.work()
    assert account.names("instance") == [f"{home}-1"]
    assert harness.violations() == []
