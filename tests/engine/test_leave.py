"""How a tenant leaves, on fakes: retention, two persons, the purge, its certificate, and coming back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane import certificate
from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.services import clones, moves, purges
from controlplane.store import purge
from controlplane.store.registry import Registry
from tests.engine.house import CERTIFICATE_KEY, ZONE, House
from workers.drift.report import Reader
from workers.drift.verify import verify
from workers.runtime import polling

SUBSCRIPTION = "sub_00000001"
TENANT = tenant_id_for(SUBSCRIPTION)


def paid(house: House, number: int = 1, plan: str = "shared", **fields: object) -> str:
    subscription = house.subscribe(number, plan=plan, **fields)  # type: ignore[arg-type]
    house.hear(subscription, "customer.subscription.created")
    house.work()
    return subscription


def closed(house: House, plan: str = "shared") -> Placement:
    """A customer with a domain of its own has left; where it lived."""
    domain = {"custom_domain": "www.customer.dev"}
    subscription = paid(house, plan=plan, metadata=domain)
    house.subscribe(1, plan=plan, status="canceled", metadata=domain)
    house.hear(subscription, "customer.subscription.deleted")
    house.work()
    return house.placement(subscription)


def retention_ends(house: House) -> None:
    with house.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE tenant SET purge_after = clock_timestamp(), next_look_at = clock_timestamp()"
            " WHERE closed_at IS NOT NULL"
        )


def copy_time_ends(house: House) -> None:
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE data_copy SET kept_until = clock_timestamp()")
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")


def ask(house: House, *, early: bool = False, actor: str = "anna") -> purge.PurgeRow:
    with house.ctx.registry.connection() as conn:
        return purges.request(conn, TENANT, actor=actor, reason="the end", early=early)


def approve(house: House, digest: str, actor: str = "bert") -> None:
    with house.ctx.registry.connection() as conn:
        purges.approve(conn, TENANT, actor=actor, digest=digest)


def purged(house: House, plan: str = "shared") -> Placement:
    placed = closed(house, plan)
    retention_ends(house)
    approve(house, ask(house).digest)
    house.work()
    return placed


def steps(house: House) -> list[str]:
    with house.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT s.name FROM step s JOIN operation o ON o.id = s.operation_id"
            " WHERE o.reason LIKE 'purge %%' AND s.state = 'done' ORDER BY s.operation_id, s.seq"
        ).fetchall()
    return [row["name"] for row in rows]


def test_data_is_kept_and_then_two_persons_are_asked_for(house: House) -> None:
    closed(house)
    row = house.tenant(SUBSCRIPTION)
    assert row.closed_at is not None
    assert row.purge_after is not None
    assert (row.purge_after - row.closed_at).days == 30
    assert row.phase is Phase.CLOSED
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")
    polling.work_once(house.ctx)
    assert house.tenant(SUBSCRIPTION).needs_attention is None
    retention_ends(house)
    polling.work_once(house.ctx)
    row = house.tenant(SUBSCRIPTION)
    assert row.runbook == "purge-due"
    assert row.phase is Phase.CLOSED
    assert not house.lets_in(house.placement(SUBSCRIPTION))


def test_a_shared_tenant_goes_copy_first_and_slot_last(house: House) -> None:
    placed = purged(house)
    assert steps(house) == [
        "keep_copy",
        "drop_database",
        "destroy_tenant_stack",
        "release_placement",
        "certify",
    ]
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED
    at = house.ctx.providers.databases
    with house.ctx.registry.connection() as conn:
        home = conn.execute("SELECT id, destroyed_at FROM cluster").fetchone()
    assert home is not None
    assert home["destroyed_at"] is None
    assert placed.database not in at.names(house.endpoint(placed))
    assert house.violations() == []
    report = verify(house.ctx)
    assert report.findings == ()
    assert report.unread == ()


def test_a_dedicated_tenant_takes_its_cluster_along_and_leaves_a_snapshot(house: House) -> None:
    placed = purged(house, "dedicated")
    assert "drop_database" not in steps(house)
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED
    assert house.ctx.providers.clusters.describe(placed.cluster_id) is None
    assert house.world.all("aws-cluster") == {}
    assert list(house.world.all("aws-key")) == [placed.cluster_id]
    assert list(house.world.all("aws-snapshot")) == [f"{placed.cluster_id}-purge-1"]
    assert verify(house.ctx).findings == ()
    copy_time_ends(house)
    house.work()
    assert house.world.all("aws-snapshot") == {}
    assert house.world.all("aws-key") == {}
    assert house.violations() == []
    assert verify(house.ctx).findings == ()


def test_the_guard_was_opened_by_the_approval_and_says_so(house: House) -> None:
    purged(house, "dedicated")
    with house.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT s.name, e.message FROM step_event e JOIN step s USING (operation_id, seq)"
            " WHERE e.kind = 'approved' ORDER BY e.id"
        ).fetchall()
    assert {row["name"] for row in rows} >= {"destroy_tenant_stack", "destroy_cluster_stack"}
    assert all(f"purge 1 of {TENANT}: asked for by anna, approved by bert" in r["message"] for r in rows)


def test_nobody_orders_a_purge_alone_early_or_of_something_else(house: House) -> None:
    subscription = paid(house)
    with pytest.raises(Conflict, match="only one that is closed"):
        ask(house)
    house.subscribe(1, status="canceled")
    house.hear(subscription)
    house.work()
    with pytest.raises(Conflict, match="only an early purge"):
        ask(house)
    asked = ask(house, early=True)
    assert ask(house, early=True).id == asked.id
    with pytest.raises(Conflict, match="somebody else"):
        approve(house, asked.digest, actor="anna")
    with pytest.raises(Conflict, match="not the one"):
        approve(house, "0" * 64)
    house.work()
    assert house.tenant(subscription).phase is Phase.CLOSED
    assert house.placement(subscription)
    with house.ctx.registry.connection() as conn:
        purges.withdraw(conn, TENANT, actor="anna", reason="a mistake")
        with pytest.raises(NotFound):
            purges.withdraw(conn, TENANT, actor="anna", reason="again")
    with pytest.raises(NotFound):
        approve(house, asked.digest)


def test_an_approval_of_what_has_changed_since_is_refused(house: House) -> None:
    subscription = paid(house)
    house.subscribe(1, status="canceled")
    house.hear(subscription)
    house.work()
    asked = ask(house, early=True)
    with house.ctx.registry.connection() as conn:
        conn.execute(
            "INSERT INTO route (host, tenant_id, payload, epoch) VALUES ('new.dev', %s, '{}', 9)", [TENANT]
        )
    with pytest.raises(Conflict, match="has changed"):
        approve(house, asked.digest)


def test_a_tenant_that_is_reopened_in_time_has_everything_and_no_purge(house: House) -> None:
    """Not by Stripe, where what has ended stays so."""
    subscription = paid(house)
    placed = house.placement(subscription)
    house.subscribe(1, status="canceled")
    house.hear(subscription)
    house.work()
    approve(house, ask(house, early=True).digest)
    house.revive(1)
    house.work()
    row = house.tenant(subscription)
    assert row.phase is Phase.ACTIVE
    assert (row.closed_at, row.purge_after) == (None, None)
    assert house.placement(subscription) == placed
    assert house.lets_in(placed)
    assert house.violations() == []


def test_a_subscription_that_is_revived_after_the_purge_begins_anew(house: House) -> None:
    """Not by Stripe, where what has ended stays so."""
    old = purged(house)
    house.revive(1)
    house.work()
    with house.ctx.registry.connection() as conn:
        found = conn.execute("SELECT id, slug FROM tenant WHERE id <> %s", [TENANT]).fetchall()
        now = conn.execute("SELECT tenant_id FROM subscription").fetchone()
    assert now is not None
    [new] = found
    assert new["id"] == tenant_id_for(f"{SUBSCRIPTION}#2") == now["tenant_id"]
    assert new["slug"] != "customer-1"
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED
    entry = house.cache.read(f"{new['slug']}.{ZONE}")
    assert entry is not None
    assert entry.payload["status"] == "active"
    assert old.database not in str(entry.payload)
    assert house.violations() == []


def test_a_plan_may_say_that_nobody_need_be_asked(house: House) -> None:
    plans = dict(house.ctx.catalogue.plans)
    plans["shared"] = replace(plans["shared"], purge_without_approval=True)
    house.ctx = replace(house.ctx, catalogue=replace(house.ctx.catalogue, plans=plans))
    closed(house)
    retention_ends(house)
    house.work()
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED
    with house.ctx.registry.connection() as conn:
        found = purge.of_tenant(conn, TENANT)
    assert found is not None
    assert (found.requested_by, found.approved_by) == ("policy:purge_without_approval", "policy:catalogue")


def test_the_certificate_says_what_went_and_proves_that_nothing_is_left(house: House) -> None:
    placed = purged(house)
    with house.ctx.registry.connection() as conn:
        envelope = purges.certificate(conn, TENANT)
    assert certificate.fault(envelope, CERTIFICATE_KEY.public_key) is None
    document = envelope["certificate"]
    assert isinstance(document, dict)
    assert document["order"]["requested_by"] == "anna"
    assert document["order"]["approved_by"] == "bert"
    assert document["deleted"]["content"]["database"] == placed.database
    assert {line["book"] for line in document["absence"]} == {
        "AWS tags",
        "Cache",
        "Cloudflare",
        "IAM",
        "PostgreSQL",
        "Secrets Manager",
        "Terraform",
    }
    dump, backups = document["kept"]
    assert (dump["kind"], backups["kind"]) == ("dump", "automatic backups")
    assert backups["name"] == placed.cluster_id
    assert None not in (dump["until"], backups["until"])
    document["order"]["approved_by"] = "anna"
    assert certificate.fault(envelope, CERTIFICATE_KEY.public_key) is not None


def test_nothing_is_certified_while_something_is_left(house: House) -> None:
    placed = closed(house)
    retention_ends(house)
    approve(house, ask(house).digest)
    states = house.world.all("terraform-state")[f"tenant/{placed.workspace}"]
    house.world._crash = lambda point: (
        house.world.put("terraform-state", f"tenant/{placed.workspace}", states)
        if point == "inventory.states:before"
        else None
    )
    for _ in range(8):
        house.pass_time()
        polling.work_once(house.ctx)
    row = house.tenant(SUBSCRIPTION)
    assert row.phase is not Phase.PURGED
    assert "not gone yet" in str(row.needs_attention)
    house.world._crash = lambda _point: None
    house.world.drop("terraform-state", f"tenant/{placed.workspace}")
    house.work()
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED


def test_a_tenant_that_was_never_made_leaves_nothing_and_is_certified(house: House) -> None:
    subscription = house.subscribe(1)
    house.hear(subscription)
    for event in ("active", "canceled"):
        house.subscribe(1, status=event)
        house.hear(subscription)
        polling.work_once(house.ctx)
        if event == "active":
            continue
    house.work()
    approve(house, ask(house, early=True).digest)
    house.work()
    assert house.tenant(subscription).phase is Phase.PURGED
    assert house.violations() == []
    assert Reader(house.ctx).read().unread == ()


class Killed(BaseException):
    """The worker's end, in the middle of a call."""


