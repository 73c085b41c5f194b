"""What a worker is at when it is killed, what happens before its successor comes, what must be in the end.

A scenario begins with a registry and a world of its own and leaves work to do; checks return what is wrong,
in words. `test_crash_at_every_call.py` puts a kill at every call of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controlplane.actions.action import Subject, run
from controlplane.domain.catalogue import PoolLimits
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.domain.transfer import TransferPhase, moment
from controlplane.localcloud.fakes import past
from controlplane.store import cluster, data_copy, placement, purge, stack, tenant, transfer
from controlplane.store.transfer import TransferRow
from tests.harness.engine import NEWER, ZONE, Harness

SUBSCRIPTION = "sub_00000001"
TENANT = tenant_id_for(SUBSCRIPTION)


def open_harness(
    url: str, world: Path | str, *, warm_slots: int = 0, crash: Callable[[str], None] | None = None
) -> Harness:
    """A surplus of its warm pool goes at once, and so does a login that was rotated away."""
    harness = Harness(url, world, crash=crash, rotation_grace=0)
    plans = dict(harness.ctx.catalogue.plans)
    plans["dedicated"] = replace(plans["dedicated"], warm_slots=warm_slots)
    limits = PoolLimits(retire_after_hours=0)
    harness.ctx = replace(harness.ctx, catalogue=replace(harness.ctx.catalogue, plans=plans, pool=limits))
    return harness


def customer_pays(url: str, world: Path) -> Harness:
    harness = open_harness(url, world)
    subscription = harness.subscribe(1, plan="dedicated", metadata={"custom_domain": "www.customer.dev"})
    harness.hear(subscription, "customer.subscription.created")
    return harness


def support_rotates(url: str, world: Path) -> Harness:
    harness = customer_pays(url, world)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        run(conn, "rotate", TENANT, actor="support", reason="test")
    return harness


def _purge_is_approved(url: str, world: Path, plan: str) -> Harness:
    harness = open_harness(url, world)
    for status in ("active", "canceled"):
        harness.hear(harness.subscribe(1, plan=plan, status=status))
        harness.work()
    with harness.ctx.registry.connection() as conn:
        asked = run(conn, "purge", TENANT, actor="anna", reason="test", early=True).purge
        run(conn, "approve-purge", TENANT, actor="bert", reason="looked at", digest=asked.digest)
    return harness


def shared_is_purged(url: str, world: Path) -> Harness:
    return _purge_is_approved(url, world, "shared")


def dedicated_is_purged(url: str, world: Path) -> Harness:
    return _purge_is_approved(url, world, "dedicated")


def purged(harness: Harness) -> list[str]:
    """Certified, with its copy, and only then."""
    row = harness.tenant(SUBSCRIPTION)
    with harness.ctx.registry.connection() as conn:
        approved = purge.of_tenant(conn, row.id)
        copy = None if approved is None else data_copy.of_purge(conn, approved.id)
    wrong = [] if row.phase is Phase.PURGED else [f"the tenant is {row.phase}"]
    there = {*harness.world.all("dump"), *harness.world.all("aws-snapshot")}
    if copy is None or copy.state != "kept" or there != {copy.name}:
        wrong.append(f"its copy is not kept: {copy}")
    return wrong


def copied_before_it_goes(harness: Harness) -> list[str]:
    """At no moment is the data gone without a copy that was verified."""
    placed = harness.last_placement(SUBSCRIPTION)
    with harness.ctx.registry.connection() as conn:
        found = conn.execute("SELECT state FROM data_copy").fetchone()
    there = f"{placed.cluster_id}." in str(list(harness.world.all("database")))
    return [] if there or (found is not None and found["state"] == "kept") else ["gone without a copy"]


def support_moves(url: str, world: Path) -> Harness:
    harness = open_harness(url, world)
    harness.hear(harness.subscribe(1), "customer.subscription.created")
    harness.work()
    _write(harness, "before")
    with harness.ctx.registry.connection() as conn:
        run(conn, "move", TENANT, to="dedicated", actor="support", reason="test")
    return harness


def _work_up_to(harness: Harness, act: str) -> None:
    """Until this act of a move, which is refused so long."""
    harness.moves.refuse(act)
    harness.work()
    harness.moves.refuse(act, refuse=False)


def support_moves_on(url: str, world: Path) -> Harness:
    """The target is made; what is left is all that a move alone does."""
    harness = support_moves(url, world)
    _work_up_to(harness, "begin")
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", TENANT, actor="support", reason="test")
    return harness


def support_confirms(url: str, world: Path) -> Harness:
    harness = support_moves(url, world)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        run(conn, "confirm-transfer", TENANT, actor="support", reason="test")
    return harness


def support_aborts(url: str, world: Path) -> Harness:
    harness = support_moves(url, world)
    _work_up_to(harness, "hand_over")
    with harness.ctx.registry.connection() as conn:
        run(conn, "abort-transfer", TENANT, actor="support", reason="test")
    return harness


def support_restores(url: str, world: Path) -> Harness:
    harness = open_harness(url, world)
    harness.hear(harness.subscribe(1), "customer.subscription.created")
    harness.work()
    harness.write(1, "of then")
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    past.keep_moment(harness.world, harness.placement(SUBSCRIPTION).cluster_id, now)
    harness.write(1, "damage")
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET ready_at = ready_at - interval '1 hour'")
        run(conn, "restore", TENANT, at=moment(now), snapshot=None, actor="support", reason="test")
    return harness


def support_restores_on(url: str, world: Path) -> Harness:
    """Both clusters and the target are made; what is left is the copy, the cut, and the cluster's end."""
    harness = support_restores(url, world)
    _work_up_to(harness, "clone")
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", TENANT, actor="support", reason="test")
    return harness


