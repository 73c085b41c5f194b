"""What the workers do by the clock: periodic observations, which leave no trace where nothing was to be done,
and the duties, each a job of its own, which are done with a broker and without one."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.domain.errors import NeedsHuman, Refused, Retryable
from controlplane.domain.job import UNEXPECTED_UNTIL_PARKED, Job, JobKind, Lane, judge
from controlplane.domain.placement import tenant_id_for
from controlplane.services import timers
from controlplane.store import history, job, rehearsal
from controlplane.store.registry import one
from controlplane.wake_up import TASK
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.run import Handler, Handlers, drain, nothing
from controlplane.workers.jobs.handlers import HANDLERS
from controlplane.workers.runtime import polling as poll
from controlplane.workers.schedule import duties
from controlplane.workers.schedule.duties import DUTIES
from tests.harness.engine import ZONE, Harness
from tests.harness.work import do_duties, do_one
from tests.migrations.test_living_fleet import register
from tests.web.site import ENVIRONMENT

# ------------------------------------------------------------------------------- periodic looks


def subscribed(harness: Harness) -> str:
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    return tenant_id_for(subscription)


def look(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp(), observed_at = NULL")


def rows(harness: Harness, statement: str) -> list[dict[str, Any]]:
    with harness.ctx.registry.connection() as conn:
        return conn.execute(statement.encode()).fetchall()


OPERATIONS = "SELECT id, cause_count, state, attempts FROM operation ORDER BY id"


def test_a_look_that_changed_nothing_is_not_kept(harness: Harness) -> None:
    subscribed(harness)
    before = rows(harness, OPERATIONS)
    for _ in range(5):
        look(harness)
        harness.work()
    assert rows(harness, OPERATIONS) == before
    [seen] = rows(harness, "SELECT observed_at, next_observation_at FROM tenant")
    assert seen["observed_at"] is not None
    assert seen["next_observation_at"] is not None
    assert harness.violations() == []


def test_a_look_that_mended_something_is_history(harness: Harness) -> None:
    subscribed(harness)
    known = len(rows(harness, OPERATIONS))
    harness.cache.flush()
    look(harness)
    harness.work()
    [kept] = rows(harness, OPERATIONS)[known:]
    assert (kept["cause_count"], kept["state"]) == (0, "done")
    assert rows(harness, f"SELECT name FROM step WHERE operation_id = {kept['id']}")


def test_a_look_that_somebody_asked_for_meanwhile_is_theirs(harness: Harness) -> None:
    tenant_id = subscribed(harness)
    look(harness)
    with harness.ctx.registry.connection() as conn:
        timers.run(conn, harness.ctx.catalogue, zone=ZONE, limit=10)
        asked = job.ensure(conn, JobKind.TENANT, tenant_id, reason="a customer called", actor="support")
    harness.work()
    assert [row["state"] for row in rows(harness, OPERATIONS) if row["id"] == asked] == ["done"]


def test_a_look_that_failed_at_first_is_history(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribed(harness)
    known = len(rows(harness, OPERATIONS))
    look(harness)
    read, failed = harness.cache.read, []

    def once(host: str) -> Any:
        if not failed:
            failed.append(host)
            raise Retryable("the cache does not answer")
        return read(host)

    monkeypatch.setattr(harness.cache, "read", once)
    harness.work()
    assert failed
    [kept] = rows(harness, OPERATIONS)[known:]
    assert (kept["cause_count"], kept["state"], kept["attempts"]) == (0, "done", 2)


# ------------------------------------------------------------------- duties, without a broker


@contextmanager
def polling(*harnesses: Harness) -> Iterator[None]:
    """A worker of each, as `python -m controlplane.workers.runtime.polling` runs."""
    stop = threading.Event()
    threads = [threading.Thread(target=poll.run, args=(harness.ctx, stop)) for harness in harnesses]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def until(what: Callable[[], object], name: str) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline, name
        time.sleep(0.05)


def waiting(harness: Harness) -> dict[str, dict[str, Any]]:
    """The duties' jobs by their kind, of which there is one for each."""
    found = rows(
        harness,
        "SELECT kind, state, attempts, error, started_at IS NOT NULL AS begun,"
        " extract(epoch FROM due_at - now())::float8 AS due_in FROM job"
        f" WHERE kind IN ({', '.join(repr(kind.value) for kind in DUTIES)})",
    )
    assert Counter(row["kind"] for row in found) == Counter(kind.value for kind in DUTIES)
    assert {row["state"] for row in found} <= {"waiting", "running"}
    return {row["kind"]: row for row in found}


