"""A tenant goes to another cluster, on fakes: it becomes what was asked, and no row is lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.actions.action import dry_run, run
from controlplane.domain.errors import Conflict, Invalid, NotFound
from controlplane.domain.job import JobKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.domain.transfer import TransferPhase
from controlplane.store import preview as previews
from controlplane.store import transfer
from controlplane.store.transfer import TransferRow
from tests.engine.test_life import paid
from tests.harness.engine import Harness
from tests.harness.work import do_one, work_once

TENANT = tenant_id_for("sub_00000001")


def ask(harness: Harness, to: str = "dedicated") -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "move", TENANT, to=to, actor="support", reason="test")


def last(harness: Harness) -> TransferRow:
    with harness.ctx.registry.connection() as conn:
        found = transfer.latest(conn, TENANT)
    assert found is not None
    return found


def ended(harness: Harness) -> TransferPhase | None:
    """How the last one is over; None while it is not."""
    found = last(harness)
    return None if found.finished_at is None else found.phase


def confirm(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "confirm-transfer", TENANT, actor="support", reason="test")


def isolation(harness: Harness, subscription: str) -> str:
    with harness.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT spec->>'isolation' AS isolation FROM cluster WHERE id = %s",
            [harness.placement(subscription).cluster_id],
        ).fetchone()
    assert row is not None
    return str(row["isolation"])


def steps(harness: Harness) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT name FROM step WHERE operation_id = (SELECT max(operation_id) FROM step"
            " WHERE name = 'cut_over') ORDER BY seq"
        ).fetchall()
    return [row["name"] for row in rows]


def test_a_tenant_is_promoted_with_its_rows_and_the_source_is_kept(harness: Harness) -> None:
    subscription = paid(harness)
    before = harness.placement(subscription)
    assert harness.write(1, "before")
    ask(harness)
    harness.work()
    assert (harness.nth_placement(subscription), isolation(harness, subscription)) == (2, "dedicated")
    assert harness.rows(subscription) == ["before"]
    assert harness.write(1, "after")
    found = last(harness)
    assert found.phase is TransferPhase.REVERSIBLE
    assert found.pause_seconds is not None
    assert found.checked == "before"
    assert not harness.lets_in(before)
    assert harness.databases.rows(harness.endpoint(before), before.database) == ["before"]
    assert harness.violations() == []
    assert harness.tenant(subscription).phase is Phase.ACTIVE


def test_a_confirmed_move_leaves_nothing_at_the_source(harness: Harness) -> None:
    subscription = paid(harness)
    before = harness.placement(subscription)
    ask(harness)
    harness.work()
    confirm(harness)
    harness.work()
    assert ended(harness) is TransferPhase.CONFIRMED
    assert harness.violations() == []
    source = harness.ctx.providers.secrets.describe(before.app_secret)
    assert source is not None
    assert source.deleting
    ask(harness, "shared")
    harness.work()
    confirm(harness)
    harness.work()
    assert isolation(harness, subscription) == "shared"
    with harness.ctx.registry.connection() as conn:
        clusters = conn.execute(
            "SELECT spec->>'isolation' AS isolation, destroyed_at IS NOT NULL AS gone FROM cluster"
        ).fetchall()
    assert {row["isolation"]: row["gone"] for row in clusters} == {"shared": False, "dedicated": True}
    assert harness.violations() == []


def test_a_change_of_plan_moves_and_the_way_back_waits_for_the_confirmation(harness: Harness) -> None:
    subscription = paid(harness)
    harness.subscribe(1, plan="dedicated")
    harness.hear(subscription)
    harness.work()
    assert isolation(harness, subscription) == "dedicated"
    assert not last(harness).by_hand
    assert harness.violations() == []
    harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    assert harness.tenant(subscription).runbook == "move-between-clusters"
    confirm(harness)
    harness.work()
    assert isolation(harness, subscription) == "shared"
    assert harness.tenant(subscription).needs_attention is None


def test_a_source_that_nobody_confirms_goes_after_its_time(harness: Harness) -> None:
    paid(harness)
    ask(harness)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE transfer SET keep_until = clock_timestamp()")
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
    harness.work()
    assert ended(harness) is TransferPhase.CONFIRMED
    assert harness.violations() == []


def test_who_leaves_after_a_move_leaves_no_source_behind(harness: Harness) -> None:
    subscription = paid(harness)
    ask(harness)
    harness.work()
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    assert ended(harness) is TransferPhase.CONFIRMED
    assert harness.tenant(subscription).phase is Phase.CLOSED
    assert harness.violations() == []


def test_who_leaves_while_nobody_has_compared_its_move_is_a_persons_case(harness: Harness) -> None:
    """Its worker died between the cut and the comparison: the source may hold what the target lacks."""
    subscription = paid(harness)
    ask(harness)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE transfer SET compared = NULL, checked = NULL")
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    assert harness.tenant(subscription).runbook == "move-mismatch"
    assert last(harness).phase is TransferPhase.REVERSIBLE
    confirm(harness)
    harness.work()
    assert ended(harness) is TransferPhase.CONFIRMED
    assert harness.tenant(subscription).needs_attention is None
    assert harness.violations() == []


def test_a_dry_run_names_the_steps_and_makes_nothing(harness: Harness) -> None:
    paid(harness)
    with harness.ctx.registry.connection() as conn:
        preview_id = dry_run(conn, "move", TENANT, to="dedicated", actor="support")
    assert do_one(harness.ctx, JobKind.PREVIEW, str(preview_id)) is not None
    with harness.ctx.registry.connection() as conn:
        found = previews.get(conn, preview_id)
        assert transfer.latest(conn, TENANT) is None
        clusters = conn.execute("SELECT FROM cluster").rowcount
    assert clusters == 1
    assert found.error is None
    reported = [(step["name"], step["target"]) for step in found.steps or []]
    assert reported[0] == ("place_transfer", "")
    assert ("cut_over", "placement new") in reported
    assert "a new dedicated cluster" in (found.steps or [])[0]["reason"]


def test_tables_that_were_not_the_same_are_a_persons_case_and_the_source_stays(harness: Harness) -> None:
    subscription = paid(harness)
    ask(harness)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        transfer.set_compared(
            conn,
            last(harness).id,
            [{"name": "app.notes", "rows": 1, "checksum": "1", "same": False}],
            checked="after",
        )
        conn.execute("UPDATE transfer SET keep_until = clock_timestamp()")
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
    harness.work()
    assert harness.tenant(subscription).runbook == "move-mismatch"
    assert last(harness).phase is TransferPhase.REVERSIBLE


@pytest.mark.parametrize("call", ["begin", "copy", "hand_over"])
def test_what_can_not_be_carried_leaves_the_tenant_where_it_is(harness: Harness, call: str) -> None:
    subscription = paid(harness)
    harness.moves.refuse(call)
    ask(harness)
    harness.work()
    assert harness.tenant(subscription).runbook == "move"
    assert harness.nth_placement(subscription) == 1
    assert harness.write(1, "still here")
    assert harness.world.all("move-stream") == {}
    harness.moves.refuse(call, refuse=False)
    with harness.ctx.registry.connection() as conn:
        run(conn, "abort-transfer", TENANT, actor="support", reason="test")
    harness.work()
    assert ended(harness) is TransferPhase.ABORTED
    assert harness.rows(subscription) == ["still here"]
    assert harness.violations() == []


def on_the_default_group(harness: Harness) -> None:
    harness.ctx = replace(harness.ctx, platform=replace(harness.ctx.platform, cluster_parameter_group=None))


def test_without_a_log_to_follow_nothing_is_made_and_nothing_paused(harness: Harness) -> None:
    on_the_default_group(harness)
    subscription = paid(harness)
    ask(harness)
    harness.work()
    found = harness.tenant(subscription)
    assert found.runbook == "move"
    assert "rds.logical_replication" in str(found.needs_attention)
    assert (last(harness).phase, last(harness).pause_seconds) == (TransferPhase.PREPARING, None)
    assert harness.write(1, "still here")
    with harness.ctx.registry.connection() as conn:
        assert conn.execute("SELECT FROM cluster").rowcount == 1
        assert conn.execute("SELECT FROM step WHERE name = 'begin_copy'").rowcount == 0
        run(conn, "abort-transfer", TENANT, actor="support", reason="test")
    harness.work()
    assert ended(harness) is TransferPhase.ABORTED
    assert harness.tenant(subscription).needs_attention is None
    assert harness.violations() == []


def test_a_dry_run_says_that_there_is_no_log_to_follow(harness: Harness) -> None:
    on_the_default_group(harness)
    paid(harness)
    with harness.ctx.registry.connection() as conn:
        preview_id = dry_run(conn, "move", TENANT, to="dedicated", actor="support")
    assert do_one(harness.ctx, JobKind.PREVIEW, str(preview_id)) is not None
    with harness.ctx.registry.connection() as conn:
        found = previews.get(conn, preview_id)
    assert "rds.logical_replication" in str(found.error)


def test_a_visitor_from_aws_holds_the_end_of_a_source_up(harness: Harness) -> None:
    subscription = paid(harness)
    before = harness.placement(subscription)
    ask(harness)
    harness.work()
    harness.databases.visit(harness.endpoint(before), before.database)
    confirm(harness)
    for _ in range(3):
        work_once(harness.ctx)
        harness.pass_time()
    assert harness.tenant(subscription).needs_attention is None
    assert (last(harness).phase, ended(harness)) == (TransferPhase.CONFIRMED, None)
    harness.databases.visit(harness.endpoint(before), before.database, stay=False)
    harness.work()
    assert ended(harness) is TransferPhase.CONFIRMED
    assert harness.violations() == []


def test_a_tenant_that_is_suspended_on_its_way_stays_and_goes_when_it_is_back(harness: Harness) -> None:
    subscription = paid(harness)
    harness.moves.refuse("hand_over")
    harness.subscribe(1, plan="dedicated")
    harness.hear(subscription)
    harness.work()
    harness.moves.refuse("hand_over", refuse=False)
    harness.subscribe(1, plan="dedicated", status="unpaid")
    harness.hear(subscription)
    harness.work()
    assert ended(harness) is TransferPhase.ABORTED
    assert harness.nth_placement(subscription) == 1
    assert harness.violations() == []
    harness.subscribe(1, plan="dedicated")
    harness.hear(subscription)
    harness.work()
    assert last(harness).phase is TransferPhase.REVERSIBLE
    assert harness.nth_placement(subscription) == 3
    assert harness.violations() == []


def test_a_plan_that_changes_back_on_the_way_ends_the_move(harness: Harness) -> None:
    subscription = paid(harness)
    harness.moves.refuse("copy")
    harness.subscribe(1, plan="dedicated")
    harness.hear(subscription)
    harness.work()
    harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    assert ended(harness) is TransferPhase.ABORTED
    assert harness.nth_placement(subscription) == 1
    assert harness.write(1, "here")
    assert harness.violations() == []


def test_a_move_that_was_aborted_is_not_asked_for_again_by_the_same_plan(harness: Harness) -> None:
    subscription = paid(harness)
    harness.moves.refuse("copy")
    harness.subscribe(1, plan="dedicated")
    harness.hear(subscription)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        run(conn, "abort-transfer", TENANT, actor="support", reason="test")
    harness.work()
    assert harness.tenant(subscription).runbook == "move-between-clusters"
    assert ended(harness) is TransferPhase.ABORTED


def test_what_is_refused(harness: Harness) -> None:
    subscription = paid(harness)
    placed = harness.placement(subscription)
    with harness.ctx.registry.connection() as conn:
        with pytest.raises(Invalid):
            run(conn, "move", TENANT, to="elsewhere", actor="a", reason="r")
        with pytest.raises(NotFound):
            run(conn, "move", TENANT, to="c-aaaaaaaaaaaa", actor="a", reason="r")
        with pytest.raises(Conflict):
            run(conn, "move", TENANT, to=placed.cluster_id, actor="a", reason="r")
        with pytest.raises(Conflict):
            run(conn, "confirm-transfer", TENANT, actor="a", reason="r")
        run(conn, "move", TENANT, to="dedicated", actor="a", reason="r")
        with pytest.raises(Conflict):
            run(conn, "move", TENANT, to="dedicated", actor="a", reason="r")
        with pytest.raises(Conflict):
            run(conn, "confirm-transfer", TENANT, actor="a", reason="r")
    harness.work()
    with harness.ctx.registry.connection() as conn, pytest.raises(Conflict):
        run(conn, "abort-transfer", TENANT, actor="a", reason="r")


def test_a_cluster_that_was_a_tenants_alone_is_nobody_elses(harness: Harness) -> None:
    paid(harness, 1)
    ask(harness)
    harness.work()
    ask_back = last(harness)
    assert ask_back.phase is TransferPhase.REVERSIBLE
    second = paid(harness, 2, plan="dedicated")
    assert harness.placement(second).cluster_id != harness.placement("sub_00000001").cluster_id
    assert harness.violations() == []
