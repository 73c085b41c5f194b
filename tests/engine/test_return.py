"""Who left and pays again: Stripe gives a new subscription, and no rows are deleted meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controlplane.domain.errors import Conflict, Invalid, NotFound, Retryable
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.services import clones, purges, tenants
from controlplane.store import purge
from tests.engine.house import House
from tests.engine.test_leave import SUBSCRIPTION, TENANT, approve, ask, copy_time_ends, paid, retention_ends
from workers.jobs.comparison import compare
from workers.jobs.intake import handle_event
from workers.runtime import polling

RUNBOOK = "customer-pays-again"
RETURNED = 2
"""The number of the subscription that customer 1 comes back with."""


def left(house: House, *, plan: str = "shared") -> str:
    """Customer 1 wrote a row and has left; its subscription."""
    subscription = paid(house, plan=plan)
    assert house.write(1, "precious")
    house.subscribe(1, plan=plan, status="canceled")
    house.hear(subscription, "customer.subscription.deleted")
    house.work()
    return subscription


def pays_again(house: House, *, status: str = "active", heard: bool = True, **fields: object) -> str:
    subscription = house.subscribe(RETURNED, customer=1, status=status, **fields)  # type: ignore[arg-type]
    if heard:
        house.hear(subscription)
        house.work()
    return subscription


def ends(house: House) -> None:
    house.subscribe(RETURNED, customer=1, status="canceled")
    house.hear(f"sub_{RETURNED:08d}", "customer.subscription.deleted")
    house.work()


def by_policy(house: House) -> None:
    plans = dict(house.ctx.catalogue.plans)
    plans["shared"] = replace(plans["shared"], purge_without_approval=True)
    house.ctx = replace(house.ctx, catalogue=replace(house.ctx.catalogue, plans=plans))


def look(house: House) -> None:
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp() WHERE closed_at IS NOT NULL")
    house.work()


def told(house: House) -> list[str]:
    with house.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT payload FROM notice WHERE tenant_id = %s AND kind = 'needs_attention' ORDER BY seq",
            [TENANT],
        ).fetchall()
    return [row["payload"]["data"]["runbook"] for row in rows]


def kept(house: House) -> None:
    """Closed, whole, and a person knows why."""
    row = house.tenant(SUBSCRIPTION)
    assert row.phase is Phase.CLOSED
    assert house.rows(SUBSCRIPTION) == ["precious"]
    assert row.runbook == RUNBOOK
    assert "cus_00000001" in str(row.needs_attention)
    assert "sub_00000002" in str(row.needs_attention)


def test_stripe_has_no_way_back_for_a_subscription_that_has_ended(house: House) -> None:
    left(house)
    with pytest.raises(Invalid, match="sub_00000001: status: expected canceled"):
        house.subscribe(1)
    house.subscribe(3, status="incomplete")
    house.subscribe(3, status="incomplete_expired")
    for status in ("incomplete", "active", "canceled"):
        with pytest.raises(Invalid):
            house.subscribe(3, status=status)


def test_who_pays_again_gets_a_new_tenant_and_the_old_one_is_kept_and_told_of(house: House) -> None:
    left(house)
    new = pays_again(house)
    assert house.tenant(new).phase is Phase.ACTIVE
    assert house.rows(new) == []
    kept(house)
    assert told(house) == [RUNBOOK]


@pytest.mark.parametrize("status", ["trialing", "active", "past_due", "unpaid", "paused", "incomplete"])
def test_any_status_but_an_end_counts(house: House, status: str) -> None:
    left(house)
    pays_again(house, status=status)
    kept(house)
    assert status in str(house.tenant(SUBSCRIPTION).needs_attention)
    with pytest.raises(Conflict, match="sub_00000002"):
        ask(house, early=True)


def test_a_subscription_to_a_price_that_nobody_knows_counts(house: House) -> None:
    left(house)
    pays_again(house, plan="nobody-knows")
    kept(house)


def test_a_subscription_that_never_became_one_does_not_count(house: House) -> None:
    left(house)
    pays_again(house, status="incomplete_expired")
    assert house.tenant(SUBSCRIPTION).needs_attention is None
    assert ask(house, early=True)


def test_it_is_refused_to_who_asks_and_who_approves(house: House) -> None:
    left(house)
    asked = ask(house, early=True)
    pays_again(house)
    with pytest.raises(Conflict, match=r"sub_00000002 \(active\).*runbook customer-pays-again"):
        approve(house, asked.digest)
    with pytest.raises(Conflict, match=r"sub_00000002 \(active\).*runbook customer-pays-again"):
        ask(house, early=True)
    with house.ctx.registry.connection() as conn:
        assert "sub_00000002" in str(purges.show(conn, TENANT).kept_for)
    kept(house)


def test_an_approval_does_not_outlive_the_return(house: House) -> None:
    """Two persons' word from before the customer came back deletes nothing after it has gone again."""
    left(house)
    approve(house, ask(house, early=True).digest)
    pays_again(house)
    kept(house)
    ends(house)
    row = house.tenant(SUBSCRIPTION)
    assert (row.phase, row.needs_attention) == (Phase.CLOSED, None)
    with house.ctx.registry.connection() as conn:
        assert purge.of_tenant(conn, TENANT) is None
    with pytest.raises(NotFound):
        approve(house, "0" * 64)
    approve(house, ask(house, early=True).digest)
    house.work()
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED


def test_a_plan_that_asks_nobody_waits_for_the_customer_too(house: House) -> None:
    by_policy(house)
    left(house)
    pays_again(house)
    retention_ends(house)
    house.work()
    kept(house)
    look(house)
    kept(house)
    assert told(house) == [RUNBOOK]
    ends(house)
    retention_ends(house)
    house.work()
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED


def test_no_later_look_writes_over_it_and_the_end_of_the_subscription_ends_it(house: House) -> None:
    left(house)
    pays_again(house)
    retention_ends(house)
    house.work()
    kept(house)
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, TENANT, actor="support", reason="look")
    house.world._crash = _secrets_away
    for _ in range(10):
        house.pass_time()
        polling.work_once(house.ctx)
    kept(house)
    house.world._crash = lambda _point: None
    house.work()
    kept(house)
    ends(house)
    assert house.tenant(SUBSCRIPTION).runbook == "purge-due"
    assert told(house) == [RUNBOOK, "purge-due"]


def _secrets_away(point: str) -> None:
    if point == "secrets.describe:before":
        raise Retryable("Secrets Manager is away")


def test_the_upgrade_by_a_new_subscription_keeps_the_old_data(house: House) -> None:
    """The new one comes first and the old one is canceled after it."""
    paid(house)
    assert house.write(1, "precious")
    pays_again(house)
    house.subscribe(1, status="canceled")
    house.hear(SUBSCRIPTION, "customer.subscription.deleted")
    house.work()
    kept(house)


@pytest.mark.parametrize("plan", ["shared", "dedicated"])
def test_a_return_that_no_webhook_told_of_is_asked_for_before_anything_is_deleted(
    house: House, plan: str
) -> None:
    left(house, plan=plan)
    approve(house, ask(house, early=True).digest)
    new = pays_again(house, heard=False)
    house.work()
    kept(house)
    assert house.tenant(new).phase is Phase.ACTIVE
    assert _deleting_steps(house) == []
    assert {*house.world.all("dump"), *house.world.all("aws-snapshot")} == set()
    compare(house.ctx)
    house.work()
    kept(house)


def test_a_policy_does_not_try_again_and_again_while_a_webhook_is_lost(house: House) -> None:
    by_policy(house)
    left(house)
    retention_ends(house)
    pays_again(house, heard=False)
    house.work()
    kept(house)
    with house.ctx.registry.connection() as conn:
        assert conn.execute("SELECT count(*) AS n FROM purge").fetchone() == {"n": 1}


def test_nothing_is_deleted_while_the_billing_system_is_silent(house: House) -> None:
    left(house)
    approve(house, ask(house, early=True).digest)
    asked: list[str] = []

    def silent(point: str) -> None:
        if point == "billing.subscriptions_of:before":
            asked.append(point)
            raise Retryable("Stripe can't be reached")

    house.world._crash = silent
    for _ in range(6):
        house.pass_time()
        polling.work_once(house.ctx)
    assert len(asked) > 1
    assert house.rows(SUBSCRIPTION) == ["precious"]
    assert house.tenant(SUBSCRIPTION).phase is not Phase.PURGED
    house.world._crash = lambda _point: None
    house.work()
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED


@pytest.mark.parametrize("question", [1, 2])
def test_a_return_between_the_question_and_the_act_is_seen_under_the_lock(
    house: House, question: int
) -> None:
    """The first question is asked before the copy, the second before the deletion."""
    left(house)
    approve(house, ask(house, early=True).digest)
    asked: list[str] = []
    came: list[str] = []

    def comes_back(point: str) -> None:
        if point != "billing.subscriptions_of:after":
            return
        asked.append(point)
        if len(asked) == question:
            came.append(pays_again(house, heard=False))
            assert handle_event(house.ctx, house.hear(came[0])) == "applied"

    house.world._crash = comes_back
    house.work()
    assert came
    kept(house)
    assert bool(house.world.all("dump")) is (question == 2)


def test_a_customer_who_leaves_for_good_is_purged_though_others_pay(house: House) -> None:
    left(house)
    house.hear(house.subscribe(7))
    house.work()
    approve(house, ask(house, early=True).digest)
    house.work()
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED
    assert house.violations() == []


def test_a_clone_goes_whatever_its_sources_customer_pays(house: House) -> None:
    paid(house)
    with house.ctx.registry.connection() as conn:
        clone_id, _ = clones.request(conn, TENANT, slug="copy-of-it", actor="anna", reason="a bug")
    house.work()
    with house.ctx.registry.connection() as conn:
        clones.close(conn, clone_id, actor="anna", reason="done")
    house.work()
    with house.ctx.registry.connection() as conn:
        asked = purges.request(conn, clone_id, actor="anna", reason="done", early=True)
        purges.approve(conn, clone_id, actor="bert", digest=asked.digest)
    house.work()
    with house.ctx.registry.connection() as conn:
        assert tenants.show(conn, clone_id).tenant.phase is Phase.PURGED
    assert house.tenant(SUBSCRIPTION).phase is Phase.ACTIVE


def test_who_comes_back_after_the_purge_begins_anew(house: House) -> None:
    left(house)
    approve(house, ask(house, early=True).digest)
    house.work()
    old = house.last_placement(SUBSCRIPTION)
    new = pays_again(house)
    row = house.tenant(new)
    assert row.id == tenant_id_for(new)
    assert (row.phase, row.slug != "customer-1") == (Phase.ACTIVE, True)
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED
    assert house.tenant(SUBSCRIPTION).needs_attention is None
    assert old.database not in json.dumps(house.cache.read(f"{row.slug}.tenants.example.net").payload)  # type: ignore[union-attr]
    copy_time_ends(house)
    house.work()
    assert house.violations() == []


def _deleting_steps(house: House) -> list[str]:
    with house.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT name FROM step WHERE state = 'done' AND name IN ('drop_database',"
            " 'destroy_tenant_stack', 'release_placement', 'destroy_cluster_stack')"
        ).fetchall()
    return [row["name"] for row in rows]