def due_now(harness: Harness, *kinds: JobKind) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE job SET due_at = now() WHERE kind = ANY(%s)", [list(kinds)])


def rehearsed(harness: Harness, asked: int) -> tuple[str, str | None]:
    with harness.ctx.registry.connection() as conn:
        row = rehearsal.get(conn, asked)
    return row.state, row.error


def test_a_polling_worker_does_what_a_fleet_with_a_broker_does(harness: Harness) -> None:
    """A subscription whose webhook was lost, a cache that was flushed, history that is old, a rehearsal that
    somebody asked for: nobody notifies of any of them."""
    register(harness)
    known = subscribed(harness)
    lost = harness.subscribe(2)
    harness.cache.flush()
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE job_history SET finished_at = '2020-01-01'")
        old = one(conn.execute("SELECT min(id) AS id FROM job_history").fetchone())["id"]
        asked = rehearsal.request(conn, register(harness, "0003_stars.sql"), copies=1, actor="test")
    with polling(harness):
        until(lambda: harness.cache.read(f"customer-1.{ZONE}"), "the cache is repaired")
        until(lambda: rows(harness, f"SELECT FROM operation WHERE id = {old}") == [], "pruned")
        until(lambda: harness.cache.read(f"customer-2.{ZONE}"), f"{lost} is found")
        until(lambda: rehearsed(harness, asked) == ("done", None), "the release is rehearsed")
        until(lambda: rows(harness, "SELECT FROM audit WHERE place IS NULL") == [], "the trail is sealed")
        until(lambda: all(row["begun"] for row in waiting(harness).values()), "every duty has begun")
    assert harness.tenant(lost).id != known


# ------------------------------------------------------------------------ once, by the whole fleet


@pytest.fixture
def seldom(harness: Harness) -> Harness:
    """Whatever is done by the clock, its interval is not over before the test is."""
    platform = replace(
        harness.ctx.platform, duty_interval=3600.0, republish_interval=7200.0, compare_interval=10800.0
    )
    harness.ctx = replace(harness.ctx, platform=platform)
    return harness


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[JobKind], Handlers]:
    """How often each duty was done, and the handlers that count it."""
    done: Counter[JobKind] = Counter()
    for kind in JobKind:
        if kind in DUTIES:
            monkeypatch.setitem(DUTIES, kind, replace(DUTIES[kind], do=_counting(done, kind)))
    return done, {kind: Handler(duties.handler(kind), HANDLERS[kind].trouble) for kind in DUTIES}


def _counting(done: Counter[JobKind], kind: JobKind) -> Callable[[Context], int]:
    def do(_: Context) -> int:
        done[kind] += 1
        return 0

    return do


def drain_all(ctx: Context, handlers: Handlers) -> int:
    return sum(drain(ctx, handlers, lane) for lane in Lane)


def test_of_many_workers_at_once_one_does_each_duty(
    seldom: Harness, counted: tuple[Counter[JobKind], Handlers]
) -> None:
    done, handlers = counted
    workers = [seldom.another_worker(f"worker-{number}") for number in range(8)]
    start = threading.Barrier(len(workers))

    def work(ctx: Context) -> int:
        start.wait()
        duties.ensure(ctx)
        start.wait()
        return drain_all(ctx, handlers)

    for interval in (1, 2):
        with ThreadPoolExecutor(len(workers)) as pool:
            assert sum(pool.map(work, workers)) == len(DUTIES)
        assert done == Counter(dict.fromkeys(DUTIES, interval))
        waiting(seldom)
        due_now(seldom, *DUTIES)


