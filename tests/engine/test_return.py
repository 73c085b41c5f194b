"""Who left and pays again: Stripe gives a new subscription, and it is for the tenant that the customer had.

As long as its first payment is open, or nobody can tell what it is for, the tenant stays closed and no rows
are deleted.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import Conflict, Invalid, NotFound, Retryable
from controlplane.domain.job import JobKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.localcloud.fakes.billing import SUBSCRIPTION as SUBSCRIPTIONS
from controlplane.services import purges, tenants
from controlplane.store import event, purge
from controlplane.workers.jobs.comparison import compare
from tests.engine.test_purge import SUBSCRIPTION, TENANT, approve, ask, copy_time_ends, paid, retention_ends
from tests.harness.engine import Harness
from tests.harness.work import do_one, work_once

RUNBOOK = "customer-pays-again"
RETURNED = 2
"""The number of the subscription that customer 1 comes back with."""


def left(harness: Harness, *, plan: str = "shared") -> str:
    """Customer 1 wrote a row and has left; its subscription."""
    subscription = paid(harness, plan=plan)
    assert harness.write(1, "precious")
    harness.subscribe(1, plan=plan, status="canceled")
    harness.hear(subscription, "customer.subscription.deleted")
    harness.work()
    return subscription


def pays_again(harness: Harness, *, status: str = "active", heard: bool = True, **fields: object) -> str:
    subscription = harness.subscribe(RETURNED, customer=1, status=status, **fields)  # type: ignore[arg-type]
    if heard:
        harness.hear(subscription)
        harness.work()
    return subscription


def ends(harness: Harness) -> None:
    known = harness.world.get(SUBSCRIPTIONS, f"sub_{RETURNED:08d}")
    over = "incomplete_expired" if known["status"] == "incomplete" else "canceled"
    harness.subscribe(RETURNED, customer=1, status=over)
    harness.hear(f"sub_{RETURNED:08d}", "customer.subscription.deleted")
    harness.work()


def by_policy(harness: Harness) -> None:
    plans = dict(harness.ctx.catalogue.plans)
    plans["shared"] = replace(plans["shared"], purge_without_approval=True)
    harness.ctx = replace(harness.ctx, catalogue=replace(harness.ctx.catalogue, plans=plans))


def look(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp() WHERE closed_at IS NOT NULL")
    harness.work()


def reported(harness: Harness) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT payload FROM notification WHERE tenant_id = %s AND kind = 'needs_attention' ORDER BY seq",
            [TENANT],
        ).fetchall()
    return [row["payload"]["data"]["runbook"] for row in rows]


def back(harness: Harness, new: str) -> None:
    """The same tenant, with its rows, its name and its host, and nobody need look at it."""
    row = harness.tenant(new)
    assert (row.id, row.phase) == (TENANT, Phase.ACTIVE)
    assert (row.slug, row.closed_at, row.needs_attention) == ("customer-1", None, None)
    assert harness.rows(new) == ["precious"]
    assert harness.write(1, "new")
    with harness.ctx.registry.connection() as conn:
        assert conn.execute("SELECT count(*) AS n FROM tenant").fetchone() == {"n": 1}
    assert harness.violations() == []


def opened(harness: Harness, **fields: object) -> str:
    """Customer 1 has begun to buy again, and the first payment is still open."""
    return pays_again(harness, status="incomplete", **fields)


def kept(harness: Harness) -> None:
    """Closed, whole, and a person knows why."""
    row = harness.tenant(SUBSCRIPTION)
    assert row.phase is Phase.CLOSED
    assert harness.rows(SUBSCRIPTION) == ["precious"]
    assert row.runbook == RUNBOOK
    assert "cus_00000001" in str(row.needs_attention)
    assert "sub_00000002" in str(row.needs_attention)


def test_stripe_has_no_way_back_for_a_subscription_that_has_ended(harness: Harness) -> None:
    left(harness)
    with pytest.raises(Invalid, match="sub_00000001: status: expected canceled"):
        harness.subscribe(1)
    harness.subscribe(3, status="incomplete")
    harness.subscribe(3, status="incomplete_expired")
    for status in ("incomplete", "active", "canceled"):
        with pytest.raises(Invalid):
            harness.subscribe(3, status=status)


def test_who_pays_again_finds_its_rows_its_name_and_its_host(harness: Harness) -> None:
    left(harness)
    back(harness, pays_again(harness))
    assert reported(harness) == []


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("trialing", Phase.ACTIVE),
        ("past_due", Phase.SUSPENDED),  # of an old debt
        ("unpaid", Phase.SUSPENDED),
        ("paused", Phase.SUSPENDED),
    ],
)
def test_whatever_may_be_paid_is_for_the_old_tenant(harness: Harness, status: str, phase: Phase) -> None:
    left(harness)
    new = pays_again(harness, status=status)
    row = harness.tenant(new)
    assert (row.id, row.phase, row.closed_at) == (TENANT, phase, None)
    assert harness.rows(new) == ["precious"]


def test_an_open_first_payment_keeps_the_rows_and_opens_nothing(harness: Harness) -> None:
    left(harness)
    new = opened(harness)
    kept(harness)
    assert reported(harness) == [RUNBOOK]
    assert "incomplete" in str(harness.tenant(SUBSCRIPTION).needs_attention)
    with pytest.raises(Conflict, match="sub_00000002"):
        ask(harness, early=True)
    back(harness, pays_again(harness))
    assert new == f"sub_{RETURNED:08d}"


def test_a_subscription_to_a_price_that_nobody_knows_counts(harness: Harness) -> None:
    left(harness)
    pays_again(harness, plan="nobody-knows")
    kept(harness)


def test_a_subscription_that_never_became_one_does_not_count(harness: Harness) -> None:
    left(harness)
    pays_again(harness, status="incomplete_expired")
    assert harness.tenant(SUBSCRIPTION).needs_attention is None
    assert ask(harness, early=True)


def test_it_is_refused_to_who_asks_and_who_approves(harness: Harness) -> None:
    left(harness)
    asked = ask(harness, early=True)
    opened(harness)
    with pytest.raises(Conflict, match=r"sub_00000002 \(incomplete\).*runbook customer-pays-again"):
        approve(harness, asked.digest)
    with pytest.raises(Conflict, match=r"sub_00000002 \(incomplete\).*runbook customer-pays-again"):
        ask(harness, early=True)
    with harness.ctx.registry.connection() as conn:
        assert "sub_00000002" in str(purges.show(conn, TENANT).kept_for)
    kept(harness)


def test_an_approval_does_not_outlive_the_return(harness: Harness) -> None:
    """Two persons' word from before the customer came back deletes nothing after it has gone again."""
    left(harness)
    approve(harness, ask(harness, early=True).digest)
    back(harness, pays_again(harness))
    ends(harness)
    row = harness.tenant(SUBSCRIPTION)
    assert (row.phase, row.needs_attention) == (Phase.CLOSED, None)
    with harness.ctx.registry.connection() as conn:
        assert purge.of_tenant(conn, TENANT) is None
    with pytest.raises(NotFound):
        approve(harness, "0" * 64)
    approve(harness, ask(harness, early=True).digest)
    harness.work()
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED


