"""What is read before each step, and what of the outside is carried from one step to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from controlplane.domain.steps import StepName
from controlplane.domain.tenant import Phase
from controlplane.workers.engine import observe
from controlplane.workers.engine.record import load_tenant
from controlplane.workers.steps.registry import CLUSTER_ACTS, DELETES, TENANT_ACTS, TOUCHES
from tests.harness.engine import ZONE, Harness

CREATED = "customer.subscription.created"


class Told:
    """Every outside call, by name; `at`: what happens right after the first call of a name."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.at: dict[str, Any] = {}

    def __call__(self, point: str) -> None:
        name, _, when = point.rpartition(":")
        if when == "after":
            self.calls.append(name)
            if (act := self.at.pop(name, None)) is not None:
                act()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watched(database_url: str, registry: object, told: Told) -> Iterator[Harness]:
    opened = Harness(database_url, crash=told)
    yield opened
    opened.close()


def sign_up(harness: Harness, number: int = 1) -> str:
    subscription = harness.subscribe(number)
    harness.hear(subscription, CREATED)
    return subscription


def steps_of(harness: Harness, tenant_id: str) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT name FROM step JOIN operation o ON o.id = step.operation_id"
            " WHERE o.resource_id = %s ORDER BY o.id, seq",
            [tenant_id],
        )
        return [row["name"] for row in rows]


def test_the_record_is_read_by_one_statement(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = sign_up(harness)
    harness.work()
    tenant_id = harness.tenant(subscription).id
    statements: list[object] = []
    execute = psycopg.Cursor.execute

    def counted(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
        statements.append(query)
        return execute(cursor, query, *args, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    assert load_tenant(harness.ctx, tenant_id).row.id == tenant_id
    [statement] = statements
    assert b"FROM tenant" in statement  # type: ignore[operator]


def test_a_step_asks_again_only_for_what_it_touches(watched: Harness, told: Told) -> None:
    first = sign_up(watched)
    watched.work()
    told.calls.clear()
    second = sign_up(watched, 2)  # on a cluster that is ready
    watched.work()
    taken = steps_of(watched, watched.tenant(second).id)
    assert len(taken) == 8
    calls = Counter(told.calls)
    # until it waits for its secret, when that is there, in the long lane, before it is called reconciled
    full, written = 4, taken.count("write_credential")
    assert calls["secrets.describe"] <= full + 2 * written, "at its own steps"
    assert calls["databases.observe"] <= full + 4, "create, open, migrate: its own steps alone"
    assert calls["config_cache.read"] <= full + taken.count("announce") + taken.count("publish")
    assert watched.violations() == []
    assert watched.tenant(first).phase is Phase.ACTIVE


def test_what_is_changed_by_hand_in_the_middle_is_found_before_it_is_called_reconciled(
    watched: Harness, told: Told
) -> None:
    """The logins are closed behind the engine's back, after its last look at the database."""
    sign_up(watched)
    watched.work()
    second = sign_up(watched, 2)

    def close() -> None:
        placed = watched.placement(second)
        watched.databases.close_logins(watched.endpoint(placed), placed)

    told.at["databases.prove"] = close
    watched.work()
    placed = watched.placement(second)
    assert watched.lets_in(placed)
    assert steps_of(watched, placed.tenant_id)[-2:] == ["publish", "open_logins"]


def test_a_cache_that_loses_everything_in_the_middle_is_found(watched: Harness, told: Told) -> None:
    first = sign_up(watched)
    told.at["databases.prove"] = watched.cache.flush
    watched.work()
    entry = watched.cache.read(f"{watched.tenant(first).slug}.{ZONE}")
    assert entry is not None
    assert entry.payload["status"] == "active"


def test_everything_is_asked_anew_after_its_time(
    watched: Harness, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "LASTS", -1.0)
    subscription = sign_up(watched)
    watched.work()
    taken = steps_of(watched, watched.tenant(subscription).id)
    assert Counter(told.calls)["secrets.describe"] >= len(taken)


def test_what_is_to_be_asked_is_another_thing_once_the_record_names_other_things(harness: Harness) -> None:
    subscription = sign_up(harness)
    harness.work()
    known = load_tenant(harness.ctx, harness.tenant(subscription).id)
    observed = observe.observe_tenant(harness.ctx, known)
    assert observed.holds(harness.ctx, known)
    assert known.cluster is not None
    assert known.placement is not None
    others = (
        replace(known, placement=replace(known.placement, id="p-777777777777")),
        replace(
            known, cluster=replace(known.cluster, endpoint={**(known.cluster.endpoint or {}), "port": 1})
        ),
        replace(known, cluster=replace(known.cluster, ready_at=None)),
        replace(known, around=replace(known.around, routed={**known.around.routed, "a.example": "active"})),
        replace(known, row=replace(known.row, slug="another")),
    )
    assert not any(observed.holds(harness.ctx, other) for other in others)


def test_whatever_takes_data_away_is_decided_by_a_fresh_look() -> None:
    taking = {
        name
        for name in TENANT_ACTS
        if name.value.startswith(("drop_", "destroy_", "delete_", "release_"))
        or name.value == "remove_placement"
    }
    assert taking == DELETES
    assert not DELETES & TOUCHES.keys(), "and after it everything is looked at"
    assert StepName.DESTROY_CLUSTER_STACK in CLUSTER_ACTS, "a cluster is looked at before each of its steps"
