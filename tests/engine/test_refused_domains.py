"""A custom domain that a tenant does not get: it is reported, shown, and no obstacle; and it ends by
itself."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.actions.action import run
from controlplane.domain.job import ATTEMPTS_UNTIL_ATTENTION, JobKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.workers.jobs.comparison import compare
from tests.harness.engine import Harness
from tests.harness.work import do_one

DOMAIN = "notes.acme.dev"
TAKEN = f"custom domain {DOMAIN} belongs to another tenant"


def bill(harness: Harness, number: int, *domains: str, **fields: Any) -> str:
    metadata = {"custom_domains": ",".join(domains)} if domains else {}
    subscription = harness.subscribe(number, metadata=metadata, **fields)
    harness.hear(subscription)
    harness.work()
    return subscription


def attention(harness: Harness, subscription: str) -> tuple[str | None, str | None]:
    row = harness.tenant(subscription)
    return row.needs_attention, row.runbook


def reported(harness: Harness, subscription: str) -> list[tuple[str, str]]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT payload FROM notification WHERE kind = 'needs_attention' AND tenant_id = %s ORDER BY seq",
            [tenant_id_for(subscription)],
        ).fetchall()
    return [(row["payload"]["data"]["runbook"], row["payload"]["data"]["reason"]) for row in rows]


@pytest.fixture
def refused(harness: Harness) -> str:
    """The subscription of a tenant that wants what another has."""
    bill(harness, 1, DOMAIN)
    return bill(harness, 2, DOMAIN)


def test_it_is_told_and_does_not_hold_the_tenant_up(harness: Harness, refused: str) -> None:
    assert harness.tenant(refused).phase is Phase.ACTIVE
    assert attention(harness, refused) == (TAKEN, "hostname-conflict")
    assert reported(harness, refused) == [("hostname-conflict", TAKEN)]
    with harness.ctx.registry.connection() as conn:
        row = conn.execute("SELECT outcome, reason FROM contract WHERE id = %s", [refused]).fetchone()
    assert row == {"outcome": "applied", "reason": TAKEN}


def test_it_stays_over_every_look_and_is_told_once(harness: Harness, refused: str) -> None:
    harness.hear(refused)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", tenant_id_for(refused), actor="test", reason="look")
    harness.work()
    assert compare(harness.ctx).out_of_step == 0
    assert attention(harness, refused) == (TAKEN, "hostname-conflict")
    assert len(reported(harness, refused)) == 1


def test_it_covers_nothing_else_up_and_comes_back_after_it(harness: Harness, refused: str) -> None:
    harness.cache.down()
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", tenant_id_for(refused), actor="test", reason="look")
    for _ in range(ATTEMPTS_UNTIL_ATTENTION + 2):
        do_one(harness.ctx, JobKind.TENANT, tenant_id_for(refused))
        harness.pass_time()
    assert attention(harness, refused)[1] == "retrying"
    harness.hear(refused)
    harness.cache.down(down=False)
    harness.work()
    assert attention(harness, refused) == (TAKEN, "hostname-conflict")
    assert [runbook for runbook, _ in reported(harness, refused)] == ["hostname-conflict", "retrying"]


def test_it_ends_when_the_wish_is_gone(harness: Harness, refused: str) -> None:
    bill(harness, 2)
    assert attention(harness, refused) == (None, None)
    assert harness.tenant(refused).refused_domains == ()
    assert harness.violations() == []


def test_it_ends_when_the_tenant_is_closed(harness: Harness, refused: str) -> None:
    bill(harness, 2, DOMAIN, status="canceled")
    assert attention(harness, refused) == (None, None)
    assert compare(harness.ctx).out_of_step == 0


def test_the_comparison_gives_it_the_domain_once_that_is_free(harness: Harness, refused: str) -> None:
    bill(harness, 1)
    assert attention(harness, refused) == (TAKEN, "hostname-conflict"), "nobody has repeated it yet"
    assert compare(harness.ctx).out_of_step == 1
    harness.work()
    assert harness.tenant(refused).spec.custom_domains == (DOMAIN,)
    assert attention(harness, refused) == (None, None)
    assert compare(harness.ctx).out_of_step == 0


def test_beyond_the_plan_and_malformed(harness: Harness) -> None:
    subscription = bill(harness, 1, DOMAIN, "two.acme.dev", "http://acme.dev/")
    assert harness.tenant(subscription).spec.custom_domains == (DOMAIN,)
    malformed, beyond = harness.tenant(subscription).refused_domains
    assert malformed.host == "http://acme.dev/"
    assert "expected a host name alone" in malformed.reason
    assert (beyond.host, beyond.reason) == ("two.acme.dev", "is one too many: plan shared allows 1")
    reason, runbook = attention(harness, subscription)
    assert runbook == "hostname-conflict"
    assert reason is not None
    assert "two.acme.dev is one too many" in reason
    assert compare(harness.ctx).out_of_step == 0
    bill(harness, 1, DOMAIN, "two.acme.dev", plan="dedicated")
    harness.work()
    assert harness.tenant(subscription).spec.custom_domains == (DOMAIN, "two.acme.dev")
    assert attention(harness, subscription)[1] != "hostname-conflict"


def test_a_tenant_of_before_this_was_recorded_is_found_by_the_comparison(
    harness: Harness, refused: str
) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET refused_domains = '[]', needs_attention = NULL, runbook = NULL")
    assert compare(harness.ctx).out_of_step == 1
    assert attention(harness, refused) == (TAKEN, "hostname-conflict")
