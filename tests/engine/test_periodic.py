"""What the workers do by the clock: periodic observations, which leave no trace where nothing was to be done,
and the duties, which are done with a broker and without one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controlplane import task_names
from controlplane.domain.errors import Retryable
from controlplane.domain.operation import PERIODIC_OBSERVATION, ResourceKind
from controlplane.domain.placement import tenant_id_for
from controlplane.services import timers
from controlplane.store import duty, history, operation, rehearsal
from controlplane.store.registry import Registry, one
from controlplane.workers.runtime import polling as poll
from controlplane.workers.schedule import duties
from tests.harness.engine import ZONE, Harness
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


OPERATIONS = "SELECT id, reason, state, attempts FROM operation ORDER BY id"


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
    assert (kept["reason"], kept["state"]) == (PERIODIC_OBSERVATION, "done")
    assert rows(harness, f"SELECT name FROM step WHERE operation_id = {kept['id']}")


def test_a_look_that_somebody_asked_for_meanwhile_is_theirs(harness: Harness) -> None:
    tenant_id = subscribed(harness)
    look(harness)
    with harness.ctx.registry.connection() as conn:
        timers.run(conn, limit=10)
        asked = operation.request(
            conn, ResourceKind.TENANT, tenant_id, reason="a customer called", actor="support"
        )
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
    assert (kept["reason"], kept["state"], kept["attempts"]) == (PERIODIC_OBSERVATION, "done", 2)


# ------------------------------------------------------------------- duties, without a broker


@contextmanager
def polling(*harnesses: Harness) -> Iterator[None]:
    """A worker of each, as `python -m controlplane.workers.runtime.polling` runs."""
    stop = threading.Event()
    threads = [threading.Thread(target=poll.run, args=(harness.ctx, stop.wait)) for harness in harnesses]
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


def begun(harness: Harness) -> dict[str, Any]:
    return {row["name"]: row["begun_at"] for row in rows(harness, "SELECT name, begun_at FROM duty")}


def rehearsed(harness: Harness, asked: int) -> tuple[str, str | None]:
    with harness.ctx.registry.connection() as conn:
        row = rehearsal.get(conn, asked)
    return row.state, row.error


DUTIES = {"republish", "compare", "prune"}


def test_a_polling_worker_does_what_a_fleet_with_a_broker_does(harness: Harness) -> None:
    """A subscription whose webhook was lost, a cache that was flushed, history that is old, a rehearsal that
    somebody asked for: nobody notifies of any of them."""
    register(harness)
    known = subscribed(harness)
    lost = harness.subscribe(2)
    harness.cache.flush()
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE operation SET finished_at = '2020-01-01'")
        old = one(conn.execute("SELECT min(id) AS id FROM operation").fetchone())["id"]
        asked = rehearsal.request(conn, register(harness, "0003_stars.sql"), copies=1, actor="test")
    with polling(harness):
        until(lambda: harness.cache.read(f"customer-1.{ZONE}"), "the cache is repaired")
        until(lambda: rows(harness, f"SELECT FROM operation WHERE id = {old}") == [], "pruned")
        until(lambda: harness.cache.read(f"customer-2.{ZONE}"), f"{lost} is found")

        until(lambda: rehearsed(harness, asked) == ("done", None), "the release is rehearsed")
    assert harness.tenant(lost).id != known
    assert begun(harness).keys() == DUTIES


@pytest.fixture
def other(harness: Harness, database_url: str) -> Iterator[Harness]:
    """Another worker of the same fleet."""
    opened = Harness(database_url)
    yield opened
    opened.close()


def test_what_has_been_done_lately_is_not_done_again(harness: Harness, other: Harness) -> None:
    """By nobody: two workers poll."""
    assert poll.do_duties(harness.ctx) == len(DUTIES)
    first = begun(harness)
    assert poll.do_duties(other.ctx) == 0
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE duty SET begun_at = begun_at - make_interval(secs => 301) WHERE name = 'republish'"
        )
    assert [poll.do_duties(other.ctx), poll.do_duties(harness.ctx)] == [1, 0]
    again = begun(harness)
    assert {name for name in first if again[name] != first[name]} == {"republish"}


def test_of_many_workers_that_ask_at_once_one_begins(registry: Registry) -> None:
    start = threading.Barrier(8)
    got: list[bool] = []

    def ask() -> None:
        with registry.connection() as conn:
            start.wait()
            got.append(duty.begin(conn, "compare", interval=900))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == [False] * 7 + [True]


@pytest.mark.parametrize("error", [Retryable("Stripe does not answer"), ZeroDivisionError("unforeseen")])
def test_a_duty_that_fails_stops_no_other_and_is_told_by_its_name(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    subscribed(harness)
    harness.cache.flush()

    def fail(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(harness.billing, "subscriptions", fail)
    monkeypatch.setattr(history, "prune", fail)
    with caplog.at_level(logging.INFO):
        poll.do_duties(harness.ctx)
    assert harness.cache.read(f"customer-1.{ZONE}") is not None
    assert begun(harness).keys() == DUTIES
    reported = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.partition(":")[0] for line in reported] == ["compare", "prune"]


def test_work_that_another_worker_has_taken_ends_with_a_line_in_the_log(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a broker and without: while the subscription is fetched, the event is handled elsewhere."""
    for name in ("CONTROLPLANE_REGISTRY_URL", "CONTROLPLANE_BROKER_URL"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    from controlplane.workers.runtime import tasks

    def elsewhere(*_: object, **__: object) -> Any:
        rows(harness, "UPDATE stripe_event SET state = 'ignored' RETURNING id")
        raise Retryable("Stripe does not answer")

    monkeypatch.setattr(tasks, "context", lambda: harness.ctx)
    monkeypatch.setattr(harness.billing, "subscription", elsewhere)
    with caplog.at_level(logging.WARNING):  # whatever a worker of Celery's in this process has set
        by_task = harness.hear(harness.subscribe(1))
        tasks.app.tasks[task_names.HANDLE_EVENT].run(by_task)
        harness.hear(harness.subscribe(2))
        poll.work_once(harness.ctx)
    given_up = [line for line in caplog.messages if "only one that is received" in line]
    assert [line.split(":")[0] for line in given_up] == [f"handle_event {by_task}", "handle_event"]
    assert {row["state"] for row in rows(harness, "SELECT state FROM stripe_event")} == {"ignored"}


def test_pruning_goes_on_until_nothing_old_is_left(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant_id = subscribed(harness)
    monkeypatch.setattr(duties, "PRUNE_BATCH", 7)
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "INSERT INTO operation (kind, resource_id, reason, actor, state, finished_at)"
            " SELECT 'tenant', %s, 'x', 'x', 'done', '2020-01-01' FROM generate_series(1, 50)",
            [tenant_id],
        )
    asked: list[bool] = []

    def after_two() -> bool:
        asked.append(True)
        return len(asked) > 2

    old = "SELECT FROM operation WHERE finished_at = '2020-01-01'"
    assert duties.prune(harness.ctx, after_two) == 14
    assert len(rows(harness, old)) == 36
    assert duties.prune(harness.ctx, lambda: False) == 36
    assert rows(harness, old) == []


def test_celery_and_the_polling_worker_read_the_same_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONTROLPLANE_REGISTRY_URL", "CONTROLPLANE_BROKER_URL"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    from controlplane.workers.runtime.tasks import app

    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled == {duty.task for duty in duties.DUTIES} | {task_names.SWEEP}
    assert set(app.conf.beat_schedule) == DUTIES | {"sweep"}
    assert {work.task for work in (*poll.SHORT, *poll.LONG)} == {work.task for work in duties.WORK}
    own = {name for name in app.tasks if name.startswith("controlplane.workers.")}
    assert own == scheduled | {work.task for work in duties.WORK} == set(task_names.QUEUES)
