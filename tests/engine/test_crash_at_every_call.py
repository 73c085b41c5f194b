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
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from tests.harness import crash_scenarios as scenarios
from tests.harness.engine import Harness

KILLED = 137
CALLS = (
    "billing.subscriptions_of",
    "config_cache.publish",
    "databases.bind",
    "databases.create.inside",
    "databases.harden_cluster",
    "databases.let_in",
    "databases.prove",
    "databases.set_password",
    "hostnames.create",
    "secrets.write",
    "terraform.lock",
    "terraform.publish",
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
    "databases.let_in",
    "moves.clone",
    "databases.prove",
    "databases.close_logins",
    "config_cache.publish",
    "terraform.destroy:module.cluster.aws_rds_cluster.this",
)
RESTORE_FROM_COPY_CALLS = (
    "databases.let_in",
    "moves.clone",
    "databases.close_logins",
    "config_cache.publish",
    "terraform.destroy:module.cluster.aws_rds_cluster.this",
)
OF_SECRETS = "module.placements.aws_secretsmanager_secret.app"
CONFIRM_CALLS = ("databases.drop.database", f"terraform.apply:{OF_SECRETS}")
ABORT_CALLS = ("databases.drop.database", f"terraform.destroy:{OF_SECRETS}")


UPGRADE_CALLS = ("terraform.lock", "terraform.apply:module.cluster.aws_rds_cluster.this")


LOOKS = (".describe", ".role_exists", ".read", ".observe", ".find")
"""Calls that change nothing: a worker that dies between two of them is one that dies before the act."""


PURGE_CALLS = (
    "dumps.make",
    "databases.drop.database",
    "databases.drop.roles",
    f"terraform.apply:{OF_SECRETS}",
    "inventory.tagged",
)
DEDICATED_PURGE_CALLS = (
    "snapshots.ensure",
    f"terraform.destroy:{OF_SECRETS}",
    "terraform.destroy:module.cluster.aws_iam_role.this",
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

    harness = scenarios.open_harness(url, world, crash=crash)
    harness.work()
    harness.close()
    if record is not None:
        Path(record).write_text("\n".join(points))


@pytest.fixture
def process() -> Callable[..., int]:
    """Run `_work` in a process of its own; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.test_crash_at_every_call"])

    def run(*args: object) -> int:
        child = context.Process(target=_work, args=args)
        child.start()
        child.join(60)
        assert child.exitcode is not None, "the worker hangs"
        return child.exitcode

    return run


@pytest.mark.timeout(3600)  # hundreds of runs: minutes where nothing else runs
@pytest.mark.parametrize(
    ("begin", "calls", "in_between", "in_the_end", "at_least", "passed_over"),
    [
        pytest.param(
            scenarios.customer_pays, CALLS, scenarios.nothing, scenarios.gets_in, 60, LOOKS, id="provisioning"
        ),
        pytest.param(
            scenarios.customer_pays,
            CALLS,
            scenarios.nothing,
            scenarios.gets_in,
            80,
            (),
            id="provisioning with its looks",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            scenarios.support_rotates,
            ROTATION_CALLS,
            scenarios.gets_in,
            scenarios.rotated,
            20,
            LOOKS,
            id="rotation",
        ),
        pytest.param(
            scenarios.support_rotates,
            ROTATION_CALLS,
            scenarios.gets_in,
            scenarios.rotated,
            25,
            (),
            id="rotation with its looks",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            scenarios.shared_is_purged,
            PURGE_CALLS,
            scenarios.copied_before_it_goes,
            scenarios.purged,
            20,
            LOOKS,
            id="purge of a shared tenant",
        ),
        pytest.param(
            scenarios.dedicated_is_purged,
            DEDICATED_PURGE_CALLS,
            scenarios.copied_before_it_goes,
            scenarios.purged,
            20,
            LOOKS,
            id="purge of a dedicated tenant",
        ),
        pytest.param(
            scenarios.nobody_needs_the_warm_cluster,
            CALLS_OF_AN_END,
            scenarios.nothing,
            scenarios.nothing,
            10,
            (),
            id="end of a warm cluster",
        ),
        pytest.param(
            scenarios.support_upgrades,
            UPGRADE_CALLS,
            scenarios.gets_in,
            scenarios.upgraded,
            10,
            LOOKS,
            id="upgrade of a cluster",
        ),
        pytest.param(
            scenarios.support_moves_on, MOVE_CALLS, scenarios.writes, scenarios.moved, 20, LOOKS, id="move"
        ),
        pytest.param(
            scenarios.support_moves,
            MOVE_CALLS,
            scenarios.writes,
            scenarios.moved,
            60,
            LOOKS,
            id="move with its target",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            scenarios.support_confirms,
            CONFIRM_CALLS,
            scenarios.writes,
            scenarios.moved,
            8,
            LOOKS,
            id="move confirmed",
        ),
        pytest.param(
            scenarios.support_restores_on,
            RESTORE_FROM_COPY_CALLS,
            scenarios.writes_on,
            scenarios.restored,
            20,
            LOOKS,
            id="restore",
        ),
        pytest.param(
            scenarios.support_restores,
            RESTORE_CALLS,
            scenarios.writes_on,
            scenarios.restored,
            80,
            (),
            id="restore with its clusters",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            scenarios.support_regrets_a_restore,
            CONFIRM_CALLS,
            scenarios.nothing,
            scenarios.not_restored,
            12,
            LOOKS,
            id="restore aborted",
        ),
        pytest.param(
            scenarios.support_aborts,
            ABORT_CALLS,
            scenarios.writes,
            scenarios.keeps_its_rows,
            12,
            LOOKS,
            id="move aborted",
        ),
        pytest.param(
            scenarios.support_renames,
            ("config_cache.publish",),
            scenarios.found_by_every_name,
            scenarios.renamed,
            6,
            LOOKS,
            id="rename",
        ),
        pytest.param(
            scenarios.redirections_end,
            ("config_cache.remove",),
            scenarios.nothing,
            scenarios.forgotten,
            4,
            LOOKS,
            id="end of redirections",
        ),
        pytest.param(
            scenarios.support_clones,
            ("moves.clone", "config_cache.publish"),
            scenarios.served_with_its_rows,
            scenarios.cloned,
            3,
            LOOKS,
            id="clone",
        ),
    ],
)
def test_every_crash_point_converges_without_orphan_or_duplicate(
    postgres_server: PostgresServer,
    tmp_path: Path,
    process: Callable[..., int],
    begin: Callable[[str, Path], Harness],
    calls: tuple[str, ...],
    in_between: Callable[[Harness], list[str]],
    in_the_end: Callable[[Harness], list[str]],
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
        harness = scenarios.open_harness(url, world)
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
            found += in_between(harness)
            if process(url, str(world), None, None) != 0:
                found.append(f"the successor did not finish {harness.open_work()}")
        where = f"{number} {points[number] if number >= 0 else 'undisturbed'}"
        failures += [f"{where}: {wrong}" for wrong in (*found, *harness.violations(), *in_the_end(harness))]
        harness.close()
        postgres_server.drop_database(name)
    postgres_server.drop_database(template)
    met = {re.sub(r'\["p-.*"\]', "", point) for point in points} | set(points)
    assert {f"{call}:{side}" for call in calls for side in ("before", "after")} <= met
    assert len(acts) > at_least
    assert failures == []