@pytest.mark.parametrize("resource", ["aws_iam_role.this", "aws_secretsmanager_secret.app"])
def test_what_a_killed_run_made_for_one_who_then_left_goes_with_the_purge(
    registry: Registry, database_url: str, resource: str
) -> None:
    """It left before it was ever usable, so no second apply adopts what the first one made."""
    killed = [f"terraform.apply:module.tenant.{resource}:after"]

    def crash(point: str) -> None:
        if point in killed:
            killed.remove(point)
            raise Killed

    house = House(database_url, crash=crash)
    subscription = house.subscribe(1)
    house.hear(subscription)
    with pytest.raises(Killed):
        house.work()
    assert house.terraform.orphans() != []
    house.subscribe(1, status="canceled")
    house.hear(subscription)
    house.work()
    approve(house, ask(house, early=True).digest)
    house.work()
    assert house.tenant(subscription).phase is Phase.PURGED
    assert house.terraform.orphans() == []
    assert house.violations() == []
    house.close()


def test_whoever_holds_its_rows_is_named(house: House) -> None:
    paid(house)
    with house.ctx.registry.connection() as conn:
        clone_id, _ = clones.request(conn, TENANT, slug="copy-of-it", actor="anna", reason="a bug")
    house.work()
    house.subscribe(1, status="canceled")
    house.hear(SUBSCRIPTION)
    house.work()
    asked = ask(house, early=True)
    assert asked.content["clones"] == [clone_id]
    approve(house, asked.digest)
    house.work()
    with house.ctx.registry.connection() as conn:
        document = purges.certificate(conn, TENANT)["certificate"]
    assert isinstance(document, dict)
    assert ("clone", clone_id) in {(kept["kind"], kept["name"]) for kept in document["kept"]}
    assert house.violations() == []


