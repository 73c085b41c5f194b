"""Kill the worker before and after every outside call of provisioning, of a rotation, of a warm cluster's
end, of a move, of a restore and of a purge; each time the next one finishes.

The calls are not listed here: a first run records them, so a new step or a new call joins by being made.
Each run is a process of its own that ends by `os._exit(137)` in the middle of the call, with a registry
and a world of its own; its successor is given nothing but these two.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.domain.catalogue import PoolLimits
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.restore import moment
from controlplane.domain.tenant import Phase
from controlplane.services import moves, purges, restores, tenants
from controlplane.store import data_copy, move, placement, purge, schema_version
from controlplane.store.registry import Registry
from localcloud.postgres import PostgresServer
from localcloud.simulated import past
from tests.workers.house import House

KILLED = 137
CALLS = (
    "billing.subscription",
    "config_cache.publish",
    "databases.create.inside",
    "databases.harden_cluster",
    "databases.prove",
    "databases.set_password",
    "hostnames.create",
    "secrets.write",
    "terraform.lock",
)
CALLS_OF_AN_END = (
    "clusters.describe",
    "terraform.destroy:module.cluster.aws_kms_key.this",
    "terraform.destroy:module.cluster.aws_rds_cluster.this",
    'terraform.destroy:module.cluster.aws_rds_cluster_instance.this["1"]',
)
"""Some of those that a run must have made, so that an empty recording can't pass."""
ROTATION_CALLS = (
    "secrets.stage",
    "databases.set_password",
    "databases.prove",
    "secrets.promote",
    "config_cache.notify_credential",
    "databases.retire_login",
)
MOVE_CALLS = (
    "moves.begin.progress",
    "moves.begin.slot",
    "moves.copy",
    "moves.follow",
    "databases.close_logins",
    "moves.drain",
    "config_cache.publish",
    "moves.clear",
)
RESTORE_CALLS = (
    "clusters.describe",
    "terraform.apply:module.cluster.aws_rds_cluster.this",
    "databases.harden_cluster",
    "databases.seal",
    "databases.create.doors",
    "databases.set_password",
    "moves.clone",
    "databases.prove",
    "databases.close_logins",
    "config_cache.publish",
    "terraform.destroy:module.cluster.aws_rds_cluster.this",
)
RESTORE_FROM_COPY_CALLS = (
    "databases.set_password",
    "moves.clone",
    "databases.close_logins",
    "config_cache.publish",
    "terraform.destroy:module.cluster.aws_rds_cluster.this",
)
CONFIRM_CALLS = ("databases.drop.database", "terraform.destroy:module.tenant.aws_iam_role.this")


LOOKS = (".describe", ".role_exists", ".read", ".observe", ".find")
"""Calls that change nothing: a worker that dies between two of them is one that dies before the act."""


PURGE_CALLS = (
    "dumps.make",
    "databases.drop.database",
    "databases.drop.roles",
    "terraform.destroy:module.tenant.aws_iam_role.this",
    "terraform.destroy:module.tenant.aws_secretsmanager_secret.app",
    "inventory.states",
)
DEDICATED_PURGE_CALLS = (
    "snapshots.ensure",
    "terraform.destroy:module.tenant.aws_iam_role.this",
    "terraform.destroy:module.cluster.aws_rds_cluster.this",
    "inventory.tagged",
)


def _work(url: str, world: str, crash_at: int | None, record: str | None) -> None:
    """A worker's life: until nothing is left to do, or until the crash point of this number."""
    numbers = itertools.count()
    points: list[str] = []

    def crash(point: str) -> None:
        points.append(point)
        if next(numbers) == crash_at:
            os._exit(KILLED)

    house = _house(url, world, crash=crash)
    house.work()
    house.close()
    if record is not None:
        Path(record).write_text("\n".join(points))


def _house(
    url: str, world: Path | str, *, warm_slots: int = 0, crash: Callable[[str], None] | None = None
) -> House:
    """A surplus of its warm pool goes at once, and so does a login that was rotated away."""
    house = House(url, world, crash=crash, rotation_grace=0)
    plans = dict(house.ctx.catalogue.plans)
    plans["dedicated"] = replace(plans["dedicated"], warm_slots=warm_slots)
    limits = PoolLimits(retire_after_hours=0)
    house.ctx = replace(house.ctx, catalogue=replace(house.ctx.catalogue, plans=plans, pool=limits))
    return house


