"""Events that are late, lost, answered to nobody, or about a Stripe that does not answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from controlplane.cli.simulate import command
from controlplane.domain.errors import Retryable
from controlplane.domain.job import JobKind, Lane
from controlplane.domain.tenant import Phase
from controlplane.store.registry import Registry
from controlplane.workers.runtime.polling import Slot
from tests.faults.storm import broken, out_of_step
from tests.harness.engine import Harness
from tests.harness.work import do_one, is_due
from tests.web.site import Site, event

WITHIN = 120.0


class Dying(Site):
    """Ends where it would notify, after the commit and before the answer."""

    def _publish(self, lane: Lane) -> None:
        raise KeyboardInterrupt


@pytest.mark.fault(2, 4, 15)
def test_shuffled_late_and_lost_events_end_where_stripe_says(empty_database_url: str) -> None:
    done = CliRunner().invoke(
        command,
        f"--tenants 12 --events 80 --seed 20261124 --shuffle 60 --late 0.3 --drop 0.1 --crash 0 --json"
        f" --registry {empty_database_url}",
    )
    reported = json.loads(done.stdout)
    assert reported["differences"] == []
    assert reported["late"] > 10
    assert reported["dropped"] > 2


@pytest.mark.fault(14)
def test_a_web_process_that_dies_before_its_answer_has_stored_the_event_once(registry: Registry) -> None:
    """Stripe got no answer, so it delivers again; the wake-up was lost as well."""
    body = event("evt_cut")
    dying = Dying(registry)
    with pytest.raises(KeyboardInterrupt):
        dying.deliver(body)
    stored = dying.rows("SELECT id, state FROM stripe_event")
    assert stored == [{"id": "evt_cut", "state": "received"}]
    again = Site(registry)
    answer = again.deliver(body)
    assert answer.get_json() == {"event": "evt_cut", "new": False}
    assert len(again.rows("SELECT id FROM stripe_event")) == 1


@pytest.mark.fault(16)
@pytest.mark.parametrize("failures", [1, 3])
def test_stripe_that_does_not_answer_defers_and_nothing_is_guessed(harness: Harness, failures: int) -> None:
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    harness.billing.fail(*[Retryable("Stripe: 429", after=30) for _ in range(failures)])
    for attempt in range(failures):
        assert do_one(harness.ctx, JobKind.INTAKE) is not None
        with harness.ctx.registry.connection() as conn:
            (row,) = conn.execute(
                "SELECT e.state, e.reason, j.attempts, (SELECT count(*) FROM tenant) AS tenants,"
                " j.due_at > clock_timestamp() + interval '15 seconds' AS later"
                " FROM stripe_event e JOIN job j ON j.kind = 'intake' AND j.subject = e.subject"
            ).fetchall()
        deferred = {"state": "received", "reason": "Stripe: 429", "attempts": attempt + 1}
        assert row == deferred | {"tenants": 0, "later": True}
        assert do_one(harness.ctx, JobKind.INTAKE) is None
        harness.pass_time()
    harness.work()
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    assert out_of_step(harness) == []
    assert broken(harness) == []


@pytest.mark.fault(14)
def test_an_event_whose_wake_up_was_lost_is_found_by_looking(harness: Harness) -> None:
    """A worker that has nothing to do and that nobody tells of anything."""

    def idle() -> bool:
        with harness.ctx.registry.connection() as conn:
            there = conn.execute("SELECT state FROM job").fetchall()
            running = [row for row in there if row["state"] == "running"]
            return bool(there) and not running and not is_due(harness.ctx, Lane.QUICK)

    def applied() -> bool:
        with harness.ctx.registry.connection() as conn:
            return conn.execute("SELECT state FROM stripe_event").fetchall() == [{"state": "applied"}]

    stop = threading.Event()
    looking = threading.Thread(target=Slot(lambda: harness.ctx, [Lane.QUICK], stop).poll)
    looking.start()
    try:
        _until(idle)
        harness.hear(harness.subscribe(1))
        _until(applied)
    finally:
        stop.set()
        looking.join(WITHIN)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