def test_what_has_been_done_lately_is_not_done_again(seldom: Harness) -> None:
    """By nobody: two workers look."""
    other = seldom.another_worker("other")
    duties.ensure(seldom.ctx)
    assert do_duties(seldom.ctx) == len(DUTIES)
    duties.ensure(other)
    assert do_duties(other) == 0
    for kind, row in waiting(seldom).items():
        interval = getattr(seldom.ctx.platform, DUTIES[JobKind(kind)].interval)
        assert interval - 600 < row["due_in"] <= interval
        assert (row["state"], row["attempts"], row["error"]) == ("waiting", 0, None)
    due_now(seldom, JobKind.REPUBLISH)
    assert [do_duties(other), do_duties(seldom.ctx)] == [1, 0]
    assert waiting(seldom)["republish"]["due_in"] > 0


def test_a_duty_over_which_a_worker_died_is_taken_over(
    seldom: Harness, counted: tuple[Counter[JobKind], Handlers]
) -> None:
    done, handlers = counted
    duties.ensure(seldom.ctx)
    with seldom.ctx.registry.connection() as conn:
        held = job.claim(conn, Lane.LONG, holder="dead", seconds=600, kinds=[JobKind.COMPARE])
    assert held is not None
    assert drain_all(seldom.ctx, handlers) == len(DUTIES) - 1
    assert done[JobKind.COMPARE] == 0
    with seldom.ctx.registry.connection() as conn:
        conn.execute("UPDATE job SET lease_until = '-infinity' WHERE holder = 'dead'")
    assert drain_all(seldom.ctx, handlers) == 1
    assert done == Counter(dict.fromkeys(DUTIES, 1))
    assert waiting(seldom)["compare"]["state"] == "waiting"


# ------------------------------------------------------------------------------------ what fails