@pytest.fixture
def process() -> Callable[..., int]:
    """Run `_work` in a process of its own; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.workers.test_crash_at_every_call"])

    def run(*args: object) -> int:
        child = context.Process(target=_work, args=args)
        child.start()
        child.join(60)
        assert child.exitcode is not None, "the worker hangs"
        return child.exitcode

    return run


def _customer_pays(url: str, world: Path) -> House:
    house = _house(url, world)
    subscription = house.subscribe(1, plan="dedicated", metadata={"custom_domain": "www.customer.dev"})
    house.hear(subscription, "customer.subscription.created")
    return house


def _support_rotates(url: str, world: Path) -> House:
    house = _customer_pays(url, world)
    house.work()
    with house.ctx.registry.connection() as conn:
        tenants.rotate(conn, tenant_id_for("sub_00000001"), actor="support", reason="test")
    return house


def _purge_is_approved(url: str, world: Path, plan: str) -> House:
    house = _house(url, world)
    for status in ("active", "canceled"):
        house.hear(house.subscribe(1, plan=plan, status=status))
        house.work()
    tenant_id = tenant_id_for("sub_00000001")
    with house.ctx.registry.connection() as conn:
        asked = purges.request(conn, tenant_id, actor="anna", reason="test", early=True)
        purges.approve(conn, tenant_id, actor="bert", digest=asked.digest)
    return house


def _shared_is_purged(url: str, world: Path) -> House:
    return _purge_is_approved(url, world, "shared")


def _dedicated_is_purged(url: str, world: Path) -> House:
    return _purge_is_approved(url, world, "dedicated")


def _purged(house: House) -> list[str]:
    """Certified, with its copy, and only then."""
    row = house.tenant("sub_00000001")
    with house.ctx.registry.connection() as conn:
        approved = purge.of_tenant(conn, row.id)
        copy = None if approved is None else data_copy.of_purge(conn, approved.id)
    wrong = [] if row.phase is Phase.PURGED else [f"the tenant is {row.phase}"]
    there = {*house.world.all("dump"), *house.world.all("aws-snapshot")}
    if copy is None or copy.state != "kept" or there != {copy.name}:
        wrong.append(f"its copy is not kept: {copy}")
    return wrong


def _copied_before_it_goes(house: House) -> list[str]:
    """At no moment is the data gone without a copy that was verified."""
    placed = house.last_placement("sub_00000001")
    with house.ctx.registry.connection() as conn:
        found = conn.execute("SELECT state FROM data_copy").fetchone()
    there = f"{placed.cluster_id}." in str(list(house.world.all("database")))
    return [] if there or (found is not None and found["state"] == "kept") else ["gone without a copy"]


def _support_moves(url: str, world: Path) -> House:
    house = _house(url, world)
    house.hear(house.subscribe(1), "customer.subscription.created")
    house.work()
    _write(house, "before")
    with house.ctx.registry.connection() as conn:
        moves.request(conn, tenant_id_for("sub_00000001"), to="dedicated", actor="support", reason="test")
    return house


def _support_moves_on(url: str, world: Path) -> House:
    """The target is made; what is left is all that a move alone does."""
    house = _support_moves(url, world)
    house.moves.refuse("begin")
    house.work()
    house.moves.refuse("begin", refuse=False)
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, tenant_id_for("sub_00000001"), actor="support", reason="test")
    return house


def _support_confirms(url: str, world: Path) -> House:
    house = _support_moves(url, world)
    house.work()
    with house.ctx.registry.connection() as conn:
        moves.confirm(conn, tenant_id_for("sub_00000001"), actor="support", reason="test")
    return house


def _support_gives_up(url: str, world: Path) -> House:
    house = _support_moves(url, world)
    house.moves.refuse("hand_over")
    house.work()
    house.moves.refuse("hand_over", refuse=False)
    with house.ctx.registry.connection() as conn:
        moves.give_up(conn, tenant_id_for("sub_00000001"), actor="support", reason="test")
    return house


def _support_restores(url: str, world: Path) -> House:
    house = _house(url, world)
    house.hear(house.subscribe(1), "customer.subscription.created")
    house.work()
    house.write(1, "of then")
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    past.keep_moment(house.world, house.placement("sub_00000001").cluster_id, now)
    house.write(1, "damage")
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET ready_at = ready_at - interval '1 hour'")
        restores.request(
            conn, tenant_id_for("sub_00000001"), at=moment(now), snapshot=None, actor="support", reason="test"
        )
    return house


def _support_restores_on(url: str, world: Path) -> House:
    """Both clusters and the target are made; what is left is the copy, the cut, and the cluster's end."""
    house = _support_restores(url, world)
    house.moves.refuse("clone")
    house.work()
    house.moves.refuse("clone", refuse=False)
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, tenant_id_for("sub_00000001"), actor="support", reason="test")
    return house


