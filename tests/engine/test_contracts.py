"""Which tenant a customer's contracts are for, from the event to the rows that are served."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from controlplane.actions.action import dry_run, run
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.errors import Conflict, Invalid, NeedsHuman, NotFound
from controlplane.domain.job import JobKind
from controlplane.domain.tenant import Phase
from controlplane.services import tenants
from controlplane.store import event, job, operation
from controlplane.store.tenant import TenantRow
from controlplane.workers.jobs.comparison import compare
from controlplane.workers.schedule import duties, warm_pool
from tests import builders
from tests.harness.engine import CATALOGUE, ZONE, Harness
from tests.harness.work import do_one

DOMAIN = "www.acme.dev"
WIDER = (
    CATALOGUE.replace('lookup_keys = ["shared"]', 'lookup_keys = ["shared"]\nproduct_ids = ["prod_shared"]')
    + """
[plans.workspace]
isolation = "shared"
family = "workspaces"
lookup_keys = ["workspace"]
min_acu = 0.5
max_acu = 8
backup_retention_days = 7
slots = 100
pool_size = 5
connection_limit = 20
retention_days = 30
limits = { projects = 10 }

[families.workspaces]
tenants = "many"

[addons.projects]
lookup_keys = ["projects"]
limits = { projects = 5 }

[addons.seats]
lookup_keys = ["seats"]
seats = true

[ignore]
lookup_keys = ["newsletter"]
"""
)


@pytest.fixture
def wide(harness: Harness) -> Harness:
    """With more in the catalogue than plans of one family."""
    harness.ctx = replace(harness.ctx, catalogue=parse_catalogue(WIDER, source="wide"))
    return harness


def put(harness: Harness, name: str, *, customer: str = "cus_1", plan: str = "shared", **fields: Any) -> str:
    """Stripe has this subscription of Acme Corp's."""
    harness.billing.put_customer(builders.customer(id=customer, name=f"Acme of {customer}"))
    harness.billing.put_subscription(
        builders.subscription(id=name, customer=customer, lookup_key=plan, **fields)
    )
    return name


def hear(harness: Harness, *names: str) -> None:
    for name in names:
        harness.hear(name)
    harness.work()


def all_tenants(harness: Harness) -> list[TenantRow]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute("SELECT id FROM tenant ORDER BY created_at").fetchall()
        return [tenants.show(conn, row["id"]).tenant for row in rows]


def write(harness: Harness, row: TenantRow, text: str) -> None:
    entry = harness.cache.read(f"{row.slug}.{ZONE}")
    assert entry is not None
    assert entry.payload["status"] == "active"
    with harness.ctx.registry.connection() as conn:
        placed = tenants.show(conn, row.id).placement
    assert placed is not None
    at = harness.endpoint(placed)
    credential = harness.ctx.providers.secrets.read(placed.app_secret)
    harness.databases.write(at, replace(credential, dbname=placed.database), text)


def rows_of(harness: Harness, row: TenantRow) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        placed = tenants.show(conn, row.id).placement
    assert placed is not None
    return harness.databases.rows(harness.endpoint(placed), placed.database)


def contracts(harness: Harness) -> dict[str, tuple[str, str | None, str | None]]:
    with harness.ctx.registry.connection() as conn:
        found = conn.execute("SELECT id, outcome, reason, tenant_id FROM contract").fetchall()
    return {row["id"]: (row["outcome"], row["tenant_id"], row["reason"]) for row in found}


def told(harness: Harness) -> list[tuple[str | None, str]]:
    """(tenant, runbook) of what somebody was told of, oldest first."""
    with harness.ctx.registry.connection() as conn:
        found = conn.execute(
            "SELECT tenant_id, payload->'data'->>'runbook' AS runbook FROM notification"
            " WHERE kind = 'needs_attention' ORDER BY seq"
        ).fetchall()
    return [(row["tenant_id"], row["runbook"]) for row in found]