def test_a_plan_that_asks_nobody_waits_for_the_customer_too(harness: Harness) -> None:
    by_policy(harness)
    left(harness)
    opened(harness)
    retention_ends(harness)
    harness.work()
    kept(harness)
    look(harness)
    kept(harness)
    assert reported(harness) == [RUNBOOK]
    ends(harness)
    retention_ends(harness)
    harness.work()
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED


def test_no_later_look_writes_over_it_and_the_end_of_the_subscription_ends_it(harness: Harness) -> None:
    left(harness)
    opened(harness)
    retention_ends(harness)
    harness.work()
    kept(harness)
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", TENANT, actor="support", reason="look")
    harness.world._crash = _secrets_away
    for _ in range(10):
        harness.pass_time()
        work_once(harness.ctx)
    kept(harness)
    harness.world._crash = lambda _point: None
    harness.work()
    kept(harness)
    ends(harness)
    assert harness.tenant(SUBSCRIPTION).runbook == "purge-due"
    assert reported(harness) == [RUNBOOK, "purge-due"]


def _secrets_away(point: str) -> None:
    if point == "secrets.describe:before":
        raise Retryable("Secrets Manager is away")


def test_the_upgrade_by_a_new_subscription_keeps_the_rows(harness: Harness) -> None:
    """The new one comes first and the old one is canceled after it."""
    paid(harness)
    assert harness.write(1, "precious")
    new = pays_again(harness)
    assert "sub_00000001, sub_00000002" in paid_twice(harness)
    harness.subscribe(1, status="canceled")
    harness.hear(SUBSCRIPTION, "customer.subscription.deleted")
    harness.work()
    back(harness, new)


def paid_twice(harness: Harness) -> str:
    with harness.ctx.registry.connection() as conn:
        [row] = conn.execute("SELECT payload FROM notification WHERE kind = 'needs_attention'").fetchall()
    assert row["payload"]["data"]["runbook"] == "paid-twice"
    return str(row["payload"]["data"]["reason"])


