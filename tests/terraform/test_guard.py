"""I6: what a plan may not do unasked."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.ports import PlannedChange
from controlplane.workers.providers.terraform import guard

CLUSTER = "module.cluster.aws_rds_cluster.this"


def change(actions: list[str], address: str = CLUSTER, **more: Any) -> dict[str, Any]:
    return {"address": address, "mode": "managed", "change": {"actions": actions}} | more


@pytest.mark.parametrize(
    ("actions", "action", "destructive"),
    [
        (["create"], "create", False),
        (["update"], "update", False),
        (["delete"], "delete", True),
        (["delete", "create"], "replace", True),
        (["create", "delete"], "replace", True),
        (["forget"], "delete", True),
        (["create", "forget"], "replace", True),
    ],
)
def test_each_action_is_read(actions: list[str], action: str, destructive: bool) -> None:
    assert guard.changes_of({"resource_changes": [change(actions)]}) == [
        PlannedChange(CLUSTER, action, destructive)
    ]


def test_what_does_nothing_is_left_out() -> None:
    plan = {"resource_changes": [change(["no-op"]), change(["read"]), change(["delete"], mode="data")]}
    assert guard.changes_of(plan) == []
    assert guard.changes_of({}) == []


def test_an_import_is_one_even_where_it_also_changes() -> None:
    for actions in (["no-op"], ["update"]):
        imported = {"address": CLUSTER, "mode": "managed"}
        imported["change"] = {"actions": actions, "importing": {"id": "c-1"}}
        assert guard.changes_of({"resource_changes": [imported]}) == [PlannedChange(CLUSTER, "import", False)]


def test_an_import_that_replaces_is_a_replacement() -> None:
    imported = {"address": CLUSTER, "mode": "managed"}
    imported["change"] = {"actions": ["delete", "create"], "importing": {"id": "c-1"}}
    assert guard.changes_of({"resource_changes": [imported]}) == [PlannedChange(CLUSTER, "replace", True)]


def test_destruction_needs_the_very_address_approved() -> None:
    changes = [PlannedChange(CLUSTER, "replace", True), PlannedChange("a.b", "create", False)]
    guard.check(changes, {CLUSTER})
    for approved in ((), {"module.cluster.aws_rds_cluster"}, {f"{CLUSTER}[0]"}):
        with pytest.raises(NeedsHuman, match=CLUSTER) as refused:
            guard.check(changes, approved)
        assert refused.value.runbook == "destructive-terraform-plan"


def test_a_long_list_is_cut_and_counted() -> None:
    changes = [PlannedChange(f"a.b[{n}]", "delete", True) for n in range(25)]
    with pytest.raises(NeedsHuman, match="and 15 more"):
        guard.check(changes, ())


def test_a_tainted_resource_is_known() -> None:
    plan = {"resource_changes": [change(["delete", "create"], action_reason="replace_because_tainted")]}
    assert guard.tainted(plan) == {CLUSTER}
    assert guard.tainted({"resource_changes": [change(["delete", "create"])]}) == frozenset()