def _support_regrets_a_restore(url: str, world: Path) -> House:
    house = _support_restores(url, world)
    house.moves.refuse("clone")
    house.work()
    house.moves.refuse("clone", refuse=False)
    with house.ctx.registry.connection() as conn:
        moves.give_up(conn, tenant_id_for("sub_00000001"), actor="support", reason="test")
    return house


def _writes_on(house: House) -> list[str]:
    """Where it is taken depends on whether the cut has been; it may be refused in the pause."""
    with house.ctx.registry.connection() as conn:
        found = move.latest(conn, tenant_id_for("sub_00000001"))
    moved = found is not None and not found.phase.before_cut
    if house.write(1, "after the cut") and moved:
        house.world.put("journal", "after the cut", True)
    return []


def _restored(house: House) -> list[str]:
    """The rows of then and what was confirmed since the cut; the damage kept, closed; one cluster gone."""
    wrong = [] if house.write(1, "in the end") else ["a write is refused in the end"]
    rows = [row for row in house.rows("sub_00000001") if row != "in the end"]
    if rows != ["of then", *house.world.all("journal")]:
        wrong.append(f"rows {rows}, confirmed since the cut were {list(house.world.all('journal'))}")
    with house.ctx.registry.connection() as conn:
        former = placement.get(conn, tenant_id_for("sub_00000001"), 1)
        gone = conn.execute("SELECT destroyed_at FROM cluster WHERE slots = 0").fetchall()
    kept = house.databases.rows(house.endpoint(former), former.database)
    if kept[:2] != ["of then", "damage"] or house.lets_in(former):
        wrong.append(f"the former database is open or holds {kept}")
    return wrong + (
        [] if [row["destroyed_at"] is None for row in gone] == [False] else [f"left over: {gone}"]
    )


def _not_restored(house: House) -> list[str]:
    rows = house.rows("sub_00000001")
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


def _writes(house: House) -> list[str]:
    """It may be refused: the worker may have died in the pause."""
    _write(house, "in between")
    return []


def _keeps_its_rows(house: House) -> list[str]:
    found = [] if _write(house, "in the end") else ["a write is refused in the end"]
    rows = house.rows("sub_00000001")
    if sorted(rows) != sorted(house.world.all("journal")):
        found.append(f"rows {rows}, confirmed were {sorted(house.world.all('journal'))}")
    return found


def _moved(house: House) -> list[str]:
    number = house.placement("sub_00000001").number
    return _keeps_its_rows(house) + ([] if number == 2 else [f"it lives at placement {number}"])


def _nothing(_house: House) -> list[str]:
    return []


def _gets_in(house: House) -> list[str]:
    """At no moment does the secret name a login that is refused."""
    return [] if house.lets_in(house.placement("sub_00000001")) else ["the secret's login is refused"]


def _rotated(house: House) -> list[str]:
    placed = house.placement("sub_00000001")
    with house.ctx.registry.connection() as conn:
        login = placement.login(conn, placed, "app")
    wrong = [] if (login.generation, login.retire_in) == (2, None) else [f"not rotated: {login}"]
    return wrong + _gets_in(house)


