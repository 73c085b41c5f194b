"""Faults inside a pass: who acts next is recorded, others go on, a superseded worker does no harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import ControlPlaneError, LeaseLost, NeedsHuman, Retryable
from controlplane.domain.job import (
    ATTEMPTS_UNTIL_ATTENTION,
    TERMS,
    UNEXPECTED_UNTIL_PARKED,
    Job,
    JobKind,
    Lane,
)
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.localcloud.fakes.aws import FakeAccount, encode
from controlplane.services import events
from controlplane.store import job
from controlplane.store.registry import Connection
from controlplane.workers.engine.heartbeat import Heartbeat
from controlplane.workers.providers.ports import Credential
from controlplane.workers.providers.terraform.diagnostics import Diagnostic, failure
from controlplane.workers.steps.registry import TENANT_ACTS
from tests import builders
from tests.harness.engine import Harness
from tests.harness.work import do_one, work_once

SECRET = "module.placements.aws_secretsmanager_secret.app"
CLUSTER = "module.cluster.aws_rds_cluster.this"


def _round(harness: Harness) -> None:
    work_once(harness.ctx)
    harness.pass_time()


def test_a_passing_failure_is_retried_and_leaves_no_mark(harness: Harness) -> None:
    harness.terraform.fail(SECRET, Retryable("throttled"), times=2)
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    assert harness.violations() == []
    with harness.ctx.registry.connection() as conn:
        failed = conn.execute("SELECT name, error FROM step WHERE state = 'failed'").fetchall()
    assert failed == [{"name": "apply_placements_stack", "error": "throttled"}] * 2


def test_a_lasting_failure_says_so_and_is_still_tried(harness: Harness) -> None:
    harness.terraform.fail(SECRET, Retryable("throttled"), times=ATTEMPTS_UNTIL_ATTENTION + 1)
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    for _ in range(ATTEMPTS_UNTIL_ATTENTION + 1):
        _round(harness)
    assert harness.tenant(subscription).runbook == "retrying"
    harness.work()
    assert harness.tenant(subscription).needs_attention is None
    assert harness.violations() == []


CAPACITY = "api error InsufficientDBInstanceCapacity: not available in the specified zone"
WITHDRAWN = "api error InvalidParameterCombination: Cannot find version 17.5 for aurora-postgresql"


def terraforms(text: str) -> ControlPlaneError:
    return failure("apply", 1, [Diagnostic("creating RDS Cluster", text, CLUSTER)])


@pytest.mark.parametrize(
    "text", [CAPACITY, "DependencyViolation: sg-1 has a dependent object", "RequestTimeTooSkewed"]
)
def test_a_passing_state_of_aws_leaves_no_mark(harness: Harness, text: str) -> None:
    harness.terraform.fail(CLUSTER, terraforms(text))
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    assert harness.tenant(subscription).needs_attention is None
    assert harness.violations() == []


def test_one_that_lasts_says_what_to_do_and_is_still_tried(harness: Harness) -> None:
    harness.terraform.fail(CLUSTER, terraforms(CAPACITY), times=ATTEMPTS_UNTIL_ATTENTION + 1)
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    for _ in range(ATTEMPTS_UNTIL_ATTENTION + 1):
        _round(harness)
    assert harness.tenant(subscription).runbook == "aws-capacity"
    harness.work()
    assert harness.tenant(subscription).needs_attention is None
    assert harness.violations() == []


def test_a_version_that_is_not_offered_is_a_persons_case(harness: Harness) -> None:
    harness.terraform.fail(CLUSTER, terraforms(WITHDRAWN))
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    for _ in range(3):
        _round(harness)
    assert harness.tenant(subscription).runbook == "engine-version"


def _turn_password(harness: Harness, subscription: str) -> None:
    """RDS has given the server another master password, and the secret not yet."""
    harness.databases.rotate_master(harness.endpoint(harness.placement(subscription)), "rotated")


def _turn_secret(harness: Harness, subscription: str) -> None:
    cluster_id = harness.placement(subscription).cluster_id
    rotated = encode(Credential("platform_master", "rotated"))
    FakeAccount(harness.world).change("secret", f"rds!{cluster_id}", versions={"2": rotated}, current="2")


def test_a_rotation_of_the_masters_password_is_waited_for(harness: Harness) -> None:
    first = harness.subscribe(1)
    harness.hear(first)
    harness.work()
    _turn_password(harness, first)
    second = harness.subscribe(2)
    harness.hear(second)
    for _ in range(3):
        _round(harness)
    assert harness.tenant(second).phase is not Phase.ACTIVE
    assert harness.tenant(second).needs_attention is None
    _turn_secret(harness, first)
    harness.work()
    assert harness.tenant(second).phase is Phase.ACTIVE
    assert harness.violations() == []


def test_one_that_does_not_end_is_told_of(harness: Harness) -> None:
    first = harness.subscribe(1)
    harness.hear(first)
    harness.work()
    _turn_password(harness, first)
    second = harness.subscribe(2)
    harness.hear(second)
    for _ in range(ATTEMPTS_UNTIL_ATTENTION + 2):
        _round(harness)
    assert harness.tenant(second).runbook == "master-credential"
    _turn_secret(harness, first)
    harness.work()
    assert harness.tenant(second).needs_attention is None
    assert harness.violations() == []


def test_backoff_grows_on_the_registrys_clock(harness: Harness) -> None:
    harness.terraform.fail(SECRET, Retryable("throttled"), times=5)
    harness.hear(harness.subscribe(1))
    waits = []
    for _ in range(5):
        work_once(harness.ctx)
        with harness.ctx.registry.connection() as conn:
            row = conn.execute(
                "SELECT extract(epoch FROM next_attempt_at - clock_timestamp())::float AS s"
                " FROM operation WHERE kind = 'cluster' AND state = 'waiting'"
            ).fetchone()
        assert row is not None
        waits.append(row["s"])
        harness.pass_time()
    assert 0 < waits[0] <= 2
    assert 8 < waits[4] <= 32
    assert waits == sorted(waits)


def test_what_a_person_must_decide_is_parked_and_the_others_go_on(harness: Harness) -> None:
    harness.terraform.fail(CLUSTER, NeedsHuman("40 clusters are in use", runbook="aws-quota"), times=1)
    unlucky = harness.subscribe(1, plan="dedicated")
    harness.hear(unlucky)
    work_once(harness.ctx)
    lucky = harness.subscribe(2)
    harness.hear(lucky)
    for _ in range(3):
        _round(harness)
    assert harness.tenant(lucky).phase is Phase.ACTIVE
    assert harness.tenant(unlucky).phase is Phase.PROVISIONING
    with harness.ctx.registry.connection() as conn:
        parked = conn.execute(
            "SELECT needs_attention, runbook FROM cluster WHERE runbook IS NOT NULL"
        ).fetchall()
        assert parked == [{"needs_attention": "40 clusters are in use", "runbook": "aws-quota"}]
        run(conn, "reprovision", tenant_id_for(unlucky), actor="support", reason="quota was raised")
    harness.work()
    assert harness.violations() == []


@pytest.fixture
def broken_prove(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from controlplane.domain.steps import StepName

    calls: list[int] = []

    def broken(_work: object) -> None:
        calls.append(1)
        raise ZeroDivisionError("canary-in-a-message")

    monkeypatch.setitem(TENANT_ACTS, StepName.VERIFY_ACCESS, broken)
    return calls


def test_a_bug_is_parked_after_some_tries_and_its_message_goes_nowhere(
    harness: Harness, broken_prove: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    for _ in range(UNEXPECTED_UNTIL_PARKED + 3):
        _round(harness)
    row = harness.tenant(subscription)
    assert row.runbook == "internal-error"
    assert row.needs_attention == "unexpected ZeroDivisionError"
    assert len(broken_prove) == UNEXPECTED_UNTIL_PARKED
    assert "canary-in-a-message" not in caplog.text
    with harness.ctx.registry.connection() as conn:
        log = conn.execute("SELECT string_agg(s::text, ' ') AS text FROM step s").fetchone()
    assert log is not None
    assert "canary" not in log["text"]


def test_a_step_that_does_not_take_is_not_repeated_for_ever(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from controlplane.domain.steps import StepName

    calls: list[int] = []
    monkeypatch.setitem(TENANT_ACTS, StepName.VERIFY_ACCESS, lambda _work: calls.append(1))
    harness.hear(harness.subscribe(1))
    work_once(harness.ctx)
    assert len(calls) == 3
    assert "did not take" in harness.open_work()[0]["error"]


def test_a_superseded_worker_is_refused_and_does_no_harm(harness: Harness) -> None:
    """It was stopped in the middle of a step, its lease ran out, another one finished; now it wakes up."""
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    tenant_id = tenant_id_for(subscription)
    once = threading.Event()
    stopped, go_on = threading.Event(), threading.Event()

    def stop_once(point: str) -> None:
        if point == "secrets.write:after" and not once.is_set():
            once.set()
            stopped.set()
            assert go_on.wait(120)

    slow = harness.another_worker("slow")
    harness.world._crash = stop_once
    thread = threading.Thread(target=lambda: work_once(slow))
    thread.start()
    assert stopped.wait(120)
    harness.pass_time()
    while do_one(harness.ctx) is not None or harness.pass_time() > 0:
        pass
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    newest = "SELECT max(fencing_token) AS token FROM operation WHERE resource_id = %s"
    with harness.ctx.registry.connection() as conn:
        before = conn.execute(newest, [tenant_id]).fetchone()
    go_on.set()
    thread.join(120)
    assert not thread.is_alive()
    harness.work()
    assert harness.violations() == []
    with harness.ctx.registry.connection() as conn:
        steps = conn.execute("SELECT state FROM step WHERE state = 'abandoned'").fetchall()
        after = conn.execute(newest, [tenant_id]).fetchone()
    assert len(steps) == 1
    assert before == after


def test_a_keeper_renews_and_learns_that_it_has_lost(harness: Harness) -> None:
    harness.hear(harness.subscribe(1))
    assert do_one(harness.ctx, JobKind.INTAKE) is not None
    with harness.ctx.registry.connection() as conn:
        held = job.claim(conn, Lane.QUICK, holder="one", seconds=600, kinds=[JobKind.TENANT])
        claimed = _lease_ends(conn)
    assert held is not None
    heartbeat = Heartbeat(harness.ctx.registry, "one", seconds=600, every=0.05)
    with heartbeat.holding(held) as hold, harness.ctx.registry.connection() as conn:
        _eventually(lambda: _lease_ends(conn) > claimed)
        assert _taken(conn) is None
        assert not hold.lost()
        with conn.transaction():  # or a renewal comes in between
            conn.execute("UPDATE job SET lease_until = '-infinity' WHERE kind = 'tenant'")
            taken = _taken(conn)
        assert taken is not None
        assert (taken.id, taken.orphan) == (held.id, True)
        assert taken.fencing_token > held.fencing_token
        _eventually(hold.lost)
        with pytest.raises(LeaseLost):
            hold.check()
        with pytest.raises(LeaseLost), hold.recording():
            raise AssertionError("it was let write")
    heartbeat.close()


def _taken(conn: Connection) -> Job | None:
    """By another worker that claims or takes over."""
    asked: dict[str, Any] = {"holder": "two", "seconds": 600, "kinds": [JobKind.TENANT]}
    return job.take_over(conn, Lane.QUICK, **asked) or job.claim(conn, Lane.QUICK, **asked)


def _lease_ends(conn: Connection) -> datetime:
    row = conn.execute("SELECT lease_until AS until FROM job WHERE kind = 'tenant'").fetchone()
    assert row is not None
    return cast("datetime", row["until"])


def _eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def test_an_event_that_always_fails_is_parked_and_the_others_go_on(harness: Harness) -> None:
    attempts = TERMS[JobKind.INTAKE].attempts
    assert attempts is not None
    bad = harness.hear(harness.subscribe(1))
    harness.billing.fail(*[Retryable("stripe is down") for _ in range(attempts)])
    for attempt in range(1, attempts + 1):
        assert _inbox(harness, bad)["state"] == "received"
        _round(harness)
        assert _inbox(harness, bad) == {
            "state": "parked" if attempt == attempts else "received",
            "reason": "stripe is down",
            "attempts": None if attempt == attempts else attempt,
        }
    other = harness.subscribe(2)
    harness.hear(other)
    harness.work()
    assert harness.tenant(other).phase is Phase.ACTIVE


def _inbox(harness: Harness, event_id: str) -> dict[str, Any]:
    """`attempts`: of the job that handles it; None where there is none any more."""
    with harness.ctx.registry.connection() as conn:
        [row] = conn.execute(
            "SELECT e.state, e.reason, j.attempts FROM stripe_event e"
            " LEFT JOIN job j ON j.kind = 'intake' AND j.subject = e.subject WHERE e.id = %s",
            [event_id],
        ).fetchall()
    return row


def test_nothing_of_another_accounts_event_is_fetched(harness: Harness) -> None:
    """One that came before the webhook knew them apart, or that somebody replays."""
    subscription = harness.subscribe(1)
    event_id = harness.hear(subscription)
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE stripe_event SET body = convert_to("
            "jsonb_set(convert_from(body, 'UTF8')::jsonb, '{account}', to_jsonb('acct_other'::text))::text,"
            " 'UTF8')"
        )
    harness.work()
    with harness.ctx.registry.connection() as conn:
        row = conn.execute("SELECT id, state, reason FROM stripe_event").fetchone()
        tenants_made = conn.execute("SELECT id FROM tenant").fetchall()
    assert row is not None
    assert (row["id"], row["state"]) == (event_id, "ignored")
    assert "acct_other" in row["reason"]
    assert tenants_made == []


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "customer.created"},
        {"type": "invoice.paid", "data": {"object": {"id": "in_1", "customer": "cus_1"}}},
        {"livemode": True},
        {"account": "acct_other"},
        {"data": {"object": {"id": "nonsense"}}},
    ],
)
def test_one_that_is_replayed_has_its_reason_again(harness: Harness, changes: dict[str, Any]) -> None:
    event_id = harness.receive(
        builders.event("customer.subscription.updated", builders.subscription(), id="evt_1") | changes
    )
    before = _inbox(harness, event_id)
    assert before["state"] in {"ignored", "parked"}
    with harness.ctx.registry.connection() as conn:
        events.replay(conn, event_id, actor="anna")
    harness.work()
    assert _inbox(harness, event_id) == before