def support_regrets_a_restore(url: str, world: Path) -> Harness:
    harness = support_restores(url, world)
    _work_up_to(harness, "clone")
    with harness.ctx.registry.connection() as conn:
        run(conn, "abort-transfer", TENANT, actor="support", reason="test")
    return harness


def support_renames(url: str, world: Path) -> Harness:
    """To a third slug: the host of the first one leads to the second when it begins."""
    harness = open_harness(url, world)
    harness.hear(harness.subscribe(1), "customer.subscription.created")
    harness.work()
    for slug in ("acme", "acme-two"):
        harness.work()
        with harness.ctx.registry.connection() as conn:
            run(conn, "rename", TENANT, slug=slug, actor="support", reason="test")
    return harness


def redirections_end(url: str, world: Path) -> Harness:
    harness = support_renames(url, world)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE tenant SET next_observation_at = clock_timestamp(), former_slugs ="
            " (SELECT jsonb_object_agg(key, clock_timestamp()) FROM jsonb_each(former_slugs))"
        )
    return harness


def found_by_every_name(harness: Harness) -> list[str]:
    """At no moment does a host of before lead nowhere, or in a circle."""
    return [
        f"{slug} leads to {end}"
        for slug in ("customer-1", "acme")
        if (end := _end(harness, slug)) != "active"
    ]


def _end(harness: Harness, slug: str) -> str:
    """Where one ends who goes to its host and is led on."""
    host, status = f"{slug}.{ZONE}", "moved"
    for _ in range(4):
        entry = harness.cache.read(host)
        status = "nothing" if entry is None else str(entry.payload["status"])
        if entry is None or status != "moved":
            return status
        host = str(entry.payload["moved_to"])
    return status


def renamed(harness: Harness) -> list[str]:
    served = harness.cache.read(f"acme-two.{ZONE}")
    wrong = [] if served is not None and served.payload["status"] == "active" else ["it is not served"]
    return wrong + found_by_every_name(harness)


def forgotten(harness: Harness) -> list[str]:
    """Nobody is led, and both slugs are free."""
    wrong = [f"{slug} is {end}" for slug in ("customer-1", "acme") if (end := _end(harness, slug)) != "gone"]
    kept = harness.tenant(SUBSCRIPTION).former_slugs
    return wrong + [f"{slug} is kept" for slug in kept]


def support_clones(url: str, world: Path) -> Harness:
    """Beside the source all that a clone is made of; what is left is the copy and its first route."""
    harness = open_harness(url, world)
    harness.hear(harness.subscribe(1), "customer.subscription.created")
    harness.work()
    harness.write(1, "theirs")
    with harness.ctx.registry.connection() as conn:
        clone_id = run(conn, "clone", TENANT, slug="copy-of-it", actor="support", reason="test").made
    _work_up_to(harness, "clone")
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", str(clone_id), actor="support", reason="test")
    return harness


def _clone(harness: Harness) -> tuple[TransferRow, list[str]]:
    """(its transfer, the rows that it has)"""
    with harness.ctx.registry.connection() as conn:
        row = next(iter(tenant.meant_by(conn, "copy-of-it")), None)
        found = None if row is None else transfer.latest(conn, row.id)
        placed = None if row is None else placement.current(conn, row.id)
    assert found is not None
    assert placed is not None
    return found, harness.databases.rows(harness.endpoint(placed), placed.database)


def served_with_its_rows(harness: Harness) -> list[str]:
    """At no moment is a clone served without the rows of its source."""
    entry = harness.cache.read(f"copy-of-it.{ZONE}")
    served = entry is not None and entry.payload["status"] == "active"
    found, rows = _clone(harness)
    over = found.phase is TransferPhase.CONFIRMED and found.finished_at is not None
    whole = rows == ["theirs"] and over
    return ["a clone is served without its rows"] if served and not whole else []