@pytest.mark.parametrize("error", [Retryable("Stripe does not answer"), ZeroDivisionError("unforeseen")])
def test_a_duty_that_fails_stops_no_other_and_is_told_by_its_name(
    seldom: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    subscribed(seldom)
    seldom.cache.flush()

    def fail(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(seldom.billing, "subscriptions", fail)
    monkeypatch.setattr(history, "prune", fail)
    duties.ensure(seldom.ctx)
    with caplog.at_level(logging.INFO):
        do_duties(seldom.ctx)
    assert seldom.cache.read(f"customer-1.{ZONE}") is not None
    found = waiting(seldom)
    assert all(row["begun"] for row in found.values())
    assert {kind for kind, row in found.items() if row["error"] is not None} == {"compare", "prune"}
    reported = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    late = {"leases"}  # a heartbeat that a busy machine held up says so, too
    assert {line.split()[0] for line in reported} - late == {"compare", "prune"}
    assert "unforeseen" not in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        Retryable("Stripe does not answer"),
        NeedsHuman("the key is refused", runbook="stripe"),
        ZeroDivisionError("unforeseen"),
    ],
)
def test_a_duty_is_never_given_up(seldom: Harness, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whatever was wrong for however long: when it is over, the duty is done without anybody's doing."""
    lost = seldom.subscribe(2)
    duties.ensure(seldom.ctx)
    tried: list[Exception] = []

    def fail() -> Any:
        tried.append(error)
        raise error

    with monkeypatch.context() as away:
        away.setattr(seldom.billing, "subscriptions", fail)
        for _ in range(UNEXPECTED_UNTIL_PARKED + 3):
            due_now(seldom, JobKind.COMPARE)
            do_one(seldom.ctx, JobKind.COMPARE)
            assert 0 < waiting(seldom)["compare"]["due_in"] <= 300
    assert len(tried) == UNEXPECTED_UNTIL_PARKED + 3
    due_now(seldom, JobKind.COMPARE)
    do_one(seldom.ctx, JobKind.COMPARE)
    assert waiting(seldom)["compare"]["error"] is None
    seldom.work()
    assert seldom.cache.read(f"customer-2.{ZONE}") is not None, f"{lost} is not found"


def _taken_meanwhile(harness: Harness) -> None:
    """Another worker takes a running job over and does it."""
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE job SET lease_until = '-infinity' WHERE state = 'running'")
        held = job.take_over(conn, Lane.QUICK, holder="another", seconds=600)
        assert held is not None
        conn.execute("UPDATE stripe_event SET state = 'ignored', handled_at = now()")
        job.finish(conn, held)


@pytest.mark.parametrize("fails", [True, False])
def test_work_that_another_worker_has_taken_ends_with_a_line_in_the_log(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    """With a broker and without: while the subscription is fetched, the event is handled elsewhere."""
    for name in ("CONTROLPLANE_REGISTRY_URL", "CONTROLPLANE_BROKER_URL"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    from controlplane.workers.runtime import tasks

    fetch = harness.billing.subscriptions_of

    def elsewhere(customer_id: str) -> Any:
        _taken_meanwhile(harness)
        if fails:
            raise Retryable("Stripe does not answer")
        return fetch(customer_id)

    slot = poll.Slot(lambda: harness.ctx, [Lane.QUICK], threading.Event())
    monkeypatch.setattr(tasks, "slot", lambda: slot)
    monkeypatch.setattr(harness.billing, "subscriptions_of", elsewhere)
    by_task, by_poll = harness.subscribe(1), harness.subscribe(2)
    duties.ensure(harness.ctx)
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE job SET due_at = 'infinity'")
    harness.hear(by_task)
    tasks.app.tasks[TASK].run(Lane.QUICK.value)
    harness.hear(by_poll)
    do_one(harness.ctx, JobKind.INTAKE)
    said = "outcome not recorded, another holder has taken over" if fails else "is no longer the newest"
    given_up = [line for line in caplog.messages if said in line]
    assert [line.split(",")[0] for line in given_up] == [
        f"intake {each.replace('sub', 'cus')}" for each in (by_task, by_poll)
    ]
    assert {row["state"] for row in rows(harness, "SELECT state FROM stripe_event")} == {"ignored"}


# ---------------------------------------------------------------------------------------- pruning


def test_pruning_goes_on_until_nothing_old_is_left_or_its_time_is_over(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = subscribed(harness)
    monkeypatch.setattr(duties, "PRUNE_BATCH", 7)
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "INSERT INTO job_history (id, kind, subject, state, attempts, fencing_token, causes, cause_count,"
            "  created_at, started_at, finished_at)"
            " SELECT 1000000 + n, 'tenant', %s, 'done', 1, n, '[]', 1, at, at, at"
            " FROM generate_series(1, 50) AS n, LATERAL (SELECT '2020-01-01'::timestamptz AS at) AS x",
            [tenant_id],
        )
    old = "SELECT FROM job_history WHERE finished_at = '2020-01-01'"
    now, prune = [100.0], history.prune

    def takes_long(*args: Any, **named: Any) -> int:
        now[0] += duties.PRUNE_SECONDS / 2
        return prune(*args, **named)

    with monkeypatch.context() as slow:
        slow.setattr(duties, "time", SimpleNamespace(monotonic=lambda: now[0]))
        slow.setattr(history, "prune", takes_long)
        assert duties.prune(harness.ctx) == 14
    assert len(rows(harness, old)) == 36
    assert duties.prune(harness.ctx) == 36
    assert rows(harness, old) == []


# ------------------------------------------------------------------------------------- the lists


def test_every_kind_of_job_has_its_handler_and_every_lane_its_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """One list, by which a worker goes with a broker and without."""
    for name in ("CONTROLPLANE_REGISTRY_URL", "CONTROLPLANE_BROKER_URL"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    from controlplane.workers.runtime.tasks import app

    assert set(HANDLERS) == set(JobKind)
    assert set(poll.SLOTS) == set(Lane)
    assert min(poll.SLOTS.values()) >= 1
    assert {name for name in app.tasks if name.startswith("controlplane")} == {TASK}
    assert not app.conf.beat_schedule


@pytest.mark.parametrize("kind", JobKind)
def test_a_kind_that_may_be_given_up_says_so_somewhere(kind: JobKind) -> None:
    """Nobody would ask for it again, and nobody would know."""
    failed = Job(1, kind, "x", Lane.QUICK, 1, "w", 1000, [], orphan=False)
    errors = [Retryable("x"), NeedsHuman("x", runbook="x"), Refused("x"), ZeroDivisionError()]
    if any(judge(error, failed, jitter=0.0).after is None for error in errors):
        assert HANDLERS[kind].trouble is not nothing


def test_a_worker_that_starts_asks_for_every_duty_once(harness: Harness) -> None:
    stop = threading.Event()
    for _ in range(3):
        poll.Slot(lambda: harness.ctx, [], stop).work()
    assert {kind for kind, row in waiting(harness).items() if not row["begun"]} == {*map(str, DUTIES)}
