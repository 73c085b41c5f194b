"""A custom domain that a tenant does not get: it is told, shown, and no obstacle; and it ends by itself."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.operation import ATTEMPTS_UNTIL_ATTENTION, ResourceKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.services import tenants
from controlplane.store import subscription as subscriptions
from tests.engine.house import House
from workers.engine.converge import converge
from workers.jobs.comparison import compare

DOMAIN = "notes.acme.dev"
TAKEN = f"custom domain {DOMAIN} belongs to another tenant"


def bill(house: House, number: int, *domains: str, **fields: Any) -> str:
    metadata = {"custom_domains": ",".join(domains)} if domains else {}
    subscription = house.subscribe(number, metadata=metadata, **fields)
    house.hear(subscription)
    house.work()
    return subscription


def attention(house: House, subscription: str) -> tuple[str | None, str | None]:
    row = house.tenant(subscription)
    return row.needs_attention, row.runbook


def told(house: House, subscription: str) -> list[tuple[str, str]]:
    with house.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT payload FROM notice WHERE kind = 'needs_attention' AND tenant_id = %s ORDER BY seq",
            [tenant_id_for(subscription)],
        ).fetchall()
    return [(row["payload"]["data"]["runbook"], row["payload"]["data"]["reason"]) for row in rows]


@pytest.fixture
def refused(house: House) -> str:
    """The subscription of a tenant that wants what another has."""
    bill(house, 1, DOMAIN)
    return bill(house, 2, DOMAIN)


def test_it_is_told_and_does_not_hold_the_tenant_up(house: House, refused: str) -> None:
    assert house.tenant(refused).phase is Phase.ACTIVE
    assert attention(house, refused) == (TAKEN, "hostname-conflict")
    assert told(house, refused) == [("hostname-conflict", TAKEN)]
    with house.ctx.registry.connection() as conn:
        row = subscriptions.find_for_tenant(conn, tenant_id_for(refused))
    assert row is not None
    assert (row.outcome, row.reason) == ("applied", TAKEN)


def test_it_stays_over_every_look_and_is_told_once(house: House, refused: str) -> None:
    house.hear(refused)
    house.work()
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, tenant_id_for(refused), actor="test", reason="look")
    house.work()
    assert compare(house.ctx).out_of_step == 0
    assert attention(house, refused) == (TAKEN, "hostname-conflict")
    assert len(told(house, refused)) == 1


def test_it_covers_nothing_else_up_and_comes_back_after_it(house: House, refused: str) -> None:
    house.cache.down()
    with house.ctx.registry.connection() as conn:
        tenants.reprovision(conn, tenant_id_for(refused), actor="test", reason="look")
    for _ in range(ATTEMPTS_UNTIL_ATTENTION + 2):
        converge(house.ctx, ResourceKind.TENANT, tenant_id_for(refused))
        house.pass_time()
    assert attention(house, refused)[1] == "retrying"
    house.hear(refused)
    house.cache.down(down=False)
    house.work()
    assert attention(house, refused) == (TAKEN, "hostname-conflict")
    assert [runbook for runbook, _ in told(house, refused)] == ["hostname-conflict", "retrying"]


def test_it_ends_when_the_wish_is_gone(house: House, refused: str) -> None:
    bill(house, 2)
    assert attention(house, refused) == (None, None)
    assert house.tenant(refused).refused_domains == ()
    assert house.violations() == []


def test_it_ends_when_the_tenant_is_closed(house: House, refused: str) -> None:
    bill(house, 2, DOMAIN, status="canceled")
    assert attention(house, refused) == (None, None)
    assert compare(house.ctx).out_of_step == 0


def test_the_comparison_gives_it_the_domain_once_that_is_free(house: House, refused: str) -> None:
    bill(house, 1)
    assert attention(house, refused) == (TAKEN, "hostname-conflict"), "nobody has told it yet"
    assert compare(house.ctx).out_of_step == 1
    house.work()
    assert house.tenant(refused).desired.custom_domains == (DOMAIN,)
    assert attention(house, refused) == (None, None)
    assert compare(house.ctx).out_of_step == 0


def test_beyond_the_plan_and_malformed(house: House) -> None:
    subscription = bill(house, 1, DOMAIN, "two.acme.dev", "http://acme.dev/")
    assert house.tenant(subscription).desired.custom_domains == (DOMAIN,)
    malformed, beyond = house.tenant(subscription).refused_domains
    assert malformed.host == "http://acme.dev/"
    assert "expected a host name alone" in malformed.reason
    assert (beyond.host, beyond.reason) == ("two.acme.dev", "is one too many: plan shared allows 1")
    reason, runbook = attention(house, subscription)
    assert runbook == "hostname-conflict"
    assert reason is not None
    assert "two.acme.dev is one too many" in reason
    assert compare(house.ctx).out_of_step == 0
    bill(house, 1, DOMAIN, "two.acme.dev", plan="dedicated")
    house.work()
    assert house.tenant(subscription).desired.custom_domains == (DOMAIN, "two.acme.dev")
    assert attention(house, subscription)[1] != "hostname-conflict"


def test_a_tenant_of_before_this_was_recorded_is_found_by_the_comparison(house: House, refused: str) -> None:
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET refused_domains = '[]', needs_attention = NULL, runbook = NULL")
    assert compare(house.ctx).out_of_step == 1
    assert attention(house, refused) == (TAKEN, "hostname-conflict")