@pytest.mark.parametrize("plan", ["shared", "dedicated"])
def test_a_return_that_no_webhook_told_of_is_asked_for_before_anything_is_deleted(
    harness: Harness, plan: str
) -> None:
    left(harness, plan=plan)
    approve(harness, ask(harness, early=True).digest)
    new = pays_again(harness, heard=False, plan=plan)
    harness.work()
    back(harness, new)
    assert _deleting_steps(harness) == []
    assert {*harness.world.all("dump"), *harness.world.all("aws-snapshot")} == set()
    assert compare(harness.ctx).out_of_step == 0


def test_a_policy_does_not_try_again_and_again_while_a_webhook_is_lost(harness: Harness) -> None:
    by_policy(harness)
    left(harness)
    retention_ends(harness)
    opened(harness, heard=False)
    harness.work()
    kept(harness)
    with harness.ctx.registry.connection() as conn:
        assert conn.execute("SELECT count(*) AS n FROM purge").fetchone() == {"n": 1}


def test_nothing_is_deleted_while_the_billing_system_is_silent(harness: Harness) -> None:
    left(harness)
    approve(harness, ask(harness, early=True).digest)
    asked: list[str] = []

    def silent(point: str) -> None:
        if point == "billing.subscriptions_of:before":
            asked.append(point)
            raise Retryable("Stripe can't be reached")

    harness.world._crash = silent
    for _ in range(6):
        harness.pass_time()
        work_once(harness.ctx)
    assert len(asked) > 1
    assert harness.rows(SUBSCRIPTION) == ["precious"]
    assert harness.tenant(SUBSCRIPTION).phase is not Phase.PURGED
    harness.world._crash = lambda _point: None
    harness.work()
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED


@pytest.mark.parametrize("question", [1, 2])
def test_a_return_between_the_question_and_the_act_is_seen_under_the_lock(
    harness: Harness, question: int
) -> None:
    """The first question is asked before the copy, the second before the deletion."""
    left(harness)
    approve(harness, ask(harness, early=True).digest)
    asked: list[str] = []
    came: list[str] = []

    def comes_back(point: str) -> None:
        if point != "billing.subscriptions_of:after":
            return
        asked.append(point)
        if len(asked) == question:
            came.append(pays_again(harness, heard=False))
            heard = harness.hear(came[0])
            do_one(harness.ctx, JobKind.INTAKE, "cus_00000001")
            with harness.ctx.registry.connection() as conn:
                assert event.get(conn, heard).state == "applied"

    harness.world._crash = comes_back
    harness.work()
    assert came
    back(harness, came[0])
    assert bool(harness.world.all("dump")) is (question == 2)


def test_a_customer_who_leaves_for_good_is_purged_though_others_pay(harness: Harness) -> None:
    left(harness)
    harness.hear(harness.subscribe(7))
    harness.work()
    approve(harness, ask(harness, early=True).digest)
    harness.work()
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED
    assert harness.violations() == []


def test_a_clone_goes_whatever_its_sources_customer_pays(harness: Harness) -> None:
    paid(harness)
    with harness.ctx.registry.connection() as conn:
        clone_id = run(conn, "clone", TENANT, slug="copy-of-it", actor="anna", reason="a bug").made
    harness.work()
    with harness.ctx.registry.connection() as conn:
        run(conn, "close", clone_id, actor="anna", reason="done")
    harness.work()
    with harness.ctx.registry.connection() as conn:
        asked = run(conn, "purge", clone_id, actor="anna", reason="done", early=True).purge
        run(conn, "approve-purge", clone_id, actor="bert", reason="looked at", digest=asked.digest)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        assert tenants.show(conn, clone_id).tenant.phase is Phase.PURGED
    assert harness.tenant(SUBSCRIPTION).phase is Phase.ACTIVE


def test_who_comes_back_after_the_purge_begins_anew(harness: Harness) -> None:
    left(harness)
    approve(harness, ask(harness, early=True).digest)
    harness.work()
    old = harness.last_placement(SUBSCRIPTION)
    new = pays_again(harness)
    row = harness.tenant(new)
    assert row.id == tenant_id_for(new)
    assert (row.phase, row.slug != "customer-1") == (Phase.ACTIVE, True)
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED
    assert harness.tenant(SUBSCRIPTION).needs_attention is None
    assert old.database not in json.dumps(harness.cache.read(f"{row.slug}.tenants.example.net").payload)  # type: ignore[union-attr]
    copy_time_ends(harness)
    harness.work()
    assert harness.violations() == []


def _deleting_steps(harness: Harness) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT name FROM step WHERE state = 'done' AND name IN ('drop_database',"
            " 'release_placement', 'destroy_placements_stack', 'destroy_cluster_stack')"
        ).fetchall()
    return [row["name"] for row in rows]
