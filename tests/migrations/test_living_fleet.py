"""A rollout while customers come, stop paying, leave, come back, are promoted and are purged: in the end
everything agrees.

The whole engine on fakes, with a rollout that is cut into small slices; between two of them something
happens to somebody. A tenant whose lease the engine holds is migrated all the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import Conflict
from controlplane.domain.job import JobKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.release import Adapter
from controlplane.domain.rollout import Spec
from controlplane.domain.tenant import Lifecycle
from controlplane.localcloud.fakes.databases import APPLIED, DATABASE
from controlplane.services import releases, rollouts
from controlplane.store import placement, tenant
from controlplane.workers.jobs import rollouts as executor
from tests.engine.conftest import harness
from tests.harness.engine import (
    MIGRATIONS,
    ZONE,
    Harness,
)
from tests.harness.work import do_one

__all__ = ["harness"]

NEW = {"0003_stars.sql": "ALTER TABLE note ADD stars int", "0004_tags.sql": "CREATE TABLE tag (id int)"}


def register(harness: Harness, *names: str) -> str:
    files = {path.name: path.read_text() for path in sorted(MIGRATIONS.glob("*.sql"))}
    files |= {name: NEW[name] for name in names}
    with harness.ctx.registry.connection() as conn:
        named = [(name, releases.store_file(conn, text.encode())) for name, text in files.items()]
        return releases.create(conn, Adapter.SQL, named, lambda _: [], actor="test").release.number


def start(harness: Harness, number: str, **spec: object) -> int:
    with harness.ctx.registry.connection() as conn:
        return rollouts.start(conn, number, Spec.from_json(spec), actor="test")


def state(harness: Harness, rollout_id: int) -> str:
    with harness.ctx.registry.connection() as conn:
        return rollouts.show(conn, rollout_id).rollout.state


def customer(harness: Harness, number: int, status: str = "active", plan: str = "shared") -> str:
    subscription = harness.subscribe(number, status=status, plan=plan)
    harness.hear(subscription)
    return subscription


def left(harness: Harness, number: int) -> bool:
    """Has this customer left, and has the engine heard of it?"""
    harness.work()
    with harness.ctx.registry.connection() as conn:
        found = tenant.find(conn, tenant_id_for(f"sub_{number:08d}"))
    return found is not None and found.spec.lifecycle is Lifecycle.CLOSED


def purge(harness: Harness, number: int) -> None:
    tenant_id = tenant_id_for(f"sub_{number:08d}")
    with harness.ctx.registry.connection() as conn:
        asked = run(conn, "purge", tenant_id, actor="anna", reason="it demands it", early=True).purge
        run(conn, "approve-purge", tenant_id, actor="bert", reason="looked at", digest=asked.digest)


def disagreements(harness: Harness, release: str) -> list[str]:
    """Registry, databases and routes, as far as the release is concerned. That a person is notified of a
    closed tenant whose customer pays again is as it should be."""
    found = [
        reported for reported in harness.violations() if "subscription that has not ended" not in reported
    ]
    databases = {key.rpartition("/")[2]: value for key, value in harness.world.all(DATABASE).items()}
    found += [f"{key} ran {n} times" for key, n in harness.world.all(APPLIED).items() if n != 1]
    with harness.ctx.registry.connection() as conn:
        for row in tenant.page(conn, after=None, limit=1000):
            if row.spec.lifecycle is Lifecycle.CLOSED:
                continue
            placed = placement.current(conn, row.id)
            assert placed is not None
            newest = max(databases[placed.database]["migrations"])
            expected = release if row.spec.lifecycle is Lifecycle.ACTIVE else row.release
            if (row.release, newest) != (expected, expected):
                found.append(f"{row.slug}: registry {row.release}, database {newest}, not {release}")
            entry = harness.cache.read(f"{row.slug}.{ZONE}")
            reported = None if entry is None else entry.payload["release"]
            if row.spec.lifecycle is Lifecycle.ACTIVE and reported != release:
                found.append(f"{row.slug}: its route tells {reported}, not {release}")
    return found


def test_until_a_release_is_registered_the_folder_decides_and_the_first_one_changes_nothing(
    harness: Harness,
) -> None:
    customer(harness, 1)
    harness.work()
    assert harness.tenant("sub_00000001").release is None
    assert register(harness) == "0002"
    assert harness.tenant("sub_00000001").release == "0002"
    customer(harness, 2)
    harness.work()
    assert disagreements(harness, "0002") == []


def test_a_newer_release_moves_nobody_before_its_rollout(harness: Harness) -> None:
    register(harness)
    customer(harness, 1)
    harness.work()
    register(harness, "0003_stars.sql")
    harness.hear("sub_00000001")
    customer(harness, 2)
    harness.work()
    assert disagreements(harness, "0002") == []


def test_a_tenant_can_be_suspended_while_its_migration_fails(harness: Harness) -> None:
    register(harness)
    customer(harness, 1)
    harness.work()
    harness.databases.fail_migration("0003_stars.sql")
    rollout_id = start(harness, register(harness, "0003_stars.sql"), waves=["100%"])
    executor.work(harness.ctx, rollout_id)
    assert state(harness, rollout_id) == "halted"
    customer(harness, 1, status="unpaid")
    harness.work()
    assert harness.violations() == []
    harness.databases.fail_migration("0003_stars.sql", fail=False)
    with harness.ctx.registry.connection() as conn:
        rollouts.retry(conn, rollout_id, None, actor="test")
    executor.work(harness.ctx, rollout_id)
    harness.work()
    assert state(harness, rollout_id) == "done"
    assert disagreements(harness, "0003") == []


def test_a_rollout_waits_for_a_snapshot_until_it_is_there_and_goes_on_by_itself(harness: Harness) -> None:
    plans = dict(harness.ctx.catalogue.plans)
    plans["shared"] = replace(plans["shared"], snapshot_before_migration=True)
    harness.ctx = replace(harness.ctx, catalogue=replace(harness.ctx.catalogue, plans=plans))
    register(harness)
    customer(harness, 1)
    harness.work()
    rollout_id = start(harness, register(harness, "0003_stars.sql"), waves=["100%"])
    looks = 0
    assert do_one(harness.ctx, JobKind.ROLLOUT) is not None
    while state(harness, rollout_id) == "running":
        looks += do_one(harness.ctx, JobKind.SNAPSHOT) is not None
        with harness.ctx.registry.connection() as conn:
            conn.execute("UPDATE job SET due_at = now() WHERE kind IN ('rollout', 'snapshot')")
        assert do_one(harness.ctx, JobKind.ROLLOUT) is not None
    assert state(harness, rollout_id) == "done"
    assert looks > 1
    with harness.ctx.registry.connection() as conn:
        assert conn.execute("SELECT FROM job WHERE kind = 'rollout'").fetchall() == []
    harness.work()
    assert disagreements(harness, "0003") == []


def test_who_is_reopened_after_a_rollout_has_passed_over_it_gets_its_release(harness: Harness) -> None:
    register(harness)
    customer(harness, 1)
    customer(harness, 2)
    harness.work()
    customer(harness, 2, status="canceled")
    harness.work()
    rollout_id = start(harness, register(harness, "0003_stars.sql"), waves=["100%"])
    executor.work(harness.ctx, rollout_id)
    assert state(harness, rollout_id) == "done"
    assert harness.tenant("sub_00000002").release == "0002"
    harness.revive(2)
    harness.work()
    assert disagreements(harness, "0003") == []


def test_who_is_reopened_in_the_canary_wave_is_taken_along_at_the_end(harness: Harness) -> None:
    register(harness)
    for number in (1, 2):
        customer(harness, number)
    harness.work()
    rollout_id = start(harness, register(harness, "0003_stars.sql"), waves=["customer-1,customer-2"])
    customer(harness, 2, status="canceled")
    harness.work()
    harness.databases.fail_migration("0003_stars.sql")
    executor.work(harness.ctx, rollout_id)  # the canary halts it, and the closed one is skipped
    harness.revive(2)
    harness.work()
    assert harness.tenant("sub_00000002").release == "0002"
    harness.databases.fail_migration("0003_stars.sql", fail=False)
    with harness.ctx.registry.connection() as conn:
        rollouts.retry(conn, rollout_id, None, actor="test")
    executor.work(harness.ctx, rollout_id)
    harness.work()
    assert state(harness, rollout_id) == "done"
    assert disagreements(harness, "0003") == []
    with harness.ctx.registry.connection() as conn:
        assert rollouts.show(conn, rollout_id).counts.done == 2


@dataclass
class Town:
    """Subscriptions 1 to `newest`, to which things happen. `owner`: whose one is that is not a customer's
    first. `ended`: for ever; `gone`: purged."""

    harness: Harness
    chance: random.Random
    newest: int = 0
    plans: dict[int, str] = field(default_factory=dict)
    owner: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    def something_happens(self) -> None:
        event = self.chance.choice(
            ("come", "stop paying", "leave", "leave", "come back", "be promoted", "be purged", "be purged")
        )
        if event == "come":
            self.newest += 1
            customer(self.harness, self.newest)
            return
        who = self.chance.choice([n for n in range(1, self.newest + 1) if n not in self.gone])
        if event == "be purged":
            if left(self.harness, who) and self.still_pays(who):
                with pytest.raises(Conflict, match="subscription that has not ended"):
                    purge(self.harness, who)
            elif left(self.harness, who):
                purge(self.harness, who)
                self.gone.add(who)
            return
        if who in self.ended:
            if event == "come back":
                self.newest += 1
                self.owner[self.newest] = self.owner.get(who, who)
                self.harness.hear(self.harness.subscribe(self.newest, customer=self.owner[self.newest]))
            return
        if event == "be promoted":  # to a cluster of its own, by a move
            self.plans[who] = "dedicated"
        if event == "leave":
            self.ended.add(who)
        status = {"stop paying": "unpaid", "leave": "canceled"}.get(event, "active")
        subscription = self.harness.subscribe(
            who, customer=self.owner.get(who), status=status, plan=self.plans.get(who, "shared")
        )
        self.harness.hear(subscription)

    def still_pays(self, who: int) -> bool:
        owner = self.owner.get(who, who)
        others = (n for n in range(1, self.newest + 1) if n not in self.ended)
        return any(self.owner.get(n, n) == owner for n in others)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_in_the_middle_ends_consistent(harness: Harness, seed: int) -> None:
    chance = random.Random(seed)
    town = Town(harness, chance)
    register(harness)
    for town.newest in range(1, 9):
        customer(harness, town.newest)
    harness.work()
    number = register(harness, *NEW)
    rollout_id = start(harness, number, waves=["customer-1", "40%", "100%"], concurrency=1)
    for _ in range(60):
        if state(harness, rollout_id) != "running":
            break
        for _ in range(chance.randint(1, 4)):
            town.something_happens()
        if chance.random() < 0.5:
            harness.work()
        turns = iter(range(chance.randint(1, 2)))
        executor.work(harness.ctx, rollout_id, stopping=lambda turns=turns: next(turns, None) is None)
        if chance.random() < 0.2 and state(harness, rollout_id) == "running":
            with pytest.raises(Conflict, match="another rollout is open"):
                start(harness, number)
    for _ in range(30):
        executor.work(harness.ctx, rollout_id)
        harness.work()  # a tenant that is just moving is waited for
        if state(harness, rollout_id) != "running":
            break
    assert state(harness, rollout_id) == "done"
    assert disagreements(harness, number) == []