def bind(harness: Harness, tenant_id: str, contract: str, *, actor: str = "anna") -> Any:
    with harness.ctx.registry.connection() as conn:
        return run(conn, "bind", tenant_id, contract=contract, actor=actor, reason="they said so")


def audited(harness: Harness, action: str) -> list[dict[str, Any]]:
    with harness.ctx.registry.connection() as conn:
        return conn.execute(
            "SELECT actor, resource, detail FROM audit WHERE action = %s ORDER BY seq", [action]
        ).fetchall()


# ---------------------------------------------------------------------------- one tenant a customer


def test_an_upgrade_by_a_new_subscription_takes_rows_slug_and_domain_along(harness: Harness) -> None:
    wish = {"slug": "acme", "custom_domain": DOMAIN}
    hear(harness, put(harness, "sub_old", metadata=wish))
    [tenant] = all_tenants(harness)
    write(harness, tenant, "precious")
    hear(harness, put(harness, "sub_new", plan="dedicated"))
    hear(harness, put(harness, "sub_old", status="canceled", metadata=wish))
    [same] = all_tenants(harness)
    assert (same.id, same.slug, same.phase, same.spec.plan) == (tenant.id, "acme", Phase.ACTIVE, "dedicated")
    assert same.spec.custom_domains == (DOMAIN,)
    assert rows_of(harness, same) == ["precious"]
    assert compare(harness.ctx).out_of_step == 0


def test_whatever_the_order_of_events_and_whichever_are_lost_the_end_is_the_same(harness: Harness) -> None:
    """The old one is canceled and the new one bought between two looks; no event, one, or all of them."""
    ends = set()
    for seed in range(12):
        rng, customer = random.Random(seed), f"cus_{seed}"
        old, new = f"sub_{seed}_old", f"sub_{seed}_new"
        hear(harness, put(harness, old, customer=customer, metadata={"slug": f"acme-{seed}"}))
        put(harness, old, customer=customer, status="canceled", metadata={"slug": f"acme-{seed}"})
        put(harness, new, customer=customer, quantity=3)
        heard = rng.sample([old, new, old, new], rng.randint(0, 4))
        hear(harness, *heard)
        compare(harness.ctx)
        harness.work()
        [row] = [t for t in all_tenants(harness) if t.customer_id == customer]
        ends.add((row.slug == f"acme-{seed}", row.phase, row.spec.quantity, row.id == harness.tenant_id(new)))
    assert ends == {(True, Phase.ACTIVE, 3, True)}
    assert harness.violations() == []


def test_two_checkouts_of_one_customer_are_one_tenant_and_told_of_once(harness: Harness) -> None:
    put(harness, "sub_a"), put(harness, "sub_b", plan="dedicated")
    hear(harness, "sub_a", "sub_b")
    [tenant] = all_tenants(harness)
    assert tenant.spec.plan == "dedicated"
    hear(harness, "sub_a")
    assert told(harness) == [(tenant.id, "paid-twice")]
    assert "sub_a, sub_b" in str(contracts(harness)["sub_a"][2])
    hear(harness, put(harness, "sub_b", plan="dedicated", status="canceled"))
    [same] = all_tenants(harness)
    assert (same.id, same.phase, same.spec.plan) == (tenant.id, Phase.ACTIVE, "shared")


def test_who_pays_one_of_two_is_served_though_it_owes_the_other(harness: Harness) -> None:
    hear(harness, put(harness, "sub_a", plan="dedicated"), put(harness, "sub_b"))
    hear(harness, put(harness, "sub_a", plan="dedicated", status="unpaid"))
    [tenant] = all_tenants(harness)
    assert (tenant.phase, tenant.spec.plan) == (Phase.ACTIVE, "shared")