def _nobody_needs_the_warm_cluster(url: str, world: Path) -> House:
    made = _house(url, world, warm_slots=1)
    made.work()
    made.close()
    return _house(url, world)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("begin", "calls", "in_between", "in_the_end", "at_least", "passed_over"),
    [
        pytest.param(_customer_pays, CALLS, _nothing, _gets_in, 80, (), id="provisioning"),
        pytest.param(_support_rotates, ROTATION_CALLS, _gets_in, _rotated, 40, (), id="rotation"),
        pytest.param(
            _shared_is_purged,
            PURGE_CALLS,
            _copied_before_it_goes,
            _purged,
            20,
            LOOKS,
            id="purge of a shared tenant",
        ),
        pytest.param(
            _dedicated_is_purged,
            DEDICATED_PURGE_CALLS,
            _copied_before_it_goes,
            _purged,
            20,
            LOOKS,
            id="purge of a dedicated tenant",
        ),
        pytest.param(
            _nobody_needs_the_warm_cluster,
            CALLS_OF_AN_END,
            _nothing,
            _nothing,
            10,
            (),
            id="end of a warm cluster",
        ),
        pytest.param(_support_moves_on, MOVE_CALLS, _writes, _moved, 20, LOOKS, id="move"),
        pytest.param(
            _support_moves,
            MOVE_CALLS,
            _writes,
            _moved,
            60,
            LOOKS,
            id="move with its target",
            marks=pytest.mark.soak,
        ),
        pytest.param(_support_confirms, CONFIRM_CALLS, _writes, _moved, 8, LOOKS, id="move confirmed"),
        pytest.param(
            _support_restores_on, RESTORE_FROM_COPY_CALLS, _writes_on, _restored, 20, LOOKS, id="restore"
        ),
        pytest.param(
            _support_restores,
            RESTORE_CALLS,
            _writes_on,
            _restored,
            80,
            (),
            id="restore with its clusters",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            _support_regrets_a_restore,
            CONFIRM_CALLS,
            _nothing,
            _not_restored,
            12,
            LOOKS,
            id="restore given up",
        ),
        pytest.param(
            _support_gives_up, CONFIRM_CALLS, _writes, _keeps_its_rows, 12, LOOKS, id="move given up"
        ),
    ],
)
def test_every_crash_point_converges_without_orphan_or_duplicate(
    postgres_server: PostgresServer,
    tmp_path: Path,
    process: Callable[..., int],
    begin: Callable[[str, Path], House],
    calls: tuple[str, ...],
    in_between: Callable[[House], list[str]],
    in_the_end: Callable[[House], list[str]],
    at_least: int,
    passed_over: tuple[str, ...],
) -> None:
    recording = tmp_path / "points"
    failures: list[str] = []
    points: list[str] = []
    template, before = f"crash_{uuid.uuid4().hex}", tmp_path / "world.sqlite"
    template_url = postgres_server.create_database(template)
    with Registry(template_url) as registry, registry.connection() as conn:
        schema_version.upgrade(conn)
    begin(template_url, before).close()
    acts = [-1]
    for number in acts:
        name, world = f"crash_{uuid.uuid4().hex}", tmp_path / f"world-{number}.sqlite"
        url = postgres_server.create_database(name, template=template)
        shutil.copy(before, world)
        house = _house(url, world)
        found: list[str] = []
        if number < 0:
            assert process(url, str(world), None, str(recording)) == 0
            points = recording.read_text().split("\n")
            acts += [
                n for n, point in enumerate(points) if not point.rpartition(":")[0].endswith(passed_over)
            ]
        elif process(url, str(world), number, None) != KILLED:
            found.append("the run did not come this far")
        else:
            found += in_between(house)
            if process(url, str(world), None, None) != 0:
                found.append(f"the successor did not finish {house.open_work()}")
        where = f"{number} {points[number] if number >= 0 else 'undisturbed'}"
        failures += [f"{where}: {wrong}" for wrong in (*found, *house.violations(), *in_the_end(house))]
        house.close()
        postgres_server.drop_database(name)
    postgres_server.drop_database(template)
    assert {f"{call}:{side}" for call in calls for side in ("before", "after")} <= set(points)
    assert len(acts) > at_least
    assert failures == []
