"""The one queue: who gets what, in which order, and that the newest fencing token wins (I3)."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest

from controlplane.domain.errors import LeaseLost
from controlplane.domain.job import CLAIMS_UNTIL_OLDEST, TERMS, Job, JobKind, Lane, Trouble
from controlplane.store import job, operation
from controlplane.store.registry import Connection, Registry, one
from tests.harness.queue import beat, claim, claimed, run_out, taken_over

TENANT = JobKind.TENANT
ONE, TWO = "t-aaaaaaaaaaaa", "t-bbbbbbbbbbbb"


@pytest.fixture
def asked(registry: Registry) -> Registry:
    """A registry in which one job waits."""
    with registry.connection() as conn:
        job.ensure(conn, TENANT, ONE, reason="test", actor="test")
    return registry


def row(conn: Connection, job_id: int) -> dict[str, Any]:
    return one(conn.execute("SELECT * FROM job WHERE id = %s", [job_id]).fetchone())


# --------------------------------------------------------------------------------------- asking


def test_one_waits_for_each_kind_and_subject_and_keeps_every_cause(asked: Registry) -> None:
    with asked.connection() as conn, conn.transaction():
        [first] = conn.execute("SELECT id, due_at FROM job").fetchall()
        with job.caused_by(event="evt_1"):
            assert job.ensure(conn, TENANT, ONE, reason="paid", actor="billing") == first["id"]
        assert job.ensure(conn, JobKind.CLUSTER, ONE, reason="another kind", actor="test") != first["id"]
        assert job.ensure(conn, TENANT, TWO, reason="another subject", actor="test") != first["id"]
        found = row(conn, first["id"])
    assert [(cause["reason"], cause["event"]) for cause in found["causes"]] == [
        ("test", None),
        ("paid", "evt_1"),
    ]
    assert found["cause_count"] == 2


def test_who_asks_makes_it_as_urgent_as_they_are_and_never_less(registry: Registry) -> None:
    with registry.connection() as conn:
        number = job.ensure(conn, TENANT, ONE)
        found = [row(conn, number)["priority"]]
        for actor in ("rollout", "support", "billing", "rollout"):
            job.ensure(conn, TENANT, ONE, reason="x", actor=actor)
            found.append(row(conn, number)["priority"])
    assert found == [3, 2, 1, 0, 0]


def test_what_is_asked_for_again_is_due_now(registry: Registry) -> None:
    with registry.connection() as conn:
        job.ensure(conn, TENANT, ONE, reason="later", actor="pool", after=3600)
        assert claim(registry) is None
        job.ensure(conn, TENANT, ONE, reason="now", actor="billing")
    assert claimed(registry).reason == "later"


def test_whoever_asks_learns_which_lanes_have_work(registry: Registry) -> None:
    with registry.connection() as conn, job.caused_by() as outer:
        job.ensure(conn, TENANT, TWO, reason="later", actor="test", after=60)
        assert outer == set()
        with job.caused_by(request="r") as inner:
            job.ensure(conn, TENANT, ONE, reason="x", actor="test")
            assert (inner, outer) == ({Lane.QUICK}, set())
        job.ensure(conn, JobKind.CLUSTER, "c-1", reason="x", actor="test")
    assert outer == {Lane.QUICK, Lane.LONG}


# ------------------------------------------------------------------------------------- claiming


def test_only_one_of_many_claimers_gets_it(asked: Registry) -> None:
    got: list[Job | None] = []
    start = threading.Barrier(8)

    def work(n: int) -> None:
        start.wait()
        got.append(claim(asked, f"w{n}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([held for held in got if held is not None]) == 1
    assert len(got) == 8


def test_many_claimers_get_one_of_two_jobs_with_the_same_lock(registry: Registry) -> None:
    """Also where both look before either has taken one."""
    for _ in range(20):
        with registry.connection() as conn:
            for subject in ("sub_1", "sub_2"):
                job.ensure(conn, JobKind.INTAKE, subject, reason="x", actor="billing", lock="cus_1")
        got: list[Job | None] = []
        start = threading.Barrier(4)

        def work(start: threading.Barrier = start, got: list[Job | None] = got) -> None:
            start.wait()
            got.append(claim(registry))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [held] = [held for held in got if held is not None]
        with registry.connection() as conn:
            job.finish(conn, held)
            job.finish(conn, claimed(registry))


def test_a_lock_is_held_over_all_kinds(asked: Registry) -> None:
    with asked.connection() as conn:
        job.ensure(conn, JobKind.EXPORT, "7", reason="x", actor="test", lock=ONE)
        held = claimed(asked)
        assert claim(asked, lane=Lane.LONG) is None
        job.finish(conn, held)
    assert claimed(asked, lane=Lane.LONG).kind is JobKind.EXPORT


def test_the_most_urgent_is_claimed_first_and_of_those_the_one_that_is_due_longest(
    registry: Registry,
) -> None:
    with registry.connection() as conn:
        for actor in ("clock", "rollout", "support", "billing"):
            for name in ("b", "a"):
                job.ensure(conn, TENANT, f"{name}-{actor}", reason="x", actor=actor)
    order = [claimed(registry).subject for _ in range(8)]
    assert order == [f"{n}-{who}" for who in ("billing", "support", "rollout", "clock") for n in "ba"]


def test_the_oldest_of_any_class_is_claimed_when_its_turn_comes(registry: Registry) -> None:
    """Or routine would starve under an endless stream of customers; the engine asks for it every 8th time."""
    assert CLAIMS_UNTIL_OLDEST == 8
    with registry.connection() as conn:
        job.ensure(conn, TENANT, "routine")
        job.ensure(conn, TENANT, "paid", reason="x", actor="billing")
    assert claimed(registry, oldest=True).subject == "routine"
    assert claimed(registry).subject == "paid"


def test_a_lane_and_a_kind_that_were_not_asked_for_are_left_alone(registry: Registry) -> None:
    with registry.connection() as conn:
        job.ensure(conn, JobKind.CLUSTER, "c-1", reason="x", actor="test")
        job.ensure(conn, TENANT, ONE, reason="x", actor="test")
    assert claim(registry, kinds=[JobKind.INTAKE]) is None
    assert claimed(registry).subject == ONE
    assert claim(registry) is None
    assert claimed(registry, lane=Lane.LONG).subject == "c-1"


def test_a_dead_workers_job_is_taken_over_with_a_higher_fencing_token(asked: Registry) -> None:
    first = claimed(asked, "w1")
    assert taken_over(asked) is None
    with asked.connection() as conn:
        run_out(conn)
    assert claim(asked) is None
    second = taken_over(asked)
    assert second is not None
    assert (second.id, second.attempts, second.orphan) == (first.id, 2, True)
    assert second.fencing_token > first.fencing_token
    assert taken_over(asked) is None


def test_a_job_may_begin_without_waiting_where_its_lock_is_free(registry: Registry) -> None:
    kind = JobKind.MEMBER
    with registry.connection() as conn:
        job.ensure(conn, kind, "waits", reason="x", actor="rollout", lock="lock-0")
        job.ensure(conn, JobKind.EXPORT, "7", reason="x", actor="test", lock="lock-1")
        claimed(registry, lane=Lane.LONG, kinds=[JobKind.EXPORT])
        locks = {"waits": "lock-9", "shut-out": "lock-1", "one": "lock-2", "two": "lock-2", "three": "lock-3"}
        began = job.start(conn, kind, locks, holder="w1", seconds=30, actor="rollout").fetchall()
        assert [held.subject for held in began] == ["one", "three"]
        assert job.start(conn, kind, locks, holder="w2", seconds=30).fetchall() == []
        assert {(held.lane, held.attempts, held.holder) for held in began} == {(Lane.LONG, 1, "w1")}
        assert {row(conn, held.id)["priority"] for held in began} == {2}
        assert job.is_running(conn, "lock-3")
        assert beat(conn, began[1]) == {began[1].fencing_token}
        job.finish(conn, began[1])
        assert not job.is_running(conn, "lock-3")


def test_whoever_begins_the_same_at_once_begins_it_once(registry: Registry) -> None:
    started: list[Job] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        with registry.connection() as conn:
            locks = {str(n): f"lock-{n}" for n in range(20)}
            started.extend(job.start(conn, JobKind.MEMBER, locks, holder="w", seconds=30).fetchall())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(held.subject) for held in started) == list(range(20))


def test_what_waits_is_withdrawn_and_what_runs_is_not(registry: Registry) -> None:
    with registry.connection() as conn:
        for subject in ("a", "b", "c"):
            job.ensure(conn, JobKind.MEMBER, subject, reason="x", actor="rollout")
        held = claimed(registry, lane=Lane.LONG)
        job.withdraw(conn, JobKind.MEMBER, ["a", "b"])
        job.withdraw(conn, JobKind.EXPORT, ["c"])
        left = conn.execute("SELECT subject FROM job ORDER BY subject").fetchall()
    assert (held.subject, [found["subject"] for found in left]) == ("a", ["a", "c"])


def test_the_fencing_token_rises_over_all_jobs(registry: Registry) -> None:
    with registry.connection() as conn:
        tokens = []
        for subject in (ONE, TWO, ONE):
            job.ensure(conn, TENANT, subject, reason="x", actor="test")
            held = claimed(registry)
            tokens.append(held.fencing_token)
            job.finish(conn, held)
    assert tokens == sorted(set(tokens))


# ---------------------------------------------------------------------------- holding and ending


def test_a_superseded_holder_can_neither_renew_nor_write(asked: Registry) -> None:
    first = claimed(asked, "w1")
    with asked.connection() as conn:
        run_out(conn)
        second = taken_over(asked, "w2")
        assert second is not None
        for write in (
            lambda: job.guard(conn, first),
            lambda: job.finish(conn, first),
            lambda: job.park(conn, first, Trouble("x", None, "refused")),
            lambda: job.put_back(conn, first, after=0.0),
        ):
            with pytest.raises(LeaseLost), conn.transaction():
                write()
        assert beat(conn, first) == set()
        assert operation.get(conn, first.id).state == "running"
        assert beat(conn, second) == {second.fencing_token}


def test_a_take_over_waits_for_the_transaction_of_the_one_before(asked: Registry) -> None:
    """So that no write is accepted that the successor has not seen."""
    first = claimed(asked, "w1")
    with asked.connection() as conn:
        run_out(conn)
        with conn.transaction():
            job.guard(conn, first)
            assert taken_over(asked) is None
    assert taken_over(asked) is not None


def test_a_heartbeat_renews_what_is_held_and_says_that_the_process_lives(asked: Registry) -> None:
    held = claimed(asked, "w1")
    with asked.connection() as conn:
        run_out(conn)
        assert beat(conn, held) == {held.fencing_token}
        assert taken_over(asked) is None
        before = conn.execute("SELECT * FROM process").fetchall()
        assert [(found["id"], found["lanes"]) for found in before] == [("w1", ["quick"])]
        beat(conn, held)
        [after] = conn.execute("SELECT * FROM process").fetchall()
        assert after["heartbeat_at"] > before[0]["heartbeat_at"]


def test_a_heartbeat_touches_no_index(asked: Registry) -> None:
    """HOT: or every worker would write into every index every three seconds."""
    held = claimed(asked)
    with asked.connection() as conn:
        for _ in range(20):
            beat(conn, held)
        conn.execute("SELECT pg_stat_force_next_flush()")
        row = conn.execute(
            "SELECT n_tup_upd - n_tup_hot_upd AS cold FROM pg_stat_user_tables WHERE relname = 'job'"
        ).fetchone()
    assert one(row)["cold"] <= 1  # the claim


def test_a_running_job_keeps_the_next_one_waiting(asked: Registry) -> None:
    held = claimed(asked)
    with asked.connection() as conn:
        later = job.ensure(conn, TENANT, ONE, reason="more", actor="test")
        assert later != held.id
        assert job.ensure(conn, TENANT, ONE, reason="and more", actor="test") == later
        assert claim(asked) is None
        job.finish(conn, held)
    assert claimed(asked).id == later


def test_what_is_put_back_waits_its_time(asked: Registry) -> None:
    held = claimed(asked)
    with asked.connection() as conn:
        assert not job.put_back(conn, held, after=60, error="later", counts=True)
        assert claim(asked) is None
        assert job.bring_forward(conn, TENANT, [ONE]) == [ONE]
        assert operation.get(conn, held.id).error == "later"
    assert claimed(asked).attempts == 2


def test_what_waits_already_is_folded_into_what_is_put_back(asked: Registry) -> None:
    """It keeps its id, which people watch, gets the causes of the other, and is due when that was."""
    held = claimed(asked)
    with asked.connection() as conn:
        absorbed = job.ensure(conn, TENANT, ONE, reason="changed meanwhile", actor="billing")
        assert job.put_back(conn, held, after=3600, error="x", counts=True)
        [found] = conn.execute("SELECT * FROM job").fetchall()
        assert operation.get(conn, absorbed).id == held.id
    assert (found["id"], found["priority"], found["cause_count"]) == (held.id, 0, 2)
    again = claimed(asked)
    assert [cause["reason"] for cause in again.causes] == ["test", "changed meanwhile"]
    assert again.attempts == 1
    with asked.connection() as conn:
        later = job.ensure(conn, TENANT, ONE, reason="once more", actor="test")
        job.put_back(conn, again, after=0)
        job.finish(conn, claimed(asked))
        assert [operation.get(conn, number).id for number in (absorbed, later)] == [held.id, held.id]


def test_waiting_for_something_outside_counts_as_no_attempt(asked: Registry) -> None:
    for _ in range(3):
        held = claimed(asked)
        assert held.attempts == 1
        with asked.connection() as conn:
            job.put_back(conn, held, after=0)


def test_a_job_may_go_on_in_the_other_lane(asked: Registry) -> None:
    held = claimed(asked)
    with asked.connection() as conn, job.caused_by() as lanes:
        job.put_back(conn, held, after=0, lane=Lane.LONG)
    assert lanes == {Lane.LONG}
    assert claim(asked) is None
    assert claimed(asked, lane=Lane.LONG).id == held.id


def test_what_has_ended_leaves_the_queue_and_is_kept_where_people_look_for_it(registry: Registry) -> None:
    with registry.connection() as conn:
        job.ensure(conn, TENANT, ONE, reason="x", actor="test")
        job.ensure(conn, JobKind.SNAPSHOT, "s", reason="x", actor="rollout")
        tenant, snapshot = claimed(registry, kinds=[TENANT]), claimed(registry)
        job.finish(conn, tenant)
        job.finish(conn, snapshot)
        job.ensure(conn, TENANT, TWO, reason="x", actor="test")
        parked = claimed(registry)
        job.park(conn, parked, Trouble("who knows", None, "internal-error"))
        assert conn.execute("SELECT FROM job").fetchall() == []
        found = operation.page(conn, before=None, limit=10)
    assert [(o.id, o.state, o.error, o.runbook) for o in found] == [
        (parked.id, "parked", "who knows", "internal-error"),
        (tenant.id, "done", None, None),
    ]


def test_one_that_the_clock_asks_for_is_there_once(registry: Registry) -> None:
    with registry.connection() as conn:
        for _ in range(2):
            job.keep_due(conn, JobKind.TIMERS)
        held = claimed(registry)
        job.keep_due(conn, JobKind.TIMERS)
        assert len(conn.execute("SELECT FROM job").fetchall()) == 1
        job.put_back(conn, held, after=300, anew=True)
        job.keep_due(conn, JobKind.TIMERS)
        [found] = conn.execute("SELECT attempts, due_at, now() AS at FROM job").fetchall()
    assert found["attempts"] == 0
    assert 290 < _seconds(found["at"], found["due_at"]) < 310


def _seconds(since: datetime, until: datetime) -> float:
    return (until - since).total_seconds()


def test_the_terms_of_every_kind_are_said() -> None:
    assert set(TERMS) == set(JobKind)
