"""What a worker is at when it is killed, what happens before its successor comes, what must be in the end.

A story begins with a registry and a world of its own and leaves work to do; checks return what is wrong,
in words. `test_crash_at_every_call.py` puts a kill at every call of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controlplane.domain.catalogue import PoolLimits
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.restore import moment
from controlplane.domain.tenant import Phase
from controlplane.services import moves, purges, restores, tenants
from controlplane.store import data_copy, move, placement, purge
from localcloud.fakes import past
from tests.engine.house import House

SUBSCRIPTION = "sub_00000001"
TENANT = tenant_id_for(SUBSCRIPTION)


def open_house(
    url: str, world: Path | str, *, warm_slots: int = 0, crash: Callable[[str], None] | None = None
) -> House:
    """A surplus of its warm pool goes at once, and so does a login that was rotated away."""
    house = House(url, world, crash=crash, rotation_grace=0)
    plans = dict(house.ctx.catalogue.plans)
    plans["dedicated"] = replace(plans["dedicated"], warm_slots=warm_slots)
    limits = PoolLimits(retire_after_hours=0)
    house.ctx = replace(house.ctx, catalogue=replace(house.ctx.catalogue, plans=plans, pool=limits))
    return house


def customer_pays(url: str, world: Path) -> House:
    house = open_house(url, world)
    subscription = house.subscribe(1, plan="dedicated", metadata={"custom_domain": "www.customer.dev"})
    house.hear(subscription, "customer.subscription.created")
    return house


def support_rotates(url: str, world: Path) -> House:
    house = customer_pays(url, world)
    house.work()
    with house.ctx.registry.connection() as conn:
        tenants.rotate(conn, TENANT, actor="support", reason="test")
    return house


def _purge_is_approved(url: str, world: Path, plan: str) -> House:
    house = open_house(url, world)
    for status in ("active", "canceled"):
        house.hear(house.subscribe(1, plan=plan, status=status))
        house.work()
    with house.ctx.registry.connection() as conn:
        asked = purges.request(conn, TENANT, actor="anna", reason="test", early=True)
        purges.approve(conn, TENANT, actor="bert", digest=asked.digest)
    return house


def shared_is_purged(url: str, world: Path) -> House:
    return _purge_is_approved(url, world, "shared")


def dedicated_is_purged(url: str, world: Path) -> House:
    return _purge_is_approved(url, world, "dedicated")


def purged(house: House) -> list[str]:
    """Certified, with its copy, and only then."""
    row = house.tenant(SUBSCRIPTION)
    with house.ctx.registry.connection() as conn:
        approved = purge.of_tenant(conn, row.id)
        copy = None if approved is None else data_copy.of_purge(conn, approved.id)
    wrong = [] if row.phase is Phase.PURGED else [f"the tenant is {row.phase}"]
    there = {*house.world.all("dump"), *house.world.all("aws-snapshot")}
    if copy is None or copy.state != "kept" or there != {copy.name}:
        wrong.append(f"its copy is not kept: {copy}")
    return wrong


def copied_before_it_goes(house: House) -> list[str]:
    """At no moment is the data gone without a copy that was verified."""
    placed = house.last_placement(SUBSCRIPTION)
    with house.ctx.registry.connection() as conn:
        found = conn.execute("SELECT state FROM data_copy").fetchone()
    there = f"{placed.cluster_id}." in str(list(house.world.all("database")))
    return [] if there or (found is not None and found["state"] == "kept") else ["gone without a copy"]


def support_moves(url: str, world: Path) -> House:
    house = open_house(url, world)
    house.hear(house.subscribe(1), "customer.subscription.created")
    house.work()
    _write(house, "before")
    with house.ctx.registry.connection() as conn:
        moves.request(conn, TENANT, to="dedicated", actor="support", reason="test")
    return house


def _work_up_to(house: House, act: str) -> None:
    """Until this act of a move, which is refused so long."""
    house.moves.refuse(act)
    house.work()
    house.moves.refuse(act, refuse=False)


def support_moves_on(url: str, world: Path) -> House:
    """The target is made; what is left is all that a move alone does."""
    house = support_moves(url, world)
    _work_up_to(house, "begin")
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, TENANT, actor="support", reason="test")
    return house


def support_confirms(url: str, world: Path) -> House:
    house = support_moves(url, world)
    house.work()
    with house.ctx.registry.connection() as conn:
        moves.confirm(conn, TENANT, actor="support", reason="test")
    return house


def support_gives_up(url: str, world: Path) -> House:
    house = support_moves(url, world)
    _work_up_to(house, "hand_over")
    with house.ctx.registry.connection() as conn:
        moves.give_up(conn, TENANT, actor="support", reason="test")
    return house


def support_restores(url: str, world: Path) -> House:
    house = open_house(url, world)
    house.hear(house.subscribe(1), "customer.subscription.created")
    house.work()
    house.write(1, "of then")
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    past.keep_moment(house.world, house.placement(SUBSCRIPTION).cluster_id, now)
    house.write(1, "damage")
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET ready_at = ready_at - interval '1 hour'")
        restores.request(conn, TENANT, at=moment(now), snapshot=None, actor="support", reason="test")
    return house


def support_restores_on(url: str, world: Path) -> House:
    """Both clusters and the target are made; what is left is the copy, the cut, and the cluster's end."""
    house = support_restores(url, world)
    _work_up_to(house, "clone")
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, TENANT, actor="support", reason="test")
    return house


