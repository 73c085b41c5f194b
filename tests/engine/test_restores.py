"""A tenant gets an earlier state back, on fakes: its rows are those of then, and what it had is kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.actions.action import dry_run, run
from controlplane.domain.errors import Conflict, Invalid
from controlplane.domain.job import JobKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.pool import QUOTA_RUNBOOK
from controlplane.domain.transfer import TransferKind, TransferPhase, moment
from controlplane.localcloud.fakes import past
from controlplane.localcloud.fakes.aws import FakeAccount, FakeClusters
from controlplane.localcloud.fakes.databases import DATABASE, ROLE
from controlplane.store import cluster, placement, transfer
from controlplane.store import preview as previews
from controlplane.store.cluster import ClusterRow
from controlplane.store.transfer import TransferRow
from controlplane.workers.drift.verify import verify
from controlplane.workers.schedule import warm_pool
from tests.engine.test_life import paid
from tests.harness.engine import MIGRATIONS, Harness
from tests.harness.work import do_one

TENANT = tenant_id_for("sub_00000001")


def paid_long_ago(harness: Harness, number: int = 1, **fields: object) -> str:
    subscription = paid(harness, number, **fields)
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET ready_at = ready_at - interval '1 day'")
    return subscription


def remember(harness: Harness, subscription: str) -> str:
    """Its cluster can be restored to what it is now; the moment."""
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    past.keep_moment(harness.world, harness.placement(subscription).cluster_id, now)
    return moment(now)


def ask(harness: Harness, at: str | None = None, snapshot: str | None = None) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "restore", TENANT, at=at, snapshot=snapshot, actor="support", reason="test")


def abort(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "abort-transfer", TENANT, actor="support", reason="test")


def confirm(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "confirm-transfer", TENANT, actor="support", reason="test")


def last(harness: Harness) -> TransferRow:
    with harness.ctx.registry.connection() as conn:
        found = transfer.latest(conn, TENANT)
    assert found is not None
    assert found.kind is TransferKind.RESTORE
    return found


def ended(harness: Harness) -> TransferPhase | None:
    """How the last one is over; None while it is not."""
    found = last(harness)
    return None if found.finished_at is None else found.phase


def restored_cluster(harness: Harness) -> ClusterRow:
    asked = last(harness)
    assert asked.restored_cluster is not None
    with harness.ctx.registry.connection() as conn:
        return cluster.get(conn, asked.restored_cluster)


def damaged(harness: Harness, **fields: object) -> tuple[str, str]:
    """(the subscription, the moment before what should not have happened)"""
    subscription = paid_long_ago(harness, **fields)
    harness.write(1, "good")
    at = remember(harness, subscription)
    harness.write(1, "bad")
    return subscription, at


@pytest.mark.parametrize("plan", ["shared", "dedicated"])
def test_rows_are_those_of_then_and_what_there_was_is_kept_closed(harness: Harness, plan: str) -> None:
    subscription, at = damaged(harness, plan=plan)
    before = harness.placement(subscription)
    ask(harness, at)
    harness.work()
    assert harness.nth_placement(subscription) == 2
    assert harness.rows(subscription) == ["good"]
    assert harness.write(1, "after")
    assert harness.databases.rows(harness.endpoint(before), before.database) == ["good", "bad"]
    assert not harness.lets_in(before)
    found = last(harness)
    assert (found.phase, found.copied_rows) == (TransferPhase.REVERSIBLE, 1)
    assert found.pause_seconds is not None
    assert found.copied_at is not None
    assert harness.violations() == []
    confirm(harness)
    harness.work()
    assert ended(harness) is TransferPhase.CONFIRMED
    assert harness.violations() == []


def test_the_restored_cluster_is_nobodys_and_gone_in_the_end(harness: Harness) -> None:
    _, at = damaged(harness)
    ask(harness, at)
    harness.work()
    there = restored_cluster(harness)
    assert (there.slots, there.spec.instance_count, there.spec.backup_retention_days) == (0, 1, 1)
    assert there.destroyed_at is not None
    assert harness.world.get("aws-cluster", there.id) is None
    assert not [key for kind in (DATABASE, ROLE) for key in harness.world.all(kind) if there.id in key]
    with harness.ctx.registry.connection() as conn:
        reported = conn.execute("SELECT message FROM step_event WHERE kind = 'approved'").fetchall()
    assert "asked for by support: its rows are copied" in reported[0]["message"]
    assert not FakeAccount(harness.world).names("snapshot")


def test_a_snapshot_is_restored_likewise(harness: Harness) -> None:
    subscription, _ = damaged(harness)
    home = harness.placement(subscription).cluster_id
    harness.snapshots.polls = 0
    harness.snapshots.ensure(home, "before-release-7", tags={"cluster": home})
    harness.write(1, "worse")
    ask(harness, snapshot="before-release-7")
    harness.work()
    assert harness.rows(subscription) == ["good", "bad"]
    assert harness.violations() == []


def test_a_moment_before_a_move_is_looked_for_where_the_tenant_lived_then(harness: Harness) -> None:
    subscription, at = damaged(harness)
    with harness.ctx.registry.connection() as conn:
        run(conn, "move", TENANT, to="dedicated", actor="support", reason="test")
    harness.work()
    confirm(harness)
    harness.work()
    ask(harness, at)
    harness.work()
    assert harness.rows(subscription) == ["good"]
    assert harness.nth_placement(subscription) == 3
    with harness.ctx.registry.connection() as conn:
        assert last(harness).lived_on == placement.all_of(conn, TENANT)[0].id
        assert cluster.get(conn, harness.placement(subscription).cluster_id).spec.isolation == "dedicated"
    assert harness.violations() == []


def test_a_database_of_an_older_release_is_copied_as_it_was_and_then_brought_forward(
    registry: object, database_url: str, tmp_path: Path
) -> None:
    old = tmp_path / "migrations"
    old.mkdir()
    first = min(MIGRATIONS.glob("0001_*.sql"))
    (old / first.name).write_bytes(first.read_bytes())
    harness = Harness(database_url, migrations=old)
    subscription = paid_long_ago(harness)
    harness.write(1, "good")
    at = remember(harness, subscription)
    (old / "0002_more.sql").write_text("CREATE TABLE more (id int PRIMARY KEY);")
    harness.ctx = replace(harness.ctx, release="0002")
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", TENANT, actor="support", reason="test")
    harness.work()
    harness.write(1, "bad")
    ask(harness, at)
    harness.work()
    placed = harness.placement(subscription)
    seen = harness.databases.observe(harness.endpoint(placed), placed)
    assert (last(harness).release, seen.release) == ("0001", "0002")
    assert harness.rows(subscription) == ["good"]
    with harness.ctx.registry.connection() as conn:
        names = [
            row["name"]
            for row in conn.execute(
                "SELECT name FROM step WHERE operation_id = (SELECT max(operation_id) FROM step"
                " WHERE name = 'cut_over') ORDER BY seq"
            ).fetchall()
        ]
    assert names.index("copy_rows") < len(names) - 1 - names[::-1].index("migrate_schema")
    assert names.index("verify_access") < names.index("cut_over")
    assert harness.violations() == []
    harness.close()


def test_others_passwords_of_then_open_nothing_on_the_restored_cluster(harness: Harness) -> None:
    subscription = paid_long_ago(harness)
    other = paid_long_ago(harness, 2)
    at = remember(harness, subscription)
    harness.moves.refuse("clone")
    ask(harness, at)
    harness.work()
    there = restored_cluster(harness)
    assert harness.tenant(subscription).runbook == "move"
    endpoint = harness.endpoint(replace(harness.placement(other), cluster_id=there.id))
    for placed in (harness.placement(other), harness.placement(subscription)):
        login = harness.ctx.providers.secrets.read(placed.app_secret)
        assert harness.lets_in(placed)
        assert not harness.databases.admits(endpoint, login)
    abort(harness)
    harness.work()
    assert restored_cluster(harness).destroyed_at is not None
    assert harness.violations() == []


def test_what_is_aborted_before_the_cut_leaves_the_tenant_as_it_was(harness: Harness) -> None:
    subscription, at = damaged(harness)
    harness.moves.refuse("clone")
    ask(harness, at)
    harness.work()
    abort(harness)
    harness.work()
    assert ended(harness) is TransferPhase.ABORTED
    assert harness.nth_placement(subscription) == 1
    assert harness.write(1, "still here")
    assert restored_cluster(harness).destroyed_at is not None
    assert harness.tenant(subscription).needs_attention is None
    assert harness.violations() == []


def test_what_is_aborted_before_anything_was_made_ends_likewise(harness: Harness) -> None:
    subscription, _ = damaged(harness)
    ask(harness, snapshot="not-there")
    harness.work()
    abort(harness)
    harness.work()
    assert ended(harness) is TransferPhase.ABORTED
    assert harness.tenant(subscription).needs_attention is None
    assert harness.violations() == []


def test_a_tenant_that_is_suspended_meanwhile_is_not_restored(harness: Harness) -> None:
    subscription, at = damaged(harness)
    harness.moves.refuse("clone")
    ask(harness, at)
    harness.work()
    harness.subscribe(1, status="unpaid")
    harness.hear(subscription)
    harness.work()
    assert ended(harness) is TransferPhase.ABORTED
    assert restored_cluster(harness).destroyed_at is not None
    assert harness.nth_placement(subscription) == 1
    assert harness.violations() == []


def test_a_failure_in_the_pause_opens_the_former_database_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription, at = damaged(harness)
    whole = harness.databases.close_logins

    def closes_and_fails(*arguments: object) -> None:
        whole(*arguments)  # type: ignore[arg-type]
        raise Conflict("made to fail")

    monkeypatch.setattr(harness.databases, "close_logins", closes_and_fails)
    ask(harness, at)
    harness.work()
    assert harness.tenant(subscription).runbook == "refused"
    assert harness.nth_placement(subscription) == 1
    assert harness.write(1, "still here")
    monkeypatch.undo()
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", TENANT, actor="support", reason="test")
    harness.work()
    assert harness.rows(subscription) == ["good"]


def test_a_restore_that_nobody_confirms_ends_after_its_time(harness: Harness) -> None:
    _, at = damaged(harness)
    ask(harness, at)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE transfer SET keep_until = clock_timestamp()")
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
    harness.work()
    assert ended(harness) is TransferPhase.CONFIRMED
    assert harness.violations() == []


def test_a_moment_outside_of_the_window_waits_for_a_person_and_one_not_stored_yet_for_aws(
    harness: Harness,
) -> None:
    subscription, at = damaged(harness)
    home = harness.placement(subscription).cluster_id
    now, clusters = datetime.now(UTC), FakeClusters(harness.world)
    clusters.change_window(home, now, now)
    ask(harness, at)
    harness.work()
    assert harness.tenant(subscription).runbook == "restore"
    assert harness.write(1, "still here")
    assert last(harness).restored_cluster is None
    clusters.change_window(home, now - timedelta(days=1), now - timedelta(hours=1))
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", TENANT, actor="support", reason="test")
    with pytest.raises(AssertionError, match="not reconciled"):
        harness.work(rounds=3)
    clusters.change_window(home, now - timedelta(days=1), now)
    harness.work()
    assert harness.rows(subscription) == ["good"]


def test_a_log_that_aws_has_not_stored_after_an_hour_waits_for_a_person(harness: Harness) -> None:
    subscription, _ = damaged(harness)
    now = datetime.now(UTC)
    home = harness.placement(subscription).cluster_id
    FakeClusters(harness.world).change_window(home, now - timedelta(days=1), now - timedelta(hours=3))
    ask(harness, moment(now - timedelta(hours=2)))
    harness.work()
    row = harness.tenant(subscription)
    assert (row.runbook, "has stored the log" in (row.needs_attention or "")) == ("restore", True)


def test_snapshots_that_are_not_its_clusters_wait_for_a_person(harness: Harness) -> None:
    subscription = paid_long_ago(harness)
    elsewhere = paid_long_ago(harness, 2, plan="dedicated")
    other = harness.placement(elsewhere).cluster_id
    harness.snapshots.polls = 0
    harness.snapshots.ensure(other, "anothers", tags={"cluster": other})
    FakeAccount(harness.world).make(
        "snapshot", "foreign", cluster="legacy-db", taken_at="2026-01-01T00:00:00Z"
    )
    for name, said in (
        ("missing", "there is no snapshot missing"),
        ("anothers", f"is of {other}, and {TENANT} lived on"),
        ("foreign", "legacy-db, which the registry does not know"),
    ):
        ask(harness, snapshot=name)
        harness.work()
        row = harness.tenant(subscription)
        assert (row.runbook, said in (row.needs_attention or "")) == ("restore", True)
        abort(harness)
        harness.work()
    assert harness.violations() == []


def test_a_snapshot_without_the_tenants_database_waits_for_a_person(harness: Harness) -> None:
    first = paid_long_ago(harness, 2)
    home = harness.placement(first).cluster_id
    harness.snapshots.polls = 0
    harness.snapshots.ensure(home, "before-it-came", tags={"cluster": home})
    subscription = paid_long_ago(harness)
    assert harness.placement(subscription).cluster_id == home
    ask(harness, snapshot="before-it-came")
    harness.work()
    row = harness.tenant(subscription)
    assert (row.runbook, "was not there" in (row.needs_attention or "")) == ("restore", True)
    abort(harness)
    harness.work()
    assert harness.violations() == []


def test_an_account_without_room_says_so_on_the_tenant(harness: Harness) -> None:
    subscription, at = damaged(harness)
    harness.quotas.set(clusters=1, instances=1)
    ask(harness, at)
    with pytest.raises(AssertionError, match="not reconciled"):
        harness.work(rounds=6)
    assert harness.tenant(subscription).runbook == QUOTA_RUNBOOK
    assert harness.write(1, "still here")


def test_what_is_refused_at_once(harness: Harness) -> None:
    subscription = paid(harness)
    with harness.ctx.registry.connection() as conn:

        def request(at: object = None, snapshot: object = None) -> None:
            run(conn, "restore", TENANT, at=at, snapshot=snapshot, actor="a", reason="r")

        for at, snapshot, field in (
            (None, None, "at"),
            ("2026-01-01T00:00:00Z", "nightly", "at"),
            ("2026-01-01T00:00:00", None, "at"),
            ("yesterday", None, "at"),
            (7, None, "at"),
            (moment(datetime.now(UTC) + timedelta(hours=1)), None, "at"),
            ("2026-01-01T00:00:00.5Z", None, "at"),
            (moment(datetime.now(UTC) - timedelta(days=8)), None, "at"),
            (None, "no--name", "snapshot"),
            (None, "arn:aws:rds:eu-central-1:1:cluster-snapshot:x", "snapshot"),
            (None, 7, "snapshot"),
        ):
            with pytest.raises(Invalid) as refused:
                request(at, snapshot)
            assert refused.value.field == field
        request(snapshot="nightly")
        with pytest.raises(Conflict, match="has a restore that is preparing"):
            request(snapshot="nightly")
        with pytest.raises(Conflict, match="has a restore that is preparing"):
            run(conn, "move", TENANT, to="dedicated", actor="a", reason="r")
        run(conn, "abort-transfer", TENANT, actor="a", reason="r")
    harness.work()
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    with harness.ctx.registry.connection() as conn, pytest.raises(Conflict, match="only an active one"):
        run(conn, "restore", TENANT, at=None, snapshot="nightly", actor="a", reason="r")


def test_a_dry_run_looks_at_aws_and_makes_nothing(harness: Harness) -> None:
    subscription, at = damaged(harness)
    for requested, reported in (
        ({"at": at}, "cut_over"),
        ({"snapshot": "missing"}, "there is no snapshot missing"),
    ):
        with harness.ctx.registry.connection() as conn:
            asked: dict[str, object] = {"at": None, "snapshot": None, **requested}
            preview_id = dry_run(conn, "restore", TENANT, actor="support", **asked)  # type: ignore[arg-type]
        assert do_one(harness.ctx, JobKind.PREVIEW, str(preview_id)) is not None
        with harness.ctx.registry.connection() as conn:
            found = previews.get(conn, preview_id)
        assert reported in str(found.error or [step["name"] for step in found.steps or []])
    with harness.ctx.registry.connection() as conn:
        assert transfer.latest(conn, TENANT) is None
        assert conn.execute("SELECT FROM cluster").rowcount == 1
    assert harness.rows(subscription) == ["good", "bad"]


def test_the_ledger_knows_the_cluster_while_it_is_wanted_and_names_it_when_it_is_left(
    harness: Harness,
) -> None:
    _, at = damaged(harness)
    harness.moves.refuse("clone")
    ask(harness, at)
    harness.work()
    there = restored_cluster(harness)

    def found() -> set[tuple[str, str, str | None]]:
        findings = verify(harness.ctx, probes=0).findings
        return {(f.fault.value, f.name, f.owner) for f in findings if f.system in ("AWS", "PostgreSQL")}

    with harness.ctx.registry.connection() as conn:
        conn.execute("DELETE FROM job WHERE kind IN ('tenant', 'cluster')")
        conn.execute("UPDATE tenant SET observed_generation = generation")
    assert found() == set()
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE transfer SET copied_at = clock_timestamp()")
    assert found() == {("orphan", there.id, TENANT)}


def test_the_pool_and_placements_pass_over_a_restored_cluster(harness: Harness) -> None:
    _, at = damaged(harness)
    harness.moves.refuse("clone")
    ask(harness, at)
    harness.work()
    there = restored_cluster(harness)
    warm_pool.tend(harness.ctx)
    second = paid(harness, 2)
    third = paid(harness, 3, plan="dedicated")
    for subscription in (second, third):
        assert harness.placement(subscription).cluster_id != there.id
    with harness.ctx.registry.connection() as conn:
        assert cluster.get(conn, there.id).spec.lifecycle.value == "active"
        with pytest.raises(Conflict, match="has no free slot"):
            run(conn, "move", tenant_id_for(second), to=there.id, actor="a", reason="r")
