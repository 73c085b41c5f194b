"""Freezes: what is left alone, until when, and what becomes of that which runs."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.hold import HoldKind
from controlplane.domain.job import JobKind, Lane
from controlplane.domain.placement import Placement
from controlplane.domain.rollout import database_lock
from controlplane.store import hold, job, placement
from controlplane.store.registry import Connection, Registry
from tests.harness.queue import beat, claim, claimed, run_out, taken_over

TENANT = JobKind.TENANT
ONE, TWO = "t-aaaaaaaaaaaa", "t-bbbbbbbbbbbb"
CLUSTER = "c-aaaaaaaaaaaa"


def frozen(conn: Connection, scope: str, *, interrupts: bool = False, seconds: float = 600) -> None:
    hold.begin(
        conn,
        HoldKind.FREEZE,
        scope,
        seconds=seconds,
        actor="api:ann",
        reason="an incident",
        interrupts=interrupts,
    )


@pytest.fixture
def crowded(registry: Registry) -> Registry:
    """Jobs of two tenants, one of them on a cluster, of that cluster, and of a customer's event."""
    with registry.connection() as conn:
        conn.execute(
            "INSERT INTO cluster (id, cluster_class, slots, spec) VALUES (%s, 'x', 9, '{}')", [CLUSTER]
        )
        for tenant_id in (ONE, TWO):
            conn.execute(
                "INSERT INTO tenant (id, slug, display_name, customer_id, spec)"
                " VALUES (%s, %s, 'T', 'cus_1', '{}')",
                [tenant_id, tenant_id],
            )
            job.ensure(conn, TENANT, tenant_id, reason="x", actor="test")
        placement.insert(conn, Placement("p-aaaaaaaaaaaa", TWO, CLUSTER))
        job.ensure(conn, JobKind.CLUSTER, CLUSTER, reason="x", actor="test")
        job.ensure(conn, JobKind.INTAKE, "sub_1", reason="x", actor="billing")
    return registry


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ("all", []),
        ("terraform", ["sub_1", ONE, TWO]),
        (CLUSTER, ["sub_1", ONE]),
        (TWO, ["sub_1", ONE, CLUSTER]),
    ],
)
def test_what_is_frozen_is_not_begun_and_all_else_goes_on(
    crowded: Registry, scope: str, left: list[str]
) -> None:
    with crowded.connection() as conn:
        frozen(conn, scope)
        got = [held.subject for lane in Lane for held in iter(lambda: claim(crowded, lane=lane), None)]  # noqa: B023
        assert got == left
        hold.lift(conn, HoldKind.FREEZE, scope, actor="api:ann")
        rest = [held.subject for lane in Lane for held in iter(lambda: claim(crowded, lane=lane), None)]  # noqa: B023
    assert {*got, *rest} == {"sub_1", ONE, TWO, CLUSTER}


def test_terraform_is_frozen_where_a_tenants_job_would_go_on_to_it(crowded: Registry) -> None:
    with crowded.connection() as conn:
        held = claimed(crowded, kinds=[TENANT])
        job.put_back(conn, held, after=0, lane=Lane.LONG)
        frozen(conn, "terraform")
        assert claim(crowded, lane=Lane.LONG) is None
        hold.lift(conn, HoldKind.FREEZE, "terraform", actor="api:ann")
    assert claimed(crowded, lane=Lane.LONG, kinds=[TENANT]).id == held.id


@pytest.mark.parametrize(
    ("scope", "covered"), [("all", True), (CLUSTER, True), (TWO, True), ("terraform", False), (ONE, False)]
)
def test_a_tenants_freeze_covers_its_database_too(crowded: Registry, scope: str, covered: bool) -> None:
    """A migration has the database's lock and not the tenant's, by one rule for all statements."""
    asked: dict[str, Any] = {"lane": Lane.LONG, "kinds": [JobKind.MEMBER]}
    with crowded.connection() as conn:
        job.ensure(conn, JobKind.MEMBER, f"1/{TWO}", reason="x", actor="rollout", lock=database_lock(TWO))
        frozen(conn, scope, interrupts=True)
        assert (claim(crowded, **asked) is None) is covered
        hold.lift(conn, HoldKind.FREEZE, scope, actor="api:ann")
        conn.execute("UPDATE job SET state = 'waiting', holder = NULL, lease_until = NULL")
        held = claimed(crowded, **asked)
        frozen(conn, scope, interrupts=True)
        assert beat(conn, held) == (set() if covered else {held.fencing_token})
        run_out(conn)
        assert (taken_over(crowded, lane=Lane.LONG) is None) is covered


def test_a_freeze_ends_by_itself(crowded: Registry) -> None:
    with crowded.connection() as conn:
        frozen(conn, "all")
        with pytest.raises(Conflict, match="frozen already"):
            frozen(conn, "all")
        conn.execute("UPDATE hold SET ends_at = now()")
        assert hold.freezes(conn) == []
        assert claim(crowded) is not None
        frozen(conn, "all")
        assert [row.scope for row in hold.freezes(conn)] == ["all"]
        hold.lift(conn, HoldKind.FREEZE, "all", actor="api:ann")
        with pytest.raises(NotFound, match="all is not frozen"):
            hold.lift(conn, HoldKind.FREEZE, "all", actor="api:ann")


def test_what_runs_is_finished_or_cut_off_as_was_asked(crowded: Registry) -> None:
    """One that is cut off is taken over once the freeze is lifted, and not before."""
    held = claimed(crowded, kinds=[TENANT])
    with crowded.connection() as conn:
        frozen(conn, held.subject)
        assert beat(conn, held) == {held.fencing_token}
        hold.lift(conn, HoldKind.FREEZE, held.subject, actor="api:ann")
        frozen(conn, held.subject, interrupts=True)
        assert beat(conn, held) == set()
        run_out(conn)
        assert taken_over(crowded) is None
        hold.lift(conn, HoldKind.FREEZE, held.subject, actor="api:ann")
        taken = taken_over(crowded)
    assert taken is not None
    assert taken.id == held.id
