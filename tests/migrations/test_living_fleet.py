"""A rollout while customers come, stop paying, leave, come back, are promoted and are purged: in the end
everything agrees.

The whole engine on fakes, with a rollout that is cut into small slices; between two of them something
happens to somebody. A tenant whose lease the engine holds is migrated all the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from controlplane.domain.errors import Conflict
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.release import Adapter
from controlplane.domain.rollout import Spec
from controlplane.domain.tenant import Lifecycle
from controlplane.services import purges, releases, rollouts
from controlplane.store import placement, tenant
from localcloud.fakes.databases import APPLIED, DATABASE
from tests.engine.conftest import house
from tests.engine.house import MIGRATIONS, ZONE, House
from workers.jobs import rollouts as executor
from workers.jobs import snapshots
from workers.schedule import sweep

__all__ = ["house"]

NEW = {"0003_stars.sql": "ALTER TABLE note ADD stars int", "0004_tags.sql": "CREATE TABLE tag (id int)"}


def register(house: House, *names: str) -> str:
    files = {path.name: path.read_text() for path in sorted(MIGRATIONS.glob("*.sql"))}
    files |= {name: NEW[name] for name in names}
    with house.ctx.registry.connection() as conn:
        named = [(name, releases.store_file(conn, text.encode())) for name, text in files.items()]
        return releases.create(conn, Adapter.SQL, named, lambda _: [], actor="test").release.number


def start(house: House, number: str, **spec: object) -> int:
    with house.ctx.registry.connection() as conn:
        return rollouts.start(conn, number, Spec.from_json(spec), actor="test")


def state(house: House, rollout_id: int) -> str:
    with house.ctx.registry.connection() as conn:
        return rollouts.show(conn, rollout_id).rollout.state


def customer(house: House, number: int, status: str = "active", plan: str = "shared") -> str:
    subscription = house.subscribe(number, status=status, plan=plan)
    house.hear(subscription)
    return subscription


def left(house: House, number: int) -> bool:
    """Has this customer left, and has the engine heard of it?"""
    house.work()
    with house.ctx.registry.connection() as conn:
        found = tenant.find(conn, tenant_id_for(f"sub_{number:08d}"))
    return found is not None and found.desired.lifecycle is Lifecycle.CLOSED


def purge(house: House, number: int) -> None:
    tenant_id = tenant_id_for(f"sub_{number:08d}")
    with house.ctx.registry.connection() as conn:
        asked = purges.request(conn, tenant_id, actor="anna", reason="the customer demands it", early=True)
        purges.approve(conn, tenant_id, actor="bert", digest=asked.digest)


def disagreements(house: House, release: str) -> list[str]:
    """Registry, databases and routes, as far as the release is concerned. That a person is told of a closed
    tenant whose customer pays again is as it should be."""
    found = [told for told in house.violations() if "subscription that has not ended" not in told]
    databases = {key.rpartition("/")[2]: value for key, value in house.world.all(DATABASE).items()}
    found += [f"{key} ran {n} times" for key, n in house.world.all(APPLIED).items() if n != 1]
    with house.ctx.registry.connection() as conn:
        for row in tenant.page(conn, after=None, limit=1000):
            if row.desired.lifecycle is Lifecycle.CLOSED:
                continue
            placed = placement.current(conn, row.id)
            assert placed is not None
            newest = max(databases[placed.database]["migrations"])
            expected = release if row.desired.lifecycle is Lifecycle.ACTIVE else row.release
            if (row.release, newest) != (expected, expected):
                found.append(f"{row.slug}: registry {row.release}, database {newest}, not {release}")
            entry = house.cache.read(f"{row.slug}.{ZONE}")
            told = None if entry is None else entry.payload["release"]
            if row.desired.lifecycle is Lifecycle.ACTIVE and told != release:
                found.append(f"{row.slug}: its route tells {told}, not {release}")
    return found


def test_until_a_release_is_registered_the_folder_decides_and_the_first_one_changes_nothing(
    house: House,
) -> None:
    customer(house, 1)
    house.work()
    assert house.tenant("sub_00000001").release is None
    assert register(house) == "0002"
    assert house.tenant("sub_00000001").release == "0002"
    customer(house, 2)
    house.work()
    assert disagreements(house, "0002") == []


def test_a_newer_release_moves_nobody_before_its_rollout(house: House) -> None:
    register(house)
    customer(house, 1)
    house.work()
    register(house, "0003_stars.sql")
    house.hear("sub_00000001")
    customer(house, 2)
    house.work()
    assert disagreements(house, "0002") == []


def test_a_tenant_can_be_suspended_while_its_migration_fails(house: House) -> None:
    register(house)
    customer(house, 1)
    house.work()
    house.databases.fail_migration("0003_stars.sql")
    rollout_id = start(house, register(house, "0003_stars.sql"), waves=["100%"])
    executor.work(house.ctx, rollout_id)
    assert state(house, rollout_id) == "halted"
    customer(house, 1, status="unpaid")
    house.work()
    assert house.violations() == []
    house.databases.fail_migration("0003_stars.sql", fail=False)
    with house.ctx.registry.connection() as conn:
        rollouts.retry(conn, rollout_id, None, actor="test")
    executor.work(house.ctx, rollout_id)
    house.work()
    assert state(house, rollout_id) == "done"
    assert disagreements(house, "0003") == []


def test_the_sweep_rings_for_a_snapshot_until_it_is_there(house: House) -> None:
    plans = dict(house.ctx.catalogue.plans)
    plans["shared"] = replace(plans["shared"], snapshot_before_migration=True)
    house.ctx = replace(house.ctx, catalogue=replace(house.ctx.catalogue, plans=plans))
    register(house)
    customer(house, 1)
    house.work()
    rollout_id = start(house, register(house, "0003_stars.sql"), waves=["100%"])
    executor.work(house.ctx, rollout_id)
    for _ in range(3):
        house.rung.clear()
        sweep.sweep(house.ctx)
        if (snapshots.TASK, []) not in house.rung:
            break
        snapshots.work(house.ctx)
        with house.ctx.registry.connection() as conn:
            conn.execute("UPDATE rollout_snapshot SET next_look_at = clock_timestamp()")
    assert (executor.TASK, [str(rollout_id)]) in house.rung
    executor.work(house.ctx, rollout_id)
    house.work()
    assert state(house, rollout_id) == "done"
    assert disagreements(house, "0003") == []


def test_who_is_reopened_after_a_rollout_has_passed_over_it_gets_its_release(house: House) -> None:
    register(house)
    customer(house, 1)
    customer(house, 2)
    house.work()
    customer(house, 2, status="canceled")
    house.work()
    rollout_id = start(house, register(house, "0003_stars.sql"), waves=["100%"])
    executor.work(house.ctx, rollout_id)
    assert state(house, rollout_id) == "done"
    assert house.tenant("sub_00000002").release == "0002"
    house.revive(2)
    house.work()
    assert disagreements(house, "0003") == []


def test_who_is_reopened_in_the_canary_wave_is_taken_along_at_the_end(house: House) -> None:
    register(house)
    for number in (1, 2):
        customer(house, number)
    house.work()
    rollout_id = start(house, register(house, "0003_stars.sql"), waves=["customer-1,customer-2"])
    customer(house, 2, status="canceled")
    house.work()
    house.databases.fail_migration("0003_stars.sql")
    executor.work(house.ctx, rollout_id)  # the canary halts it, and the closed one is skipped
    house.revive(2)
    house.work()
    assert house.tenant("sub_00000002").release == "0002"
    house.databases.fail_migration("0003_stars.sql", fail=False)
    with house.ctx.registry.connection() as conn:
        rollouts.retry(conn, rollout_id, None, actor="test")
    executor.work(house.ctx, rollout_id)
    house.work()
    assert state(house, rollout_id) == "done"
    assert disagreements(house, "0003") == []
    with house.ctx.registry.connection() as conn:
        assert rollouts.show(conn, rollout_id).counts.done == 2


@dataclass
class Town:
    """Subscriptions 1 to `newest`, to which things happen. `owner`: whose one is that is not a customer's
    first. `ended`: for ever; `gone`: purged."""

    house: House
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
            customer(self.house, self.newest)
            return
        who = self.chance.choice([n for n in range(1, self.newest + 1) if n not in self.gone])
        if event == "be purged":
            if left(self.house, who) and self.still_pays(who):
                with pytest.raises(Conflict, match="subscription that has not ended"):
                    purge(self.house, who)
            elif left(self.house, who):
                purge(self.house, who)
                self.gone.add(who)
            return
        if who in self.ended:
            if event == "come back":
                self.newest += 1
                self.owner[self.newest] = self.owner.get(who, who)
                self.house.hear(self.house.subscribe(self.newest, customer=self.owner[self.newest]))
            return
        if event == "be promoted":  # to a cluster of its own, by a move
            self.plans[who] = "dedicated"
        if event == "leave":
            self.ended.add(who)
        status = {"stop paying": "unpaid", "leave": "canceled"}.get(event, "active")
        subscription = self.house.subscribe(
            who, customer=self.owner.get(who), status=status, plan=self.plans.get(who, "shared")
        )
        self.house.hear(subscription)

    def still_pays(self, who: int) -> bool:
        owner = self.owner.get(who, who)
        others = (n for n in range(1, self.newest + 1) if n not in self.ended)
        return any(self.owner.get(n, n) == owner for n in others)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_in_the_middle_ends_consistent(house: House, seed: int) -> None:
    chance = random.Random(seed)
    town = Town(house, chance)
    register(house)
    for town.newest in range(1, 9):
        customer(house, town.newest)
    house.work()
    number = register(house, *NEW)
    rollout_id = start(house, number, waves=["customer-1", "40%", "100%"], concurrency=1)
    for _ in range(60):
        if state(house, rollout_id) != "running":
            break
        for _ in range(chance.randint(1, 4)):
            town.something_happens()
        if chance.random() < 0.5:
            house.work()
        turns = iter(range(chance.randint(1, 2)))
        executor.work(house.ctx, rollout_id, stopping=lambda turns=turns: next(turns, None) is None)
        if chance.random() < 0.2 and state(house, rollout_id) == "running":
            with pytest.raises(Conflict, match="another rollout is open"):
                start(house, number)
    for _ in range(30):
        executor.work(house.ctx, rollout_id)
        house.work()  # a tenant that is just moving is waited for
        if state(house, rollout_id) != "running":
            break
    assert state(house, rollout_id) == "done"
    assert disagreements(house, number) == []
