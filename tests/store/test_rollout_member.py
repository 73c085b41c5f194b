"""The members of a rollout and the jobs that hold them: who may be started, and what a holder records."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict
from controlplane.domain.hold import HoldKind
from controlplane.domain.job import Job, JobKind, Lane
from controlplane.domain.placement import Placement, PlacementState
from controlplane.domain.rollout import Member, Spec, database_lock, subject_of
from controlplane.domain.transfer import TransferKind, TransferPhase
from controlplane.services import rollouts
from controlplane.store import hold, job, placement, rollout, rollout_member, transfer
from controlplane.store.registry import Connection, Registry
from controlplane.store.rollout_member import Outcome
from tests.harness.queue import run_out, taken_over

TENANTS = [f"t-{'a' * 11}{letter}" for letter in "abc"]
CLUSTER = "c-" + "a" * 12
HERE, THERE = TENANTS[1].replace("t-", "p-"), "p-" + "z" * 12


@pytest.fixture
def started(registry: Registry) -> int:
    with registry.connection() as conn:
        conn.execute(
            "INSERT INTO cluster (id, cluster_class, slots, spec, endpoint) VALUES (%s, 'x', 9, '{}', '{}')",
            [CLUSTER],
        )
        for tenant in TENANTS:
            conn.execute(
                "INSERT INTO tenant (id, slug, display_name, customer_id, spec, ready_at)"
                " VALUES (%s, %s, 'x', 'cus', %s, now())",
                [tenant, tenant, Jsonb({"lifecycle": "active"})],
            )
            placement.insert(conn, Placement(tenant.replace("t-", "p-"), tenant, CLUSTER))
        conn.execute(
            "INSERT INTO release (number, adapter, checksum, actor) VALUES ('0002', 'sql', 'x', 'x')"
        )
        rollout_id = rollout.insert(conn, release="0002", spec=Spec(), actor="x")
        rollout_member.enrol(conn, rollout_id, dict.fromkeys(TENANTS, 0))
    return rollout_id


def begin(conn: Connection, rollout_id: int, *tenants: str, holder: str = "one") -> list[Job]:
    """Those of these that could be begun, by tenant."""
    locks = {subject_of(rollout_id, tenant): database_lock(tenant) for tenant in tenants}
    with conn.transaction():
        held = job.start(conn, JobKind.MEMBER, locks, holder=holder, seconds=30, actor="rollout").fetchall()
        begun: list[Member] = rollout_member.begin(conn, rollout_id, list(locks), holder=holder).fetchall()
    subjects = {subject_of(member.rollout_id, member.tenant_id) for member in begun}
    return sorted((found for found in held if found.subject in subjects), key=lambda found: found.subject)


def of(jobs: list[Job]) -> list[str]:
    return [held.subject.partition("/")[2] for held in jobs]


def finish(conn: Connection, rollout_id: int, *jobs: Job) -> None:
    rollout_member.finish(conn, rollout_id, [Outcome(held, 1.0) for held in jobs], release="0002")


def put_back(conn: Connection, held: Job, after: float) -> None:
    with conn.transaction():
        rollout_member.put_back(conn, held, error="a lock")
        job.put_back(conn, held, after=after, error="a lock", counts=True)


def states(conn: Connection) -> list[str]:
    rows = conn.execute("SELECT state FROM rollout_member ORDER BY tenant_id").fetchall()
    return [row["state"] for row in rows]


def jobs(conn: Connection) -> int:
    return len(conn.execute("SELECT FROM job WHERE kind = 'member'").fetchall())


def turn(conn: Connection, rollout_id: int) -> tuple[dict[str, int], list[str]]:
    with conn.transaction():
        _, running, candidates = rollout_member.turn(conn, rollout_id)
    return running, [candidate.tenant_id for candidate in candidates]


def test_a_member_is_begun_once_and_its_worker_that_dies_is_taken_over(
    registry: Registry, started: int
) -> None:
    with registry.connection() as conn:
        first, _ = begin(conn, started, *TENANTS[:2])
        assert of(begin(conn, started, *TENANTS, holder="two")) == [TENANTS[2]]
        assert first.attempts == 1
        assert states(conn) == ["running"] * 3
        run_out(conn)
        conn.execute("UPDATE job SET lease_until = 'infinity' WHERE id <> %s", [first.id])
        assert begin(conn, started, TENANTS[0], holder="two") == []
        taken = taken_over(registry, "two", Lane.LONG)
        assert taken is not None
        assert (taken.id, taken.attempts, taken.orphan) == (first.id, 2, True)
        assert taken.fencing_token > first.fencing_token


def test_a_database_is_changed_by_one_rollout_at_a_time(registry: Registry, started: int) -> None:
    """Where the one before was aborted over a member that runs still; and whoever moves it waits for that."""
    with registry.connection() as conn:
        assert not transfer.rollout_is_at(conn, TENANTS[0])
        [held] = begin(conn, started, TENANTS[0])
        rollouts.abort(conn, started, actor="x", reason="not today")
        again = rollout.insert(conn, release="0002", spec=Spec(), actor="x")
        rollout_member.enrol(conn, again, dict.fromkeys(TENANTS, 0))
        assert turn(conn, again) == ({}, TENANTS[1:])
        assert begin(conn, again, TENANTS[0]) == []
        assert transfer.rollout_is_at(conn, TENANTS[0])
        finish(conn, started, held)
        assert not transfer.rollout_is_at(conn, TENANTS[0])
        assert turn(conn, again) == ({}, TENANTS)


def test_who_may_be_started_is_listed_while_its_cluster_has_room(registry: Registry, started: int) -> None:
    with registry.connection() as conn:
        conn.execute("UPDATE rollout SET spec = spec || '{\"per_cluster\": 2}'")
        assert turn(conn, started) == ({}, TENANTS[:2])
        [first] = begin(conn, started, TENANTS[0])
        assert turn(conn, started) == ({CLUSTER: 1}, TENANTS[1:])
        [second] = begin(conn, started, TENANTS[1])
        assert turn(conn, started) == ({CLUSTER: 2}, [])
        put_back(conn, first, after=60)
        run_out(conn)
        assert turn(conn, started) == ({CLUSTER: 2}, [])
        finish(conn, started, second)
        assert turn(conn, started) == ({CLUSTER: 1}, TENANTS[2:])
        assert rollout_member.is_open(conn, started, up_to_wave=0)
        conn.execute("UPDATE rollout_member SET wave = 1, state = 'pending'")
        assert turn(conn, started) == ({CLUSTER: 1}, [])
        assert not rollout_member.is_open(conn, started, up_to_wave=0)


def test_clusters_take_turns(registry: Registry, started: int) -> None:
    other = "c-" + "b" * 12
    with registry.connection() as conn:
        conn.execute("UPDATE rollout_member SET cluster_id = %s WHERE tenant_id = %s", [other, TENANTS[2]])
        assert turn(conn, started) == ({}, [TENANTS[0], TENANTS[2], TENANTS[1]])


@pytest.mark.parametrize(("scope", "left"), [("all", []), (CLUSTER, []), (TENANTS[1], TENANTS[::2])])
def test_what_is_frozen_is_neither_listed_nor_begun(
    registry: Registry, started: int, scope: str, left: list[str]
) -> None:
    with registry.connection() as conn:
        frozen = {"seconds": 60, "actor": "x", "reason": "an incident", "interrupts": False}
        hold.begin(conn, HoldKind.FREEZE, scope, **frozen)  # type: ignore[arg-type]
        assert turn(conn, started) == ({}, left)
        assert of(begin(conn, started, *TENANTS)) == left
        assert jobs(conn) == len(left)
        hold.lift(conn, HoldKind.FREEZE, scope, actor="x")
        hold.begin(conn, HoldKind.FREEZE, "terraform", **frozen)  # type: ignore[arg-type]
        assert of(begin(conn, started, *TENANTS)) == [each for each in TENANTS if each not in left]


@pytest.mark.parametrize("kind", [TransferKind.MOVE, TransferKind.CLONE])
@pytest.mark.parametrize(
    "phase",
    [
        TransferPhase.PREPARING,
        TransferPhase.COPYING,
        TransferPhase.FOLLOWING,
        TransferPhase.CUT,
    ],
)
def test_one_that_can_not_be_begun_keeps_no_job(
    registry: Registry, started: int, kind: TransferKind, phase: TransferPhase
) -> None:
    """A clone that has not its rows yet is passed over as one that moves is: its schema is its source's."""
    moves = kind is TransferKind.MOVE
    with registry.connection() as conn:
        conn.execute(
            "UPDATE tenant SET spec = jsonb_set(spec, '{lifecycle}', '\"closed\"') WHERE id = %s",
            [TENANTS[0]],
        )
        begun = transfer.insert(
            conn,
            TENANTS[1],
            kind,
            plan="shared",
            destination="shared" if moves else None,
            source=HERE if moves else None,
            reason="x",
            actor="x",
        )
        if moves:
            placement.insert(conn, Placement(THERE, TENANTS[1], CLUSTER), state=PlacementState.TARGET)
        transfer.set_target(conn, begun, THERE if moves else HERE)
        conn.execute("UPDATE transfer SET phase = %s", [phase])
        assert turn(conn, started) == ({}, TENANTS[::2])
        assert of(begin(conn, started, *TENANTS)) == [TENANTS[2]]
        assert states(conn) == ["skipped", "pending", "running"]
        assert jobs(conn) == 1