def test_a_tenant_that_has_moved_is_purged_where_it_lives_and_names_where_it_lived(house: House) -> None:
    paid(house)
    old = house.placement(SUBSCRIPTION)
    with house.ctx.registry.connection() as conn:
        moves.request(conn, TENANT, to="dedicated", actor="anna", reason="grows")
    house.work()
    house.subscribe(1, status="canceled")
    house.hear(SUBSCRIPTION)
    house.work()
    new = house.placement(SUBSCRIPTION)
    assert new.cluster_id != old.cluster_id
    approve(house, ask(house, early=True).digest)
    house.work()
    assert house.tenant(SUBSCRIPTION).phase is Phase.PURGED
    with house.ctx.registry.connection() as conn:
        document = purges.certificate(conn, TENANT)["certificate"]
    assert isinstance(document, dict)
    assert document["deleted"]["content"]["placement"] == new.key
    kept = {(copy["kind"], copy["name"]) for copy in document["kept"]}
    assert kept == {
        ("snapshot", f"{new.cluster_id}-purge-1"),
        ("automatic backups", old.cluster_id),
    }
    assert house.world.all("aws-cluster").keys() == {old.cluster_id}
    assert house.violations() == []


def test_an_open_move_is_over_before_a_purge(house: House) -> None:
    paid(house)
    with house.ctx.registry.connection() as conn:
        moves.request(conn, TENANT, to="dedicated", actor="anna", reason="grows")
        conn.execute(
            'UPDATE tenant SET desired = desired || \'{"lifecycle": "closed"}\', closed_at = now(),'
            " purge_after = now()"
        )
        with pytest.raises(Conflict, match="a move that is not over"):
            purges.request(conn, TENANT, actor="anna", reason="x", early=True)
