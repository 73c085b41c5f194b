"""A cluster is applied with the release of the stacks that its row names; an upgrade alone changes that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from controlplane.actions.action import Subject, dry_run, run
from controlplane.domain.cluster import Origin
from controlplane.domain.errors import Conflict, Invalid, NeedsHuman
from controlplane.domain.job import JobKind, Lane
from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.localcloud.fakes.terraform import ARCHIVE
from controlplane.services import timers
from controlplane.store import cluster, job, stack
from controlplane.store import preview as previews
from controlplane.store.cluster import ClusterRow
from controlplane.store.preview import PreviewRow
from controlplane.workers.drift.verify import verify
from controlplane.workers.engine.stacks import cluster_variables, placements_variables
from controlplane.workers.providers.terraform.inventory import ClusterInventory, PlacementsInventory
from tests.harness.engine import NEWER, ZONE, Harness
from tests.harness.work import do_one

CLUSTER = ClusterInventory.cluster
INSTANCE = 'module.cluster.aws_rds_cluster_instance.this["1"]'
WITHOUT_INSTANCE: Mapping[str, Any] = {INSTANCE: None}


@pytest.fixture
def home(harness: Harness) -> str:
    """Of a tenant of a shared plan, ready."""
    return paid(harness, 1)


def paid(harness: Harness, number: int, **fields: Any) -> str:
    subscription = harness.subscribe(number, **fields)
    harness.hear(subscription, "customer.subscription.created")
    harness.work()
    return harness.placement(subscription).cluster_id


def row_of(harness: Harness, cluster_id: str) -> ClusterRow:
    with harness.ctx.registry.connection() as conn:
        return cluster.get(conn, cluster_id)


def upgrade(harness: Harness, cluster_id: str, **params: Any) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "upgrade", cluster_id, subject=Subject.CLUSTER, actor="anna", reason="test", **params)


def preview(harness: Harness, cluster_id: str, **params: Any) -> PreviewRow:
    with harness.ctx.registry.connection() as conn:
        found = dry_run(conn, "upgrade", cluster_id, subject=Subject.CLUSTER, actor="anna", **params)
    assert isinstance(found, int)
    do_one(harness.ctx, JobKind.PREVIEW, str(found))
    with harness.ctx.registry.connection() as conn:
        return previews.get(conn, found)


def reprovision(harness: Harness, cluster_id: str) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", cluster_id, subject=Subject.CLUSTER, actor="anna", reason="test")


def look(harness: Harness) -> None:
    """A day has passed since the last look at any cluster."""
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE cluster SET observed_at = observed_at - interval '1 day'")
    harness.work()


def setting(harness: Harness, cluster_id: str) -> bool:
    """Does the cluster have what NEWER says?"""
    return bool((FakeAccount(harness.world).get("cluster", cluster_id) or {}).get("copy_tags"))


# ----------------------------------------------------------------------------------- what a row names


def test_a_new_cluster_names_the_release_of_the_worker_that_applies_it(harness: Harness, home: str) -> None:
    own = harness.terraform.release
    assert row_of(harness, home).release == own
    assert list(harness.world.all(ARCHIVE)) == [own]
    with harness.ctx.registry.connection() as conn:
        assert [found.digest for found in stack.releases(conn)] == [own]
    assert harness.terraform.applied("cluster", home) == own
    assert harness.violations() == []


def test_a_worker_with_newer_stacks_runs_what_the_row_names(harness: Harness, home: str) -> None:
    """Whatever asks: looks, repairs, a plan that changes the cluster, a tenant that is placed on it."""
    first = harness.terraform.release
    harness.carry(NEWER)
    look(harness)
    assert paid(harness, 2) == home
    reprovision(harness, home)
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", harness.tenant("sub_00000001").id, actor="anna", reason="test")
        row = cluster.get(conn, home)
        cluster.set_spec(conn, home, replace(row.spec, max_acu=row.spec.max_acu + 1))
        job.ensure(conn, JobKind.CLUSTER, home, reason="a larger plan", actor="test")
    harness.work()
    row = row_of(harness, home)
    assert (row.release, row.observed_generation) == (first, row.generation)
    account = FakeAccount(harness.world)
    assert (account.get("cluster", home) or {})["max_acu"] == row.spec.max_acu
    assert not setting(harness, home)
    assert harness.violations() == []


def test_a_variable_that_the_release_does_not_declare_changes_nothing(harness: Harness, home: str) -> None:
    """Newer code passes one more; an archive of before must not see it, and nothing is applied anew."""
    row = row_of(harness, home)
    assert row.declares is not None
    platform = harness.ctx.platform
    assert set(cluster_variables(platform, row)) <= set(row.declares["cluster"])
    assert set(placements_variables(platform, row, ["p-a"])) <= set(row.declares["placements"])
    older = replace(row, declares={"cluster": ["cluster_id", "min_acu"], "placements": ["placements"]})
    assert cluster_variables(platform, older) == {"cluster_id": home, "min_acu": row.spec.min_acu}
    assert placements_variables(platform, older, ["p-b", "p-a"]) == {"placements": ["p-a", "p-b"]}
    newer_code = replace(platform, environment="another", app_role_arn="arn:aws:iam::1:role/another")
    assert placements_variables(newer_code, older, []) == placements_variables(platform, older, [])
    unnamed = replace(row, release=None, declares=None)
    assert set(cluster_variables(platform, unnamed)) == set(cluster_variables(platform, row))
    assert placements_variables(platform, replace(older, declares={}), []) == {}


def test_it_destroys_by_what_the_row_names_too(harness: Harness) -> None:
    home = paid(harness, 1, plan="dedicated")
    newer = harness.carry(NEWER)
    newer.damage(newer.release, lose=True)
    subscription = harness.subscribe(1, plan="dedicated", status="canceled")
    harness.hear(subscription)
    harness.work()
    tenant_id = harness.tenant(subscription).id
    with harness.ctx.registry.connection() as conn:
        asked = run(conn, "purge", tenant_id, actor="anna", reason="test", early=True).purge
        assert asked is not None
        run(conn, "approve-purge", tenant_id, actor="bert", reason="looked at", digest=asked.digest)
    harness.work()
    assert row_of(harness, home).destroyed_at is not None
    assert FakeAccount(harness.world).names("cluster") == []


def test_a_worker_killed_between_publication_and_naming_leaves_nothing_named(harness: Harness) -> None:
    """Its successor carries another release and names that."""
    subscription = harness.subscribe(1)
    harness.hear(subscription)

    def die(point: str) -> None:
        if point == "terraform.publish:after":
            raise KeyboardInterrupt

    harness.world._crash = die
    with pytest.raises(KeyboardInterrupt):
        harness.work()
    harness.world._crash = lambda _point: None
    left, home = harness.terraform.release, harness.placement(subscription).cluster_id
    assert list(harness.world.all(ARCHIVE)) == [left]
    assert row_of(harness, home).release is None
    with harness.ctx.registry.connection() as conn:
        assert stack.releases(conn) == []
    newer = harness.carry(NEWER, installed=False)
    harness.work()
    assert row_of(harness, home).release == newer.release
    assert harness.violations() == []


@pytest.mark.parametrize("lose", [True, False], ids=["missing", "damaged"])
def test_without_its_archive_nothing_is_run_and_a_person_is_told(
    harness: Harness, home: str, lose: bool
) -> None:
    """Not even by a worker that carries these very files: what the bucket has lost, a person should know."""
    own = harness.terraform.release
    harness.terraform.damage(own, lose=lose)
    reprovision(harness, home)
    harness.work()
    row = row_of(harness, home)
    assert row.runbook == "stack-release"
    for said in (
        f"release {own}",
        "'cluster'",
        f"is {'missing' if lose else 'damaged'}",
        f"releases/{own}.tar",
    ):
        assert said in str(row.needs_attention)
    harness.terraform.publish()
    reprovision(harness, home)
    harness.work()
    assert row_of(harness, home).needs_attention is None
    assert harness.violations() == []


# -------------------------------------------------------------------------------------------- upgrades


def test_an_upgrade_brings_the_cluster_and_then_its_placements_to_the_installed_release(
    harness: Harness, home: str
) -> None:
    first, newer = harness.terraform.release, harness.carry(NEWER)
    upgrade(harness, home)
    assert row_of(harness, home).upgraded_from == first
    harness.work()
    row = row_of(harness, home)
    assert (row.release, row.upgraded_from) == (newer.release, None)
    assert row.observed_generation == row.generation
    assert setting(harness, home)
    placed = harness.placement("sub_00000001")
    assert newer.applied("placements", placed.cluster_id) == newer.release
    assert harness.violations() == []
    with harness.ctx.registry.connection() as conn:
        audited = conn.execute("SELECT actor, detail FROM audit WHERE action = 'cluster.upgrade'").fetchall()
        causes = conn.execute(
            "SELECT causes FROM job_history WHERE kind = 'cluster' AND subject = %s ORDER BY id DESC LIMIT 1",
            [home],
        ).fetchall()
    assert audited == [{"actor": "anna", "detail": {"from": first, "to": newer.release, "reason": "test"}}]
    assert [(cause["actor"], cause["reason"]) for cause in causes[0]["causes"]] == [("anna", "test")]


def test_an_upgrade_reaches_no_other_cluster(harness: Harness, home: str) -> None:
    other, first = paid(harness, 2, plan="dedicated"), harness.terraform.release
    harness.carry(NEWER)
    upgrade(harness, home)
    harness.work()
    look(harness)
    assert row_of(harness, other).release == first
    assert (setting(harness, home), setting(harness, other)) == (True, False)
    assert harness.violations() == []


def test_a_worker_that_does_not_carry_a_release_upgrades_to_it(harness: Harness, home: str) -> None:
    """A deploy rolls: the row says what is run, and any worker may take the job."""
    older = harness.ctx
    newer = harness.carry(NEWER)
    upgrade(harness, home)
    harness.ctx = older
    harness.work()
    assert row_of(harness, home).release == newer.release
    assert setting(harness, home)
    assert harness.violations() == []


def test_as_long_as_the_cluster_is_not_done_its_placements_stay_as_they_are(
    harness: Harness, home: str
) -> None:
    first, newer = harness.terraform.release, harness.carry(NEWER)
    newer.fail(CLUSTER, NeedsHuman("refused", runbook="aws-request"))
    upgrade(harness, home)
    placed = harness.placement("sub_00000001")
    with harness.ctx.registry.connection() as conn:
        job.ensure(conn, JobKind.TENANT, placed.tenant_id, reason="by hand", actor="anna")
    harness.work()
    assert row_of(harness, home).runbook == "aws-request"
    assert newer.applied("placements", placed.cluster_id) == first
    assert harness.tenant("sub_00000001").needs_attention is None
    reprovision(harness, home)
    harness.work()
    assert newer.applied("placements", placed.cluster_id) == newer.release
    assert harness.violations() == []


def test_what_would_destroy_is_refused_and_taken_back_by_the_release_before(
    harness: Harness, home: str
) -> None:
    other, first = paid(harness, 2, plan="dedicated"), harness.terraform.release
    newer = harness.carry(WITHOUT_INSTANCE)
    upgrade(harness, home)
    harness.work()
    assert row_of(harness, home).runbook == "destructive-terraform-plan"
    assert f"{home}-1" in FakeAccount(harness.world).names("instance")
    for attempt in (upgrade, preview):
        with pytest.raises(Conflict, match=f"the upgrade of {home} is not over: one cluster at a time"):
            attempt(harness, other)
    upgrade(harness, home, release=first[:12])
    harness.work()
    row = row_of(harness, home)
    assert (row.release, row.upgraded_from, row.needs_attention) == (first, None, None)
    assert harness.violations() == []
    upgrade(harness, other, release=newer.release)  # the next may begin
    assert row_of(harness, other).upgraded_from == first


def test_a_preview_says_from_which_to_which_and_what_terraform_would_do(harness: Harness, home: str) -> None:
    first, newer = harness.terraform.release, harness.carry(NEWER | WITHOUT_INSTANCE)
    before = harness.world.all("terraform-state")
    found = preview(harness, home)
    assert found.state == "done", found.error
    assert (found.tenant_id, found.cluster_id) == (None, home)
    why = f"release {first[:12]} → {newer.release[:12]}"
    assert found.steps == [
        {"name": "apply_cluster_stack", "target": home, "reason": why},
        {"name": "apply_placements_stack", "target": home, "reason": why},
    ]
    assert found.changes == [
        {"address": CLUSTER, "action": "update", "destructive": False},
        {"address": INSTANCE, "action": "delete", "destructive": True},
    ]
    assert harness.world.all("terraform-state") == before
    assert row_of(harness, home).release == first
    newer.damage(newer.release, lose=True)
    missing = preview(harness, home)
    assert missing.state == "failed"
    assert f"release {newer.release}" in str(missing.error)


def test_a_preview_waits_for_what_is_at_work_on_the_cluster(harness: Harness, home: str) -> None:
    harness.carry(NEWER)
    with harness.ctx.registry.connection() as conn:
        asked = job.ensure(conn, JobKind.CLUSTER, home, reason="test", actor="test")
        assert previews.waits_for(conn, None, home) == f"operation {asked} has not begun"
    assert preview(harness, home).state == "waiting"
    harness.work()
    with harness.ctx.registry.connection() as conn:
        assert previews.waits_for(conn, None, home) is None


def close(harness: Harness, home: str) -> str:
    with harness.ctx.registry.connection() as conn:
        cluster.set_spec(conn, home, cluster.get(conn, home).spec.closed())
    return "is closed"


def restored(harness: Harness, home: str) -> str:
    with harness.ctx.registry.connection() as conn:
        spec = cluster.get(conn, home).spec.restored(Origin("c-aaaaaaaaaaaa", snapshot="s"))
        cluster.set_spec(conn, home, spec)
    return "is made for one restore"


def unnamed(harness: Harness, home: str) -> str:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE cluster SET release = NULL")
    return "names no release yet"


def moving(harness: Harness, home: str) -> str:
    with harness.ctx.registry.connection() as conn:
        tenant_id = harness.tenant("sub_00000001").id
        run(conn, "move", tenant_id, to="dedicated", actor="anna", reason="test")
    return f"a transfer of {tenant_id} runs on cluster {home}"


def cloning(harness: Harness, home: str) -> str:
    with harness.ctx.registry.connection() as conn:
        made = run(
            conn, "clone", harness.tenant("sub_00000001").id, slug="copy", actor="anna", reason="test"
        ).made
    return f"a transfer of {made} runs on cluster {home}"


@pytest.mark.parametrize("begin", [close, restored, unnamed, moving, cloning])
def test_what_is_not_upgraded(harness: Harness, home: str, begin: Callable[[Harness, str], str]) -> None:
    harness.carry(NEWER)
    said = begin(harness, home)
    for attempt in (upgrade, preview):
        with pytest.raises(Conflict, match=said):
            attempt(harness, home)
    assert row_of(harness, home).upgraded_from is None


def test_the_target_of_a_move_is_upgraded_once_it_is_cut_over(harness: Harness, home: str) -> None:
    moving(harness, home)
    harness.work()
    target = harness.placement("sub_00000001").cluster_id
    assert target != home
    newer = harness.carry(NEWER)
    for cluster_id in (target, home):
        upgrade(harness, cluster_id)
        harness.work()
        assert row_of(harness, cluster_id).release == newer.release
    assert harness.violations() == []


def test_only_a_release_that_was_published_is_named(harness: Harness, home: str) -> None:
    own = harness.terraform.release
    with pytest.raises(Conflict, match=f"names release {own[:12]} already"):
        upgrade(harness, home)
    with pytest.raises(Invalid, match=rf"release: expected one that was published \({own[:12]}\)"):
        upgrade(harness, home, release="f" * 64)
    with pytest.raises(Invalid, match="the first 12 or more digits"):
        upgrade(harness, home, release=own[:11])
    with harness.ctx.registry.connection() as conn:
        for last in "01":
            stack.record_release(conn, "a" * 63 + last, {})
    with pytest.raises(Invalid, match="one that was published"):
        upgrade(harness, home, release="a" * 12)  # which of the two?


# ----------------------------------------------------------------------------------------------- looks


def drift_of(harness: Harness, cluster_id: str) -> list[dict[str, str]] | None:
    with harness.ctx.registry.connection() as conn:
        found = stack.get(conn, cluster_id)
    assert found is not None
    return found.drift


def change_by_hand(harness: Harness, cluster_id: str) -> None:
    FakeAccount(harness.world).change("cluster", cluster_id, max_acu=99)


def test_a_look_reports_what_was_changed_by_hand_and_repairs_nothing(harness: Harness, home: str) -> None:
    assert drift_of(harness, home) is None
    look(harness)
    assert drift_of(harness, home) == []
    change_by_hand(harness, home)
    harness.work()
    assert drift_of(harness, home) == [], "the day is not over"
    look(harness)
    assert drift_of(harness, home) == [{"address": CLUSTER, "action": "update"}]
    assert (FakeAccount(harness.world).get("cluster", home) or {})["max_acu"] == 99
    (found,) = verify(harness.ctx, probes=0).findings
    assert (found.system, found.fault, found.kind, found.name) == ("Terraform", "differs", "cluster", home)
    assert CLUSTER in found.detail
    assert found.repair is None
    reprovision(harness, home)
    harness.work()
    assert drift_of(harness, home) is None
    assert (FakeAccount(harness.world).get("cluster", home) or {})["max_acu"] != 99
    assert verify(harness.ctx, probes=0).findings == ()


def test_a_look_reports_what_a_new_setting_asks_for_and_applies_nothing(harness: Harness, home: str) -> None:
    """It would reach every cluster within the day."""
    platform = replace(harness.ctx.platform, app_security_group_ids=("sg-2",))
    harness.ctx = replace(harness.ctx, platform=platform)
    look(harness)
    network = ClusterInventory.security_group
    assert drift_of(harness, home) == [{"address": network, "action": "update"}]
    assert (FakeAccount(harness.world).get("network", home) or {})["from"] == ["sg-1"]
    row = row_of(harness, home)
    assert (row.needs_attention, row.observed_generation) == (None, row.generation)
    reprovision(harness, home)
    harness.work()
    assert (FakeAccount(harness.world).get("network", home) or {})["from"] == ["sg-2"]
    assert drift_of(harness, home) is None


def test_a_look_plans_by_the_release_that_the_row_names(harness: Harness, home: str) -> None:
    harness.carry(NEWER)
    look(harness)
    assert drift_of(harness, home) == []


def test_a_look_says_where_the_archive_is_missing(harness: Harness, home: str) -> None:
    own, newer = harness.terraform.release, harness.carry(NEWER)
    newer.damage(own, lose=True)
    look(harness)
    row = row_of(harness, home)
    assert row.runbook == "stack-release"
    assert f"releases/{own}.tar" in str(row.needs_attention)
    look(harness)  # a person has been told: nobody looks again until the cluster is well
    assert harness.open_work()[0]["state"] == "parked"


def test_only_clusters_in_use_are_looked_at_a_few_at_a_time(harness: Harness) -> None:
    homes = [paid(harness, number, plan="dedicated") for number in range(1, timers.LOOKS_AT_ONCE + 3)]
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE cluster SET observed_at = observed_at - interval '1 day'")
        conn.execute("UPDATE cluster SET needs_attention = 'x', runbook = 'y' WHERE id = %s", [homes[0]])
        for _ in range(2):
            timers.run(conn, harness.ctx.catalogue, zone=ZONE, limit=100)
        waiting = conn.execute("SELECT subject, causes FROM job WHERE kind = 'cluster'").fetchall()
        assert len(waiting) == timers.LOOKS_AT_ONCE
        assert all(row["causes"] == [] for row in waiting)
        assert homes[0] not in {row["subject"] for row in waiting}
    harness.work()
    with harness.ctx.registry.connection() as conn:
        drifts = conn.execute("SELECT workspace FROM stack WHERE drift = '[]'").fetchall()
        ended = conn.execute("SELECT FROM job_history WHERE kind = 'cluster' AND causes = '[]'").fetchall()
    assert {row["workspace"] for row in drifts} == set(homes[1:])
    assert ended == [], "a look that changes nothing is no history"


def test_a_look_waits_behind_what_people_ask_for(harness: Harness, home: str) -> None:
    other = paid(harness, 2, plan="dedicated")
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE cluster SET observed_at = observed_at - interval '1 day'")
        timers.run(conn, harness.ctx.catalogue, zone=ZONE, limit=100)
        run(conn, "reprovision", other, subject=Subject.CLUSTER, actor="anna", reason="test")
        claimed = job.claim(conn, Lane.LONG, holder="test", seconds=60, kinds=[JobKind.CLUSTER])
    assert claimed is not None
    assert claimed.subject == other


def test_the_placement_that_a_stack_lacks_is_repaired_by_the_row_too(harness: Harness, home: str) -> None:
    """The secrets of a tenant, by a worker whose own stacks have none of them."""
    placed = harness.placement("sub_00000001")
    FakeAccount(harness.world).delete("secret", placed.app_secret)
    harness.carry({PlacementsInventory.APP: None})
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", placed.tenant_id, actor="anna", reason="test")
    harness.work()
    assert harness.lets_in(placed)
    assert harness.terraform.applied("placements", placed.cluster_id) == row_of(harness, home).release
