"""A tenant goes to another cluster, on fakes: it becomes what was asked, and no row is lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.errors import Conflict, Invalid, NotFound
from controlplane.domain.move import MovePhase
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.services import moves
from controlplane.store import move
from controlplane.store import preview as previews
from controlplane.store.move import MoveRow
from tests.engine.house import House
from tests.engine.test_life import paid
from workers.jobs import preview
from workers.runtime import polling

TENANT = tenant_id_for("sub_00000001")


def ask(house: House, to: str = "dedicated") -> None:
    with house.ctx.registry.connection() as conn:
        moves.request(conn, TENANT, to=to, actor="support", reason="test")


def last(house: House) -> MoveRow:
    with house.ctx.registry.connection() as conn:
        found = move.latest(conn, TENANT)
    assert found is not None
    return found


def confirm(house: House) -> None:
    with house.ctx.registry.connection() as conn:
        moves.confirm(conn, TENANT, actor="support", reason="test")


def isolation(house: House, subscription: str) -> str:
    with house.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT desired->>'isolation' AS isolation FROM cluster WHERE id = %s",
            [house.placement(subscription).cluster_id],
        ).fetchone()
    assert row is not None
    return str(row["isolation"])


def steps(house: House) -> list[str]:
    with house.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT name FROM step WHERE operation_id = (SELECT max(operation_id) FROM step"
            " WHERE name = 'cut_over') ORDER BY seq"
        ).fetchall()
    return [row["name"] for row in rows]


def test_a_tenant_is_promoted_with_its_rows_and_the_source_is_kept(house: House) -> None:
    subscription = paid(house)
    before = house.placement(subscription)
    assert house.write(1, "before")
    ask(house)
    house.work()
    after = house.placement(subscription)
    assert (after.number, isolation(house, subscription)) == (2, "dedicated")
    assert house.rows(subscription) == ["before"]
    assert house.write(1, "after")
    found = last(house)
    assert found.phase is MovePhase.MOVED
    assert found.pause_seconds is not None
    assert found.checked == "before"
    assert not house.lets_in(before)
    assert house.databases.rows(house.endpoint(before), before.database) == ["before"]
    assert house.violations() == []
    assert house.tenant(subscription).phase is Phase.ACTIVE


def test_a_confirmed_move_leaves_nothing_at_the_source(house: House) -> None:
    subscription = paid(house)
    before = house.placement(subscription)
    ask(house)
    house.work()
    confirm(house)
    house.work()
    assert last(house).phase is MovePhase.DONE
    assert house.violations() == []
    assert not house.ctx.providers.identities.role_exists(before.iam_role)
    ask(house, "shared")
    house.work()
    confirm(house)
    house.work()
    assert isolation(house, subscription) == "shared"
    with house.ctx.registry.connection() as conn:
        clusters = conn.execute(
            "SELECT desired->>'isolation' AS isolation, destroyed_at IS NOT NULL AS gone FROM cluster"
        ).fetchall()
    assert {row["isolation"]: row["gone"] for row in clusters} == {"shared": False, "dedicated": True}
    assert house.violations() == []


def test_a_change_of_plan_moves_and_the_way_back_waits_for_the_confirmation(house: House) -> None:
    subscription = paid(house)
    house.subscribe(1, plan="dedicated")
    house.hear(subscription)
    house.work()
    assert isolation(house, subscription) == "dedicated"
    assert not last(house).by_hand
    assert house.violations() == []
    house.subscribe(1)
    house.hear(subscription)
    house.work()
    assert house.tenant(subscription).runbook == "move-between-clusters"
    confirm(house)
    house.work()
    assert isolation(house, subscription) == "shared"
    assert house.tenant(subscription).needs_attention is None


def test_a_source_that_nobody_confirms_goes_after_its_time(house: House) -> None:
    paid(house)
    ask(house)
    house.work()
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE move SET keep_until = clock_timestamp()")
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")
    house.work()
    assert last(house).phase is MovePhase.DONE
    assert house.violations() == []


def test_who_leaves_after_a_move_leaves_no_source_behind(house: House) -> None:
    subscription = paid(house)
    ask(house)
    house.work()
    house.subscribe(1, status="canceled")
    house.hear(subscription)
    house.work()
    assert last(house).phase is MovePhase.DONE
    assert house.tenant(subscription).phase is Phase.CLOSED
    assert house.violations() == []


def test_a_dry_run_names_the_steps_and_makes_nothing(house: House) -> None:
    paid(house)
    with house.ctx.registry.connection() as conn:
        preview_id = moves.request_preview(conn, TENANT, to="dedicated", actor="support")
    assert preview.work_out(house.ctx, preview_id)
    with house.ctx.registry.connection() as conn:
        found = previews.get(conn, preview_id)
        assert move.latest(conn, TENANT) is None
        clusters = conn.execute("SELECT FROM cluster").rowcount
    assert clusters == 1
    assert found.error is None
    told = [(step["name"], step["target"]) for step in found.steps or []]
    assert told[0] == ("place_move", "")
    assert ("cut_over", "placement 2") in told
    assert "a new dedicated cluster" in (found.steps or [])[0]["reason"]


def test_tables_that_were_not_the_same_are_a_persons_case_and_the_source_stays(house: House) -> None:
    subscription = paid(house)
    ask(house)
    house.work()
    with house.ctx.registry.connection() as conn:
        move.set_compared(
            conn,
            last(house).id,
            [{"name": "app.notes", "rows": 1, "checksum": "1", "same": False}],
            checked="after",
        )
        conn.execute("UPDATE move SET keep_until = clock_timestamp()")
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")
    house.work()
    assert house.tenant(subscription).runbook == "move-mismatch"
    assert last(house).phase is MovePhase.MOVED


@pytest.mark.parametrize("call", ["begin", "copy", "hand_over"])
def test_what_can_not_be_carried_leaves_the_tenant_where_it_is(house: House, call: str) -> None:
    subscription = paid(house)
    house.moves.refuse(call)
    ask(house)
    house.work()
    assert house.tenant(subscription).runbook == "move"
    assert house.placement(subscription).number == 1
    assert house.write(1, "still here")
    assert house.world.all("move-stream") == {}
    house.moves.refuse(call, refuse=False)
    with house.ctx.registry.connection() as conn:
        moves.give_up(conn, TENANT, actor="support", reason="test")
    house.work()
    assert last(house).phase is MovePhase.UNDONE
    assert house.rows(subscription) == ["still here"]
    assert house.violations() == []


def on_the_default_group(house: House) -> None:
    house.ctx = replace(house.ctx, platform=replace(house.ctx.platform, cluster_parameter_group=None))


def test_without_a_log_to_follow_nothing_is_made_and_nothing_paused(house: House) -> None:
    on_the_default_group(house)
    subscription = paid(house)
    ask(house)
    house.work()
    found = house.tenant(subscription)
    assert found.runbook == "move"
    assert "rds.logical_replication" in str(found.needs_attention)
    assert (last(house).phase, last(house).pause_seconds) == (MovePhase.PREPARING, None)
    assert house.write(1, "still here")
    with house.ctx.registry.connection() as conn:
        assert conn.execute("SELECT FROM cluster").rowcount == 1
        assert conn.execute("SELECT FROM step WHERE name = 'begin_copy'").rowcount == 0
        moves.give_up(conn, TENANT, actor="support", reason="test")
    house.work()
    assert last(house).phase is MovePhase.UNDONE
    assert house.tenant(subscription).needs_attention is None
    assert house.violations() == []


def test_a_dry_run_says_that_there_is_no_log_to_follow(house: House) -> None:
    on_the_default_group(house)
    paid(house)
    with house.ctx.registry.connection() as conn:
        preview_id = moves.request_preview(conn, TENANT, to="dedicated", actor="support")
    assert preview.work_out(house.ctx, preview_id)
    with house.ctx.registry.connection() as conn:
        found = previews.get(conn, preview_id)
    assert "rds.logical_replication" in str(found.error)


def test_a_visitor_from_aws_holds_the_end_of_a_source_up(house: House) -> None:
    subscription = paid(house)
    before = house.placement(subscription)
    ask(house)
    house.work()
    house.databases.visit(house.endpoint(before), before.database)
    confirm(house)
    for _ in range(3):
        polling.work_once(house.ctx)
        house.pass_time()
    assert house.tenant(subscription).needs_attention is None
    assert last(house).phase is MovePhase.CONFIRMED
    house.databases.visit(house.endpoint(before), before.database, stay=False)
    house.work()
    assert last(house).phase is MovePhase.DONE
    assert house.violations() == []


def test_a_tenant_that_is_suspended_on_its_way_stays_and_goes_when_it_is_back(house: House) -> None:
    subscription = paid(house)
    house.moves.refuse("hand_over")
    house.subscribe(1, plan="dedicated")
    house.hear(subscription)
    house.work()
    house.moves.refuse("hand_over", refuse=False)
    house.subscribe(1, plan="dedicated", status="unpaid")
    house.hear(subscription)
    house.work()
    assert last(house).phase is MovePhase.UNDONE
    assert house.placement(subscription).number == 1
    assert house.violations() == []
    house.subscribe(1, plan="dedicated")
    house.hear(subscription)
    house.work()
    assert last(house).phase is MovePhase.MOVED
    assert house.placement(subscription).number == 3
    assert house.violations() == []


def test_a_plan_that_changes_back_on_the_way_ends_the_move(house: House) -> None:
    subscription = paid(house)
    house.moves.refuse("copy")
    house.subscribe(1, plan="dedicated")
    house.hear(subscription)
    house.work()
    house.subscribe(1)
    house.hear(subscription)
    house.work()
    assert last(house).phase is MovePhase.UNDONE
    assert house.placement(subscription).number == 1
    assert house.write(1, "here")
    assert house.violations() == []


def test_a_move_that_was_given_up_is_not_asked_for_again_by_the_same_plan(house: House) -> None:
    subscription = paid(house)
    house.moves.refuse("copy")
    house.subscribe(1, plan="dedicated")
    house.hear(subscription)
    house.work()
    with house.ctx.registry.connection() as conn:
        moves.give_up(conn, TENANT, actor="support", reason="test")
    house.work()
    assert house.tenant(subscription).runbook == "move-between-clusters"
    assert last(house).phase is MovePhase.UNDONE


def test_what_is_refused(house: House) -> None:
    subscription = paid(house)
    placed = house.placement(subscription)
    with house.ctx.registry.connection() as conn:
        with pytest.raises(Invalid):
            moves.request(conn, TENANT, to="elsewhere", actor="a", reason="r")
        with pytest.raises(NotFound):
            moves.request(conn, TENANT, to="c-aaaaaaaaaaaa", actor="a", reason="r")
        with pytest.raises(Conflict):
            moves.request(conn, TENANT, to=placed.cluster_id, actor="a", reason="r")
        with pytest.raises(Conflict):
            moves.confirm(conn, TENANT, actor="a", reason="r")
        moves.request(conn, TENANT, to="dedicated", actor="a", reason="r")
        with pytest.raises(Conflict):
            moves.request(conn, TENANT, to="dedicated", actor="a", reason="r")
        with pytest.raises(Conflict):
            moves.confirm(conn, TENANT, actor="a", reason="r")
    house.work()
    with house.ctx.registry.connection() as conn, pytest.raises(Conflict):
        moves.give_up(conn, TENANT, actor="a", reason="r")


def test_a_cluster_that_was_a_tenants_alone_is_nobody_elses(house: House) -> None:
    paid(house, 1)
    ask(house)
    house.work()
    ask_back = last(house)
    assert ask_back.phase is MovePhase.MOVED
    second = paid(house, 2, plan="dedicated")
    assert house.placement(second).cluster_id != house.placement("sub_00000001").cluster_id
    assert house.violations() == []