def support_regrets_a_restore(url: str, world: Path) -> House:
    house = support_restores(url, world)
    _work_up_to(house, "clone")
    with house.ctx.registry.connection() as conn:
        moves.give_up(conn, TENANT, actor="support", reason="test")
    return house


def writes_on(house: House) -> list[str]:
    """Where it is taken depends on whether the cut has been; it may be refused in the pause."""
    with house.ctx.registry.connection() as conn:
        found = move.latest(conn, TENANT)
    moved = found is not None and not found.phase.before_cut
    if house.write(1, "after the cut") and moved:
        house.world.put("journal", "after the cut", True)
    return []


def restored(house: House) -> list[str]:
    """The rows of then and what was confirmed since the cut; the damage kept, closed; one cluster gone."""
    wrong = [] if house.write(1, "in the end") else ["a write is refused in the end"]
    rows = [row for row in house.rows(SUBSCRIPTION) if row != "in the end"]
    if rows != ["of then", *house.world.all("journal")]:
        wrong.append(f"rows {rows}, confirmed since the cut were {list(house.world.all('journal'))}")
    with house.ctx.registry.connection() as conn:
        former = placement.get(conn, TENANT, 1)
        gone = conn.execute("SELECT destroyed_at FROM cluster WHERE slots = 0").fetchall()
    kept = house.databases.rows(house.endpoint(former), former.database)
    if kept[:2] != ["of then", "damage"] or house.lets_in(former):
        wrong.append(f"the former database is open or holds {kept}")
    return wrong + (
        [] if [row["destroyed_at"] is None for row in gone] == [False] else [f"left over: {gone}"]
    )


def not_restored(house: House) -> list[str]:
    rows = house.rows(SUBSCRIPTION)
    with house.ctx.registry.connection() as conn:
        left = conn.execute("SELECT FROM cluster WHERE slots = 0 AND destroyed_at IS NULL").rowcount
    wrong = [] if rows[:2] == ["of then", "damage"] and house.write(1, "still") else [f"rows {rows}"]
    return wrong + [f"{left} restored clusters are left"] * (left > 0)


def _write(house: House, row: str) -> bool:
    """What was confirmed to the customer is kept in the world, to be found again."""
    written = house.write(1, row)
    if written:
        house.world.put("journal", row, True)
    return written


def writes(house: House) -> list[str]:
    """It may be refused: the worker may have died in the pause."""
    _write(house, "in between")
    return []


def keeps_its_rows(house: House) -> list[str]:
    found = [] if _write(house, "in the end") else ["a write is refused in the end"]
    rows = house.rows(SUBSCRIPTION)
    if sorted(rows) != sorted(house.world.all("journal")):
        found.append(f"rows {rows}, confirmed were {sorted(house.world.all('journal'))}")
    return found


def moved(house: House) -> list[str]:
    number = house.placement(SUBSCRIPTION).number
    return keeps_its_rows(house) + ([] if number == 2 else [f"it lives at placement {number}"])


def nothing(house: House) -> list[str]:
    return []


def gets_in(house: House) -> list[str]:
    """At no moment does the secret name a login that is refused."""
    return [] if house.lets_in(house.placement(SUBSCRIPTION)) else ["the secret's login is refused"]


def rotated(house: House) -> list[str]:
    placed = house.placement(SUBSCRIPTION)
    with house.ctx.registry.connection() as conn:
        login = placement.login(conn, placed, "app")
    wrong = [] if (login.generation, login.retire_in) == (2, None) else [f"not rotated: {login}"]
    return wrong + gets_in(house)


def nobody_needs_the_warm_cluster(url: str, world: Path) -> House:
    made = open_house(url, world, warm_slots=1)
    made.work()
    made.close()
    return open_house(url, world)
