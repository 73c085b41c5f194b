"""A tenant gets an earlier state back, on fakes: its rows are those of then, and what it had is kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.domain.errors import Conflict, Invalid
from controlplane.domain.move import MoveKind, MovePhase
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.pool import QUOTA_RUNBOOK
from controlplane.domain.restore import moment
from controlplane.services import moves, restores, tenants
from controlplane.store import cluster, move, restore
from controlplane.store import preview as previews
from controlplane.store.cluster import ClusterRow
from controlplane.store.move import MoveRow
from controlplane.store.restore import RestoreRow
from localcloud.fakes import past
from localcloud.fakes.aws import FakeAccount, FakeClusters
from localcloud.fakes.databases import DATABASE, ROLE
from tests.engine.house import MIGRATIONS, House
from tests.engine.test_life import paid
from workers.drift.verify import verify
from workers.jobs import preview
from workers.schedule import warm_pool

TENANT = tenant_id_for("sub_00000001")


def paid_long_ago(house: House, number: int = 1, **fields: object) -> str:
    subscription = paid(house, number, **fields)
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET ready_at = ready_at - interval '1 day'")
    return subscription


def remember(house: House, subscription: str) -> str:
    """Its cluster can be restored to what it is now; the moment."""
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    past.keep_moment(house.world, house.placement(subscription).cluster_id, now)
    return moment(now)


def ask(house: House, at: str | None = None, snapshot: str | None = None) -> None:
    with house.ctx.registry.connection() as conn:
        restores.request(conn, TENANT, at=at, snapshot=snapshot, actor="support", reason="test")


def give_up(house: House) -> None:
    with house.ctx.registry.connection() as conn:
        moves.give_up(conn, TENANT, actor="support", reason="test")


def confirm(house: House) -> None:
    with house.ctx.registry.connection() as conn:
        moves.confirm(conn, TENANT, actor="support", reason="test")


def last(house: House) -> tuple[MoveRow, RestoreRow]:
    with house.ctx.registry.connection() as conn:
        found = move.latest(conn, TENANT, kind=MoveKind.RESTORE)
        assert found is not None
        asked = restore.of_move(conn, found.id)
    assert asked is not None
    return found, asked


def restored_cluster(house: House) -> ClusterRow:
    asked = last(house)[1]
    assert asked.cluster_id is not None
    with house.ctx.registry.connection() as conn:
        return cluster.get(conn, asked.cluster_id)


def damaged(house: House, **fields: object) -> tuple[str, str]:
    """(the subscription, the moment before what should not have happened)"""
    subscription = paid_long_ago(house, **fields)
    house.write(1, "good")
    at = remember(house, subscription)
    house.write(1, "bad")
    return subscription, at


@pytest.mark.parametrize("plan", ["shared", "dedicated"])
def test_rows_are_those_of_then_and_what_there_was_is_kept_closed(house: House, plan: str) -> None:
    subscription, at = damaged(house, plan=plan)
    before = house.placement(subscription)
    ask(house, at)
    house.work()
    after = house.placement(subscription)
    assert after.number == 2
    assert house.rows(subscription) == ["good"]
    assert house.write(1, "after")
    assert house.databases.rows(house.endpoint(before), before.database) == ["good", "bad"]
    assert not house.lets_in(before)
    found, asked = last(house)
    assert (found.phase, found.kind, found.copied_rows) == (MovePhase.MOVED, MoveKind.RESTORE, 1)
    assert found.pause_seconds is not None
    assert asked.copied_at is not None
    assert house.violations() == []
    confirm(house)
    house.work()
    assert last(house)[0].phase is MovePhase.DONE
    assert house.violations() == []


def test_the_restored_cluster_is_nobodys_and_gone_in_the_end(house: House) -> None:
    _, at = damaged(house)
    ask(house, at)
    house.work()
    there = restored_cluster(house)
    assert (there.slots, there.desired.instance_count, there.desired.backup_retention_days) == (0, 1, 1)
    assert there.destroyed_at is not None
    assert house.world.get("aws-cluster", there.id) is None
    assert not [key for kind in (DATABASE, ROLE) for key in house.world.all(kind) if there.id in key]
    with house.ctx.registry.connection() as conn:
        told = conn.execute("SELECT message FROM step_event WHERE kind = 'approved'").fetchall()
    assert "asked for by support: its rows are copied" in told[0]["message"]
    assert not FakeAccount(house.world).names("snapshot")


def test_a_snapshot_is_restored_likewise(house: House) -> None:
    subscription, _ = damaged(house)
    home = house.placement(subscription).cluster_id
    house.snapshots.looks = 0
    house.snapshots.ensure(home, "before-release-7", tags={"cluster": home})
    house.write(1, "worse")
    ask(house, snapshot="before-release-7")
    house.work()
    assert house.rows(subscription) == ["good", "bad"]
    assert house.violations() == []


def test_a_moment_before_a_move_is_looked_for_where_the_tenant_lived_then(house: House) -> None:
    subscription, at = damaged(house)
    with house.ctx.registry.connection() as conn:
        moves.request(conn, TENANT, to="dedicated", actor="support", reason="test")
    house.work()
    confirm(house)
    house.work()
    ask(house, at)
    house.work()
    assert house.rows(subscription) == ["good"]
    assert last(house)[1].number == 1
    assert house.placement(subscription).number == 3
    with house.ctx.registry.connection() as conn:
        assert cluster.get(conn, house.placement(subscription).cluster_id).desired.isolation == "dedicated"
    assert house.violations() == []


def test_a_database_of_an_older_release_is_copied_as_it_was_and_then_brought_forward(
    registry: object, database_url: str, tmp_path: Path
) -> None:
    old = tmp_path / "migrations"
    old.mkdir()
    first = min(MIGRATIONS.glob("0001_*.sql"))
    (old / first.name).write_bytes(first.read_bytes())
    house = House(database_url, migrations=old)
    subscription = paid_long_ago(house)
    house.write(1, "good")
    at = remember(house, subscription)
    (old / "0002_more.sql").write_text("CREATE TABLE more (id int PRIMARY KEY);")
    house.ctx = replace(house.ctx, release="0002")
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, TENANT, actor="support", reason="test")
    house.work()
    house.write(1, "bad")
    ask(house, at)
    house.work()
    placed = house.placement(subscription)
    seen = house.databases.observe(house.endpoint(placed), placed)
    assert (last(house)[1].release, seen.release) == ("0001", "0002")
    assert house.rows(subscription) == ["good"]
    with house.ctx.registry.connection() as conn:
        names = [
            row["name"]
            for row in conn.execute(
                "SELECT name FROM step WHERE operation_id = (SELECT max(operation_id) FROM step"
                " WHERE name = 'cut_restored') ORDER BY seq"
            ).fetchall()
        ]
    assert names.index("copy_restored") < len(names) - 1 - names[::-1].index("migrate_schema")
    assert names.index("prove") < names.index("cut_restored")
    assert house.violations() == []
    house.close()


def test_others_passwords_of_then_open_nothing_on_the_restored_cluster(house: House) -> None:
    subscription = paid_long_ago(house)
    other = paid_long_ago(house, 2)
    at = remember(house, subscription)
    house.moves.refuse("clone")
    ask(house, at)
    house.work()
    there = restored_cluster(house)
    assert house.tenant(subscription).runbook == "move"
    endpoint = house.endpoint(replace(house.placement(other), cluster_id=there.id))
    for placed in (house.placement(other), house.placement(subscription)):
        login = house.ctx.providers.secrets.read(placed.app_secret)
        assert house.lets_in(placed)
        assert not house.databases.admits(endpoint, login)
    give_up(house)
    house.work()
    assert restored_cluster(house).destroyed_at is not None
    assert house.violations() == []


def test_what_is_given_up_before_the_cut_leaves_the_tenant_as_it_was(house: House) -> None:
    subscription, at = damaged(house)
    house.moves.refuse("clone")
    ask(house, at)
    house.work()
    give_up(house)
    house.work()
    assert last(house)[0].phase is MovePhase.UNDONE
    assert house.placement(subscription).number == 1
    assert house.write(1, "still here")
    assert restored_cluster(house).destroyed_at is not None
    assert house.tenant(subscription).needs_attention is None
    assert house.violations() == []


def test_what_is_given_up_before_anything_was_made_ends_likewise(house: House) -> None:
    subscription, _ = damaged(house)
    ask(house, snapshot="not-there")
    house.work()
    give_up(house)
    house.work()
    assert last(house)[0].phase is MovePhase.UNDONE
    assert house.tenant(subscription).needs_attention is None
    assert house.violations() == []


def test_a_tenant_that_is_suspended_meanwhile_is_not_restored(house: House) -> None:
    subscription, at = damaged(house)
    house.moves.refuse("clone")
    ask(house, at)
    house.work()
    house.subscribe(1, status="unpaid")
    house.hear(subscription)
    house.work()
    assert last(house)[0].phase is MovePhase.UNDONE
    assert restored_cluster(house).destroyed_at is not None
    assert house.placement(subscription).number == 1
    assert house.violations() == []


def test_a_failure_in_the_pause_opens_the_former_database_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription, at = damaged(house)
    whole = house.databases.close_logins

    def closes_and_fails(*arguments: object) -> None:
        whole(*arguments)  # type: ignore[arg-type]
        raise Conflict("made to fail")

    monkeypatch.setattr(house.databases, "close_logins", closes_and_fails)
    ask(house, at)
    house.work()
    assert house.tenant(subscription).runbook == "refused"
    assert house.placement(subscription).number == 1
    assert house.write(1, "still here")
    monkeypatch.undo()
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, TENANT, actor="support", reason="test")
    house.work()
    assert house.rows(subscription) == ["good"]


def test_a_restore_that_nobody_confirms_ends_after_its_time(house: House) -> None:
    _, at = damaged(house)
    ask(house, at)
    house.work()
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE move SET keep_until = clock_timestamp()")
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")
    house.work()
    assert last(house)[0].phase is MovePhase.DONE
    assert house.violations() == []


def test_a_moment_outside_of_the_window_waits_for_a_person_and_one_not_stored_yet_for_aws(
    house: House,
) -> None:
    subscription, at = damaged(house)
    home = house.placement(subscription).cluster_id
    now, clusters = datetime.now(UTC), FakeClusters(house.world)
    clusters.change_window(home, now, now)
    ask(house, at)
    house.work()
    assert house.tenant(subscription).runbook == "restore"
    assert house.write(1, "still here")
    assert last(house)[1].cluster_id is None
    clusters.change_window(home, now - timedelta(days=1), now - timedelta(hours=1))
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, TENANT, actor="support", reason="test")
    with pytest.raises(AssertionError, match="not settled"):
        house.work(rounds=3)
    clusters.change_window(home, now - timedelta(days=1), now)
    house.work()
    assert house.rows(subscription) == ["good"]


def test_a_log_that_aws_has_not_stored_after_an_hour_waits_for_a_person(house: House) -> None:
    subscription, _ = damaged(house)
    now = datetime.now(UTC)
    home = house.placement(subscription).cluster_id
    FakeClusters(house.world).change_window(home, now - timedelta(days=1), now - timedelta(hours=3))
    ask(house, moment(now - timedelta(hours=2)))
    house.work()
    row = house.tenant(subscription)
    assert (row.runbook, "has stored the log" in (row.needs_attention or "")) == ("restore", True)


def test_snapshots_that_are_not_its_clusters_wait_for_a_person(house: House) -> None:
    subscription = paid_long_ago(house)
    elsewhere = paid_long_ago(house, 2, plan="dedicated")
    other = house.placement(elsewhere).cluster_id
    house.snapshots.looks = 0
    house.snapshots.ensure(other, "anothers", tags={"cluster": other})
    FakeAccount(house.world).make("snapshot", "foreign", cluster="legacy-db", taken_at="2026-01-01T00:00:00Z")
    for name, said in (
        ("missing", "there is no snapshot missing"),
        ("anothers", f"is of {other}, and {TENANT} lived on"),
        ("foreign", "legacy-db, which the registry does not know"),
    ):
        ask(house, snapshot=name)
        house.work()
        row = house.tenant(subscription)
        assert (row.runbook, said in (row.needs_attention or "")) == ("restore", True)
        give_up(house)
        house.work()
    assert house.violations() == []


def test_a_snapshot_without_the_tenants_database_waits_for_a_person(house: House) -> None:
    first = paid_long_ago(house, 2)
    home = house.placement(first).cluster_id
    house.snapshots.looks = 0
    house.snapshots.ensure(home, "before-it-came", tags={"cluster": home})
    subscription = paid_long_ago(house)
    assert house.placement(subscription).cluster_id == home
    ask(house, snapshot="before-it-came")
    house.work()
    row = house.tenant(subscription)
    assert (row.runbook, "was not there" in (row.needs_attention or "")) == ("restore", True)
    give_up(house)
    house.work()
    assert house.violations() == []


def test_an_account_without_room_says_so_on_the_tenant(house: House) -> None:
    subscription, at = damaged(house)
    house.quotas.set(clusters=1, instances=1)
    ask(house, at)
    with pytest.raises(AssertionError, match="not settled"):
        house.work(rounds=6)
    assert house.tenant(subscription).runbook == QUOTA_RUNBOOK
    assert house.write(1, "still here")


def test_what_is_refused_at_once(house: House) -> None:
    subscription = paid(house)
    with house.ctx.registry.connection() as conn:

        def request(at: object = None, snapshot: object = None) -> None:
            restores.request(conn, TENANT, at=at, snapshot=snapshot, actor="a", reason="r")

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
            moves.request(conn, TENANT, to="dedicated", actor="a", reason="r")
        moves.give_up(conn, TENANT, actor="a", reason="r")
    house.work()
    house.subscribe(1, status="canceled")
    house.hear(subscription)
    house.work()
    with house.ctx.registry.connection() as conn, pytest.raises(Conflict, match="only an active one"):
        restores.request(conn, TENANT, at=None, snapshot="nightly", actor="a", reason="r")


def test_a_dry_run_looks_at_aws_and_makes_nothing(house: House) -> None:
    subscription, at = damaged(house)
    for wish, told in (
        ({"at": at}, "cut_restored"),
        ({"snapshot": "missing"}, "there is no snapshot missing"),
    ):
        with house.ctx.registry.connection() as conn:
            asked: dict[str, object] = {"at": None, "snapshot": None, **wish}
            preview_id = restores.request_preview(conn, TENANT, actor="support", **asked)  # type: ignore[arg-type]
        assert preview.work_out(house.ctx, preview_id)
        with house.ctx.registry.connection() as conn:
            found = previews.get(conn, preview_id)
        assert told in str(found.error or [step["name"] for step in found.steps or []])
    with house.ctx.registry.connection() as conn:
        assert move.latest(conn, TENANT) is None
        assert conn.execute("SELECT FROM cluster").rowcount == 1
    assert house.rows(subscription) == ["good", "bad"]


def test_the_ledger_knows_the_cluster_while_it_is_wanted_and_names_it_when_it_is_left(house: House) -> None:
    _, at = damaged(house)
    house.moves.refuse("clone")
    ask(house, at)
    house.work()
    there = restored_cluster(house)

    def found() -> set[tuple[str, str, str | None]]:
        findings = verify(house.ctx, attackers=0).findings
        return {(f.fault.value, f.name, f.owner) for f in findings if f.system in ("AWS", "PostgreSQL")}

    settled = "UPDATE operation SET state = 'done', finished_at = '-infinity' WHERE state <> 'done'"
    with house.ctx.registry.connection() as conn:
        conn.execute(settled)
        conn.execute("UPDATE tenant SET settled_generation = generation")
    assert found() == set()
    with house.ctx.registry.connection() as conn:
        restore.mark_copied(conn, last(house)[0].id)
    assert found() == {("orphan", there.id, TENANT)}


def test_the_pool_and_placements_pass_over_a_restored_cluster(house: House) -> None:
    _, at = damaged(house)
    house.moves.refuse("clone")
    ask(house, at)
    house.work()
    there = restored_cluster(house)
    warm_pool.tend(house.ctx)
    second = paid(house, 2)
    third = paid(house, 3, plan="dedicated")
    for subscription in (second, third):
        assert house.placement(subscription).cluster_id != there.id
    with house.ctx.registry.connection() as conn:
        assert cluster.get(conn, there.id).desired.lifecycle.value == "active"
        with pytest.raises(Conflict, match="has no free slot"):
            moves.request(conn, tenant_id_for(second), to=there.id, actor="a", reason="r")