def test_a_live_contract_that_nobody_can_read_keeps_the_tenant_open(harness: Harness) -> None:
    """It was cancelled, and something else bought: that may be what the customer is to be served for."""
    hear(harness, put(harness, "sub_old"))
    put(harness, "sub_new", plan="nobody-knows")
    hear(harness, "sub_new", put(harness, "sub_old", status="canceled"))
    [tenant] = all_tenants(harness)
    assert tenant.phase is Phase.ACTIVE
    assert told(harness) == [(None, "parked-contract")]
    hear(harness, put(harness, "sub_new", status="canceled"))
    assert all_tenants(harness)[0].phase is Phase.CLOSED


def test_who_pays_at_a_price_that_left_the_catalogue_is_served_again_with_its_plan(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1", status="active"))
    hear(harness, put(harness, "sub_1", plan="nobody-knows", status="unpaid"))
    assert all_tenants(harness)[0].phase is Phase.SUSPENDED
    hear(harness, put(harness, "sub_1", plan="nobody-knows"))
    [tenant] = all_tenants(harness)
    assert (tenant.phase, tenant.spec.plan, tenant.runbook) == (Phase.ACTIVE, "shared", "parked-contract")


def test_a_renewal_touches_nothing(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1"))
    [before] = all_tenants(harness)
    asked: list[str] = []
    harness.world._crash = asked.append
    hear(harness, put(harness, "sub_1", period_end=builders.NOW + 2 * builders.MONTH))
    assert {call.partition(".")[0] for call in asked} == {"billing"}
    [after] = all_tenants(harness)
    assert (after.generation, after.observed_at) == (before.generation, before.observed_at)


# ------------------------------------------------------------------------- many, add-ons, others'


def test_a_family_of_many_has_a_tenant_for_each_contract(wide: Harness) -> None:
    put(wide, "sub_a", plan="workspace"), put(wide, "sub_b", plan="workspace"), put(wide, "sub_c")
    hear(wide, "sub_a", "sub_b", "sub_c")
    assert len(all_tenants(wide)) == 3
    assert told(wide) == []


def test_a_return_to_one_of_several_waits_for_a_persons_word(wide: Harness) -> None:
    put(wide, "sub_a", plan="workspace"), put(wide, "sub_b", plan="workspace")
    hear(wide, "sub_a", "sub_b")
    first, second = all_tenants(wide)
    write(wide, second, "precious")
    put(wide, "sub_a", plan="workspace", status="canceled")
    hear(wide, "sub_a", put(wide, "sub_b", plan="workspace", status="canceled"))
    back = wide.hear(put(wide, "sub_c", plan="workspace"))
    wide.work()
    assert contracts(wide)["sub_c"][:2] == ("parked", None)
    assert first.id in str(contracts(wide)["sub_c"][2])
    assert (None, "parked-contract") in told(wide)
    with wide.ctx.registry.connection() as conn:
        assert event.get(conn, back).state == "parked"
        seen = dry_run(conn, "bind", second.id, contract="sub_c", actor="anna")
    assert seen == {
        "contract": "sub_c",
        "customer": "cus_1",
        "standing": "live",
        "from": None,
        "to": second.id,
        "needs_second_person": False,
        "requested_by": None,
        "approved_by": None,
        "state": "bound",
    }
    bind(wide, second.id, "sub_c")
    wide.work()
    assert [row.phase for row in all_tenants(wide)] == [Phase.CLOSED, Phase.ACTIVE]
    assert rows_of(wide, second) == ["precious"]
    with wide.ctx.registry.connection() as conn:
        assert event.get(conn, back).state == "applied", "its cause is gone"


def test_metadata_names_the_tenant_of_its_own_customer_only(wide: Harness) -> None:
    put(wide, "sub_a", plan="workspace", metadata={"slug": "acme"}), put(wide, "sub_b", plan="workspace")
    hear(wide, "sub_a", "sub_b")
    acme, other = sorted(all_tenants(wide), key=lambda row: row.slug)
    hear(wide, put(wide, "sub_c", plan="workspace", metadata={"tenant": "acme"}))
    assert contracts(wide)["sub_c"][1] == acme.id
    hear(wide, put(wide, "sub_d", plan="workspace", metadata={"tenant": other.id}))
    assert contracts(wide)["sub_d"][1] == other.id
    hear(wide, put(wide, "sub_e", customer="cus_2", plan="workspace", metadata={"tenant": "acme"}))
    assert contracts(wide)["sub_e"][:2] == ("parked", None)
    assert "metadata.tenant: expected a tenant of cus_2" in str(contracts(wide)["sub_e"][2])


def test_add_ons_raise_limits_and_seats_also_from_a_contract_of_their_own(wide: Harness) -> None:
    items = [
        builders.subscription_item(lookup_key="workspace"),
        builders.subscription_item(lookup_key="seats"),
    ]
    items[1]["quantity"] = 12
    hear(wide, put(wide, "sub_a", plan="workspace", items=items))
    [tenant] = all_tenants(wide)
    assert tenant.spec.quantity == 12
    hear(wide, put(wide, "sub_b", plan="projects", quantity=3))
    entry = wide.cache.read(f"{tenant.slug}.{ZONE}")
    assert entry is not None
    assert entry.payload["profile"]["limits"] == {"projects": 25}
    assert len(all_tenants(wide)) == 1
    hear(wide, put(wide, "sub_b", plan="projects", quantity=3, status="canceled"))
    entry = wide.cache.read(f"{tenant.slug}.{ZONE}")
    assert entry is not None
    assert entry.payload["profile"]["limits"] == {"projects": 10}


def test_what_the_account_sells_beside_is_nobodys_work(wide: Harness) -> None:
    for number in range(30):
        put(wide, f"sub_{number}", customer=f"cus_{number}", plan="newsletter")
    hear(wide, "sub_1", "sub_2")
    assert compare(wide.ctx).out_of_step == 28
    wide.work()
    assert {outcome for outcome, _, _ in contracts(wide).values()} == {"ignored"}
    assert (all_tenants(wide), told(wide)) == ([], [])
    assert compare(wide.ctx).out_of_step == 0


def test_a_price_raise_that_takes_the_lookup_key_away_stops_nobody(wide: Harness) -> None:
    items = [builders.subscription_item(lookup_key="shared")]
    hear(wide, put(wide, "sub_1", items=items))
    old = [{**items[0], "price": {**items[0]["price"], "lookup_key": None, "product": "prod_shared"}}]
    for status, phase in (("active", Phase.ACTIVE), ("unpaid", Phase.SUSPENDED)):
        hear(wide, put(wide, "sub_1", items=old, status=status))
        [tenant] = all_tenants(wide)
        assert (tenant.phase, tenant.needs_attention) == (phase, None)


# --------------------------------------------------------------------------------- a person's word


def test_a_transfer_of_ownership_takes_two_persons_and_keeps_rows_slug_and_domain(harness: Harness) -> None:
    hear(harness, put(harness, "sub_old", metadata={"slug": "acme", "custom_domain": DOMAIN}))
    [tenant] = all_tenants(harness)
    write(harness, tenant, "precious")
    hear(harness, put(harness, "sub_new", customer="cus_2", metadata={"slug": "acme"}))
    [_, empty] = all_tenants(harness)
    assert bind(harness, tenant.id, "sub_new").recorded["state"].startswith("waits for a second person")
    with pytest.raises(Conflict, match="somebody else must ask for the same"):
        bind(harness, tenant.id, "sub_new")
    harness.work()
    assert contracts(harness)["sub_new"][1] == empty.id
    bound = bind(harness, tenant.id, "sub_new", actor="bert")
    assert (bound.recorded["state"], bound.recorded["needs_second_person"]) == ("bound", False)
    assert [
        (row["actor"], row["detail"]["requested_by"], row["detail"]["approved_by"], row["detail"]["reason"])
        for row in audited(harness, "contract.bind")
    ] == [("anna", None, None, "they said so"), ("bert", "anna", "bert", "they said so")]
    hear(harness, put(harness, "sub_old", status="canceled", metadata={"custom_domain": DOMAIN}))
    [same, left] = all_tenants(harness)
    assert (same.phase, same.slug, same.customer_id) == (Phase.ACTIVE, "acme", "cus_2")
    assert same.spec.custom_domains == (DOMAIN,)
    assert rows_of(harness, same) == ["precious"]
    assert (left.phase, left.needs_attention) == (Phase.CLOSED, None), "nobody pays for it any more"
    again = bind(harness, tenant.id, "sub_new", actor="carl")
    assert (again.detail, again.recorded["state"]) == (None, "nothing to do: it is for this tenant")
    assert not again.recorded["needs_second_person"]
    assert compare(harness.ctx).out_of_step == 0
    assert harness.violations() == []


def test_what_can_not_be_bound_is_refused(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1"))
    [tenant] = all_tenants(harness)
    with pytest.raises(NotFound, match="contract sub_9"):
        bind(harness, tenant.id, "sub_9")
    hear(harness, put(harness, "sub_2", customer="cus_2", status="canceled"))
    with pytest.raises(Conflict, match="sub_2 has ended"):
        bind(harness, tenant.id, "sub_2")
    with harness.ctx.registry.connection() as conn:
        clone = run(conn, "clone", tenant.id, slug="copy", actor="anna", reason="a bug").made
    with pytest.raises(Conflict, match="is a clone"):
        bind(harness, str(clone), "sub_1")


# ------------------------------------------------------------------------------------------- names


def test_a_customer_that_is_renamed_is_called_so_everywhere(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1"))
    [tenant] = all_tenants(harness)
    assert (tenant.slug, tenant.display_name) == ("acme-of-cus-1", "Acme of cus_1")
    harness.billing.put_customer(builders.customer(id="cus_1", name="Initech"))
    changed = builders.event("customer.updated", builders.customer(id="cus_1"), id="evt_renamed")
    harness.receive(changed)
    harness.work()
    [same] = all_tenants(harness)
    assert (same.slug, same.display_name) == ("acme-of-cus-1", "Initech")
    entry = harness.cache.read(f"{same.slug}.{ZONE}")
    assert entry is not None
    assert entry.payload["profile"]["display_name"] == "Initech"


@pytest.mark.parametrize("noun", ["customer", "checkout_of"])
def test_what_only_lends_a_name_stops_nobody_who_pays(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, noun: str
) -> None:
    def refused(_key: str) -> Any:
        raise NeedsHuman("Stripe refuses our key", runbook="stripe-credentials")

    monkeypatch.setattr(harness.billing, noun, refused)
    put(harness, "sub_1")
    session = builders.checkout_session(id="cs_1", subscription="sub_1", customer="cus_1")
    harness.receive(builders.event("checkout.session.completed", session, id="evt_cs"))
    harness.work()
    assert all_tenants(harness)[0].phase is Phase.ACTIVE


def test_the_slug_that_was_typed_does_not_wait_for_the_checkouts_own_event(harness: Harness) -> None:
    """The subscription's came first; the checkout's, which comes later, is only about the same contract."""
    put(harness, "sub_1")
    session = builders.checkout_session(
        id="cs_1", subscription="sub_1", customer="cus_1", metadata={"slug": "initech"}
    )
    harness.billing.put_checkout_session(session)
    created = builders.subscription(id="sub_1", customer="cus_1")
    harness.receive(builders.event("customer.subscription.created", created, id="evt_sub"))
    harness.work()
    [tenant] = all_tenants(harness)
    assert (tenant.slug, tenant.phase) == ("initech", Phase.ACTIVE)
    asked: list[str] = []
    harness.world._crash = asked.append
    harness.receive(builders.event("checkout.session.completed", session, id="evt_cs"))
    harness.work()
    assert {call.partition(":")[0] for call in asked} == {"billing.subscriptions_of", "billing.customer"}
    assert all_tenants(harness)[0].slug == "initech"


def test_paid_at_is_when_it_was_paid_and_not_when_the_form_was_opened(harness: Harness) -> None:
    """The first event tells of a payment that is still open, the second, a day later, of the payment."""
    put(harness, "sub_1", status="incomplete")
    opened = builders.event(
        "customer.subscription.created",
        builders.subscription(id="sub_1", customer="cus_1", status="incomplete"),
        id="evt_opened",
        created=builders.NOW,
    )
    paid = builders.event(
        "invoice.paid",
        builders.invoice(subscription="sub_1", customer="cus_1"),
        id="evt_paid",
        created=builders.NOW + 86_400,
    )
    harness.receive(opened)
    put(harness, "sub_1")
    harness.receive(paid)
    do_one(harness.ctx, JobKind.INTAKE)
    [tenant] = all_tenants(harness)
    assert tenant.paid_at is not None
    assert tenant.paid_at.timestamp() == builders.NOW + 86_400


# ------------------------------------------------------------------------------------------- holds


def hold(harness: Harness, row: TenantRow, kind: str, **params: Any) -> Any:
    with harness.ctx.registry.connection() as conn:
        begun = run(
            conn, "hold", row.id, kind=kind, days=3, actor="anna", reason="looks like fraud", **params
        )
    harness.work()
    return begun


def ends(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE hold SET ends_at = clock_timestamp()")
    duties.run_timers(harness.ctx)
    harness.work()


def test_whoever_is_held_is_not_served_though_it_pays_and_is_again_when_it_ends(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1"))
    [tenant] = all_tenants(harness)
    hold(harness, tenant, "suspend")
    assert all_tenants(harness)[0].phase is Phase.SUSPENDED
    hear(harness, put(harness, "sub_1", quantity=2))
    assert compare(harness.ctx).out_of_step == 0
    assert all_tenants(harness)[0].phase is Phase.SUSPENDED
    with pytest.raises(Conflict, match="has a hold of kind suspend already"):
        hold(harness, tenant, "suspend")
    with harness.ctx.registry.connection() as conn:
        [shown] = tenants.show(conn, tenant.id).holds
    assert (shown.kind, shown.actor, shown.reason) == ("suspend", "anna", "looks like fraud")
    ends(harness)
    assert all_tenants(harness)[0].phase is Phase.ACTIVE


def test_a_debt_is_borne_until_the_hold_is_lifted_though_stripe_is_silent(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(harness, put(harness, "sub_1"), put(harness, "sub_1", status="unpaid"))
    [tenant] = all_tenants(harness)
    assert tenant.phase is Phase.SUSPENDED

    def silent(_customer: str) -> Any:
        raise AssertionError("nobody need ask Stripe")

    monkeypatch.setattr(harness.billing, "subscriptions_of", silent)
    hold(harness, tenant, "serve")
    assert all_tenants(harness)[0].phase is Phase.ACTIVE
    with harness.ctx.registry.connection() as conn:
        run(conn, "end-hold", tenant.id, kind="serve", actor="bert", reason="enough")
    harness.work()
    assert all_tenants(harness)[0].phase is Phase.SUSPENDED


def test_who_is_to_be_served_is_so_after_the_end_of_its_contract_too(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1"))
    [tenant] = all_tenants(harness)
    hold(harness, tenant, "serve")
    hear(harness, put(harness, "sub_1", status="canceled"))
    assert all_tenants(harness)[0].phase is Phase.ACTIVE
    ends(harness)
    assert all_tenants(harness)[0].phase is Phase.CLOSED


def test_another_plan_is_given_until_the_hold_ends(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1", metadata={"custom_domains": "a.acme.dev, b.acme.dev"}))
    [tenant] = all_tenants(harness)
    assert (tenant.spec.plan, len(tenant.spec.custom_domains)) == ("shared", 1)
    with pytest.raises(Invalid, match="plan: expected a plan of the catalogue where the kind is plan"):
        hold(harness, tenant, "plan")
    warm_pool.tend(harness.ctx)
    with pytest.raises(
        Invalid, match=r"plan: expected one of the catalogue \(dedicated, shared\), got 'gold'"
    ):
        hold(harness, tenant, "plan", plan="gold")
    with harness.ctx.registry.connection() as conn:
        seen = dry_run(conn, "hold", tenant.id, kind="plan", days=3, plan="dedicated", actor="anna")
    assert (seen["from"], seen["to"]) == ("shared, active", "dedicated, active")  # type: ignore[index]
    hold(harness, tenant, "plan", plan="dedicated")
    [tenant] = all_tenants(harness)
    assert (tenant.spec.plan, len(tenant.spec.custom_domains)) == ("dedicated", 2)
    assert compare(harness.ctx).out_of_step == 0
    ends(harness)
    assert all_tenants(harness)[0].spec.plan == "shared"


def test_who_meant_two_tenants_has_two_after_a_split(harness: Harness) -> None:
    put(harness, "sub_a"), put(harness, "sub_b")
    hear(harness, "sub_a", "sub_b")
    [tenant] = all_tenants(harness)
    write(harness, tenant, "precious")
    with harness.ctx.registry.connection() as conn:
        run(conn, "split", tenant.id, contract="sub_b", actor="anna", reason="they meant two")
        with pytest.raises(Conflict, match="sub_b is not for tenant"):
            run(conn, "split", tenant.id, contract="sub_b", actor="anna", reason="again")
        with pytest.raises(Conflict, match="sub_a is all that is paid"):
            run(conn, "split", tenant.id, contract="sub_a", actor="anna", reason="both")
    harness.work()
    old, new = all_tenants(harness)
    assert (old.id, old.phase, new.phase) == (tenant.id, Phase.ACTIVE, Phase.ACTIVE)
    assert (rows_of(harness, old), rows_of(harness, new)) == (["precious"], [])
    hear(harness, "sub_a", "sub_b")
    assert compare(harness.ctx).out_of_step == 0
    assert contracts(harness)["sub_b"][1] == new.id
    hear(harness, put(harness, "sub_b", status="canceled"))
    with harness.ctx.registry.connection() as conn, pytest.raises(Conflict, match="sub_b has ended"):
        run(conn, "split", new.id, contract="sub_b", actor="anna", reason="too late")


def newest(harness: Harness, tenant_id: str) -> dict[str, Any]:
    """The only cause of its newest operation."""
    with harness.ctx.registry.connection() as conn:
        [cause] = operation.page(conn, before=None, limit=1, resource_id=tenant_id)[0].causes
    return cause


def test_what_a_persons_word_leads_to_is_the_persons(harness: Harness) -> None:
    """At the operation and in the audit trail: who it was, why, and by which request."""
    put(harness, "sub_a"), put(harness, "sub_b")
    hear(harness, "sub_a", "sub_b")
    [tenant] = all_tenants(harness)

    def says(action: str, actor: str, **params: Any) -> None:
        with harness.ctx.registry.connection() as conn, job.caused_by(request=f"req-{action}"):
            run(conn, action, tenant.id, actor=actor, reason=f"why {action}", **params)
        harness.work()

    def of(tenant_id: str) -> tuple[str, str, str]:
        cause = newest(harness, tenant_id)
        return cause["actor"], cause["reason"], cause["request"]

    says("hold", "anna", kind="suspend", days=3)
    assert of(tenant.id) == ("anna", "why hold", "req-hold")
    says("end-hold", "bert", kind="suspend")
    assert of(tenant.id) == ("bert", "why end-hold", "req-end-hold")
    says("rename", "carl", slug="acme-two")
    assert of(tenant.id) == ("carl", "why rename", "req-rename")
    says("split", "dora", contract="sub_b")
    [new] = [row for row in all_tenants(harness) if row.id != tenant.id]
    assert of(new.id) == ("dora", "why split", "req-split")
    says("bind", "emil", contract="sub_b")
    assert of(new.id) == ("emil", "why bind", "req-bind"), "it has no contract any more, and closes"
    assert [(row["actor"], row["detail"]["reason"]) for row in audited(harness, "tenant.spec")[-3:]] == [
        ("anna", "why hold"),
        ("bert", "why end-hold"),
        ("emil", "why bind"),
    ]
    assert [row["actor"] for row in audited(harness, "tenant.create")] == ["billing", "dora"]


def test_a_persons_word_that_an_event_came_beside_is_the_persons_too(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1"))
    [tenant] = all_tenants(harness)
    beside = harness.hear(put(harness, "sub_1", quantity=3))
    hold(harness, tenant, "suspend")
    [same] = all_tenants(harness)
    assert (same.phase, same.spec.quantity) == (Phase.SUSPENDED, 3)
    cause = newest(harness, tenant.id)
    assert (cause["actor"], cause["reason"], cause["event"]) == ("anna", "looks like fraud", beside)


def test_a_persons_word_counts_though_all_that_came_beside_it_is_ignored(harness: Harness) -> None:
    hear(harness, put(harness, "sub_1"))
    [tenant] = all_tenants(harness)
    with harness.ctx.registry.connection() as conn:
        run(conn, "hold", tenant.id, kind="suspend", days=3, actor="anna", reason="looks like fraud")
        conn.execute(
            "UPDATE stripe_event SET state = 'received', handled_at = NULL, body = convert_to("
            "jsonb_set(convert_from(body, 'UTF8')::jsonb, '{account}', to_jsonb('acct_other'::text))::text,"
            " 'UTF8')"
        )
    harness.work()
    assert all_tenants(harness)[0].phase is Phase.SUSPENDED


def disputed(harness: Harness, type_: str = "charge.dispute.created") -> None:
    harness.billing.put_charge({"id": "ch_1", "object": "charge", "created": 1, "customer": "cus_1"})
    about = {"id": "dp_1", "object": "dispute", "charge": "ch_1"}
    harness.receive(builders.event(type_, about, id=f"evt_{type_}"))
    harness.work()


@pytest.mark.parametrize("type_", ["charge.dispute.created", "radar.early_fraud_warning.created"])
def test_a_disputed_payment_is_told_of_and_stops_nobody_whose_plan_does_not_say_so(
    harness: Harness, type_: str
) -> None:
    hear(harness, put(harness, "sub_1"))
    [tenant] = all_tenants(harness)
    disputed(harness, type_)
    assert told(harness) == [(tenant.id, "payment-disputed")]
    assert all_tenants(harness)[0].phase is Phase.ACTIVE


def test_a_disputed_payment_suspends_where_the_plan_says_so_until_a_person_ends_it(harness: Harness) -> None:
    strict = CATALOGUE.replace("custom_domains = 1\n", "custom_domains = 1\nsuspend_on_dispute = true\n")
    harness.ctx = replace(harness.ctx, catalogue=parse_catalogue(strict, source="strict"))
    hear(harness, put(harness, "sub_1"))
    disputed(harness)
    [tenant] = all_tenants(harness)
    assert tenant.phase is Phase.SUSPENDED
    with harness.ctx.registry.connection() as conn:
        [held] = tenants.show(conn, tenant.id).holds
        run(conn, "end-hold", tenant.id, kind="suspend", actor="anna", reason="dispute won")
    assert (held.actor, "ch_1" in held.reason) == ("billing", True)
    harness.work()
    assert all_tenants(harness)[0].phase is Phase.ACTIVE


def test_a_dispute_of_nobodys_payment_is_told_of_and_one_that_can_not_be_read_is_parked(
    harness: Harness,
) -> None:
    disputed(harness)
    assert told(harness) == [(None, "payment-disputed")]
    about = {"id": "dp_2", "object": "dispute", "charge": "ch_9"}
    missing = harness.receive(builders.event("charge.dispute.created", about, id="evt_missing"))
    harness.work()
    with harness.ctx.registry.connection() as conn:
        row = event.get(conn, missing)
    assert (row.state, row.reason) == ("parked", "Stripe knows no charge ch_9")