def test_a_superseded_holder_records_nothing(registry: Registry, started: int) -> None:
    with registry.connection() as conn:
        [stale] = begin(conn, started, TENANTS[0])
        run_out(conn)
        newest = taken_over(registry, "two", Lane.LONG)
        assert newest is not None
        finish(conn, started, stale)
        assert states(conn) == ["running", "pending", "pending"]
        assert conn.execute("SELECT FROM tenant WHERE release IS NOT NULL").fetchall() == []
        finish(conn, started, newest)
        assert states(conn) == ["done", "pending", "pending"]
        assert jobs(conn) == 0


def test_what_waits_for_another_attempt_is_shown_and_goes_with_whoever_decides(
    registry: Registry, started: int
) -> None:
    with registry.connection() as conn:
        for held in begin(conn, started, *TENANTS):
            put_back(conn, held, after=60)
        shown = rollout_member.page(conn, started, after=None, limit=9)
        assert {(row.state, row.attempts, row.error) for row in shown} == {("pending", 1, "a lock")}
        assert all(row.next_attempt_at is not None for row in shown)
        rollouts.skip(conn, started, [TENANTS[0]], actor="x", reason="it leaves us")
        assert (states(conn), jobs(conn)) == (["skipped", "pending", "pending"], 2)
        rollouts.abort(conn, started, actor="x", reason="not today")
        assert (states(conn), jobs(conn)) == (["skipped", "stale", "stale"], 0)
        shown = rollout_member.page(conn, started, after=None, limit=9)
        assert {(row.attempts, row.next_attempt_at) for row in shown} == {(None, None)}


def test_what_runs_can_not_be_skipped(registry: Registry, started: int) -> None:
    with registry.connection() as conn:
        begin(conn, started, TENANTS[0])
        with pytest.raises(Conflict, match="only members that are pending"):
            rollouts.skip(conn, started, [TENANTS[0]], actor="x", reason="too late")
        assert (states(conn)[0], jobs(conn)) == ("running", 1)


def test_done_raises_the_release_and_asks_for_one_operation(registry: Registry, started: int) -> None:
    with registry.connection() as conn:
        finish(conn, started, *begin(conn, started, *TENANTS))
        rows = conn.execute("SELECT resource_id, reason FROM operation ORDER BY 1").fetchall()
        released = conn.execute("SELECT DISTINCT release FROM tenant").fetchall()
    assert [row["resource_id"] for row in rows] == TENANTS
    assert {row["reason"] for row in rows} == {"release 0002"}
    assert released == [{"release": "0002"}]


def test_a_release_that_is_registered_can_not_be_touched(registry: Registry, started: int) -> None:
    for statement in ("UPDATE release SET checksum = 'y'", "DELETE FROM release"):
        with (
            registry.connection() as conn,
            pytest.raises(Exception, match="a row of release is never changed"),
        ):
            conn.execute(statement.encode())