def cloned(harness: Harness) -> list[str]:
    entry = harness.cache.read(f"copy-of-it.{ZONE}")
    if entry is None or entry.payload["status"] != "active":
        return ["the clone is not served"]
    return served_with_its_rows(harness)


def writes_on(harness: Harness) -> list[str]:
    """Where it is taken depends on whether the cut has been; it may be refused in the pause."""
    with harness.ctx.registry.connection() as conn:
        found = transfer.latest(conn, TENANT)
    moved = found is not None and not found.phase.before_cut
    if harness.write(1, "after the cut") and moved:
        harness.world.put("journal", "after the cut", True)
    return []


def restored(harness: Harness) -> list[str]:
    """The rows of then and what was confirmed since the cut; the damage kept, closed; one cluster gone."""
    wrong = [] if harness.write(1, "in the end") else ["a write is refused in the end"]
    rows = [row for row in harness.rows(SUBSCRIPTION) if row != "in the end"]
    if rows != ["of then", *harness.world.all("journal")]:
        wrong.append(f"rows {rows}, confirmed since the cut were {list(harness.world.all('journal'))}")
    with harness.ctx.registry.connection() as conn:
        former = placement.all_of(conn, TENANT)[0]
        gone = conn.execute("SELECT destroyed_at FROM cluster WHERE slots = 0").fetchall()
    kept = harness.databases.rows(harness.endpoint(former), former.database)
    if kept[:2] != ["of then", "damage"] or harness.lets_in(former):
        wrong.append(f"the former database is open or holds {kept}")
    return wrong + (
        [] if [row["destroyed_at"] is None for row in gone] == [False] else [f"left over: {gone}"]
    )


def not_restored(harness: Harness) -> list[str]:
    rows = harness.rows(SUBSCRIPTION)
    with harness.ctx.registry.connection() as conn:
        left = conn.execute("SELECT FROM cluster WHERE slots = 0 AND destroyed_at IS NULL").rowcount
    wrong = [] if rows[:2] == ["of then", "damage"] and harness.write(1, "still") else [f"rows {rows}"]
    return wrong + [f"{left} restored clusters are left"] * (left > 0)


def _write(harness: Harness, row: str) -> bool:
    """What was confirmed to the customer is kept in the world, to be found again."""
    written = harness.write(1, row)
    if written:
        harness.world.put("journal", row, True)
    return written


def writes(harness: Harness) -> list[str]:
    """It may be refused: the worker may have died in the pause."""
    _write(harness, "in between")
    return []


def keeps_its_rows(harness: Harness) -> list[str]:
    found = [] if _write(harness, "in the end") else ["a write is refused in the end"]
    rows = harness.rows(SUBSCRIPTION)
    if sorted(rows) != sorted(harness.world.all("journal")):
        found.append(f"rows {rows}, confirmed were {sorted(harness.world.all('journal'))}")
    return found


def moved(harness: Harness) -> list[str]:
    number = harness.nth_placement(SUBSCRIPTION)
    return keeps_its_rows(harness) + ([] if number == 2 else [f"it lives at placement {number}"])


def nothing(harness: Harness) -> list[str]:
    return []


def gets_in(harness: Harness) -> list[str]:
    """At no moment does the secret name a login that is refused."""
    return [] if harness.lets_in(harness.placement(SUBSCRIPTION)) else ["the secret's login is refused"]


def rotated(harness: Harness) -> list[str]:
    placed = harness.placement(SUBSCRIPTION)
    with harness.ctx.registry.connection() as conn:
        login = placement.login(conn, placed)
    wrong = [] if (login.generation, login.retire_in) == (2, None) else [f"not rotated: {login}"]
    return wrong + gets_in(harness)


def support_upgrades(url: str, world: Path) -> Harness:
    """To a release that the workers who do it do not carry."""
    harness = customer_pays(url, world)
    harness.work()
    harness.carry(NEWER)
    with harness.ctx.registry.connection() as conn:
        run(
            conn,
            "upgrade",
            harness.placement(SUBSCRIPTION).cluster_id,
            subject=Subject.CLUSTER,
            actor="support",
            reason="test",
        )
    return harness


def upgraded(harness: Harness) -> list[str]:
    placed = harness.placement(SUBSCRIPTION)
    with harness.ctx.registry.connection() as conn:
        home, newest = cluster.get(conn, placed.cluster_id), stack.installed(conn)
    wrong = [] if newest is not None and home.release == newest.digest else [f"it names {home.release}"]
    wrong += [] if home.upgraded_from is None else ["the upgrade is not over"]
    applied = harness.terraform.applied("placements", home.id)
    wrong += [] if applied == home.release else [f"its placements were applied by {applied}"]
    return wrong + gets_in(harness)


def nobody_needs_the_warm_cluster(url: str, world: Path) -> Harness:
    made = open_harness(url, world, warm_slots=1)
    made.work()
    made.close()
    return open_harness(url, world)
