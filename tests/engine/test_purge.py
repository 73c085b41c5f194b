"""How a tenant leaves, on fakes: retention, two persons, the purge, its certificate, and coming back."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from controlplane import certificate
from controlplane.actions.action import run
from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.job import ATTEMPTS_UNTIL_ATTENTION
from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.services import purges
from controlplane.store import purge, tenant
from controlplane.store.registry import Registry
from controlplane.workers.drift.report import Reader
from controlplane.workers.drift.verify import verify
from tests.harness.engine import (
    CERTIFICATE_KEY,
    ZONE,
    Harness,
)
from tests.harness.work import work_once

SUBSCRIPTION = "sub_00000001"
TENANT = tenant_id_for(SUBSCRIPTION)


def paid(harness: Harness, number: int = 1, plan: str = "shared", **fields: object) -> str:
    subscription = harness.subscribe(number, plan=plan, **fields)  # type: ignore[arg-type]
    harness.hear(subscription, "customer.subscription.created")
    harness.work()
    return subscription


def closed(harness: Harness, plan: str = "shared") -> Placement:
    """A customer with a domain of its own has left; where it lived."""
    domain = {"custom_domain": "www.customer.dev"}
    subscription = paid(harness, plan=plan, metadata=domain)
    harness.subscribe(1, plan=plan, status="canceled", metadata=domain)
    harness.hear(subscription, "customer.subscription.deleted")
    harness.work()
    return harness.placement(subscription)


def retention_ends(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE tenant SET purge_after = clock_timestamp(), next_observation_at = clock_timestamp()"
            " WHERE closed_at IS NOT NULL"
        )


def copy_time_ends(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE data_copy SET kept_until = clock_timestamp()")
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")


def ask(harness: Harness, *, early: bool = False, actor: str = "anna") -> purge.PurgeRow:
    with harness.ctx.registry.connection() as conn:
        return run(conn, "purge", TENANT, actor=actor, reason="the end", early=early).purge


def approve(harness: Harness, digest: str, actor: str = "bert") -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "approve-purge", TENANT, actor=actor, reason="looked at", digest=digest)


def purged(harness: Harness, plan: str = "shared") -> Placement:
    placed = closed(harness, plan)
    retention_ends(harness)
    approve(harness, ask(harness).digest)
    harness.work()
    return placed


def steps(harness: Harness) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT s.name FROM step s JOIN operation o ON o.id = s.operation_id"
            " WHERE o.reason LIKE 'purge %%' AND s.state = 'done'"
            " ORDER BY s.operation_id, s.seq"
        ).fetchall()
    return [row["name"] for row in rows]


def test_data_is_kept_and_then_two_persons_are_asked_for(harness: Harness) -> None:
    closed(harness)
    row = harness.tenant(SUBSCRIPTION)
    assert row.closed_at is not None
    assert row.purge_after is not None
    assert (row.purge_after - row.closed_at).days == 30
    assert row.phase is Phase.CLOSED
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
    work_once(harness.ctx)
    assert harness.tenant(SUBSCRIPTION).needs_attention is None
    retention_ends(harness)
    work_once(harness.ctx)
    row = harness.tenant(SUBSCRIPTION)
    assert row.runbook == "purge-due"
    assert row.phase is Phase.CLOSED
    assert not harness.lets_in(harness.placement(SUBSCRIPTION))


def test_a_shared_tenant_goes_copy_first_and_slot_last(harness: Harness) -> None:
    placed = purged(harness)
    assert steps(harness) == [
        "keep_copy",
        "drop_database",
        "release_placement",
        "certify",
        "apply_placements_stack",
    ]
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED
    at = harness.ctx.providers.databases
    with harness.ctx.registry.connection() as conn:
        home = conn.execute("SELECT id, destroyed_at FROM cluster").fetchone()
    assert home is not None
    assert home["destroyed_at"] is None
    assert placed.database not in at.names(harness.endpoint(placed))
    assert harness.violations() == []
    report = verify(harness.ctx)
    assert report.findings == ()
    assert report.unread == ()


def test_a_dedicated_tenant_takes_its_cluster_along_and_leaves_a_snapshot(harness: Harness) -> None:
    placed = purged(harness, "dedicated")
    assert "drop_database" not in steps(harness)
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED
    assert harness.ctx.providers.clusters.describe(placed.cluster_id) is None
    assert harness.world.all("aws-cluster") == {}
    assert list(harness.world.all("aws-key")) == [placed.cluster_id]
    assert list(harness.world.all("aws-snapshot")) == [f"{placed.cluster_id}-purge-1"]
    assert verify(harness.ctx).findings == ()
    copy_time_ends(harness)
    harness.work()
    assert harness.world.all("aws-snapshot") == {}
    assert harness.world.all("aws-key") == {}
    assert harness.violations() == []
    assert verify(harness.ctx).findings == ()


def test_without_room_for_the_snapshot_nothing_of_a_purge_is_begun_outside(harness: Harness) -> None:
    harness.quotas.set(snapshots=0)
    purged(harness, "dedicated")
    row = harness.tenant(SUBSCRIPTION)
    assert row.runbook == "aws-quota"
    assert "quota of snapshots leaves 0" in (row.needs_attention or "")
    assert len(harness.world.all("aws-cluster")) == 1
    assert harness.world.all("aws-snapshot") == {}


def test_the_guard_was_opened_by_the_approval_and_says_so(harness: Harness) -> None:
    purged(harness, "dedicated")
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT s.name, e.message FROM step_event e JOIN step s USING (operation_id, seq)"
            " WHERE e.kind = 'approved' ORDER BY e.id"
        ).fetchall()
    assert {row["name"] for row in rows} >= {"destroy_placements_stack", "destroy_cluster_stack"}
    assert all(f"purge 1 of {TENANT}: asked for by anna, approved by bert" in r["message"] for r in rows)


def test_nobody_orders_a_purge_alone_early_or_of_something_else(harness: Harness) -> None:
    subscription = paid(harness)
    with pytest.raises(Conflict, match="only one that is closed"):
        ask(harness)
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    with pytest.raises(Conflict, match="only an early purge"):
        ask(harness)
    asked = ask(harness, early=True)
    assert ask(harness, early=True).id == asked.id
    with pytest.raises(Conflict, match="somebody else"):
        approve(harness, asked.digest, actor="anna")
    with pytest.raises(Conflict, match="not the one"):
        approve(harness, "0" * 64)
    harness.work()
    assert harness.tenant(subscription).phase is Phase.CLOSED
    assert harness.placement(subscription)
    with harness.ctx.registry.connection() as conn:
        run(conn, "withdraw-purge", TENANT, actor="anna", reason="a mistake")
        with pytest.raises(NotFound):
            run(conn, "withdraw-purge", TENANT, actor="anna", reason="again")
    with pytest.raises(NotFound):
        approve(harness, asked.digest)


def test_an_approval_of_what_has_changed_since_is_refused(harness: Harness) -> None:
    subscription = paid(harness)
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    asked = ask(harness, early=True)
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "INSERT INTO route (host, tenant_id, payload, epoch) VALUES ('new.dev', %s, '{}', 9)", [TENANT]
        )
    with pytest.raises(Conflict, match="has changed"):
        approve(harness, asked.digest)


def test_a_tenant_that_is_reopened_in_time_has_everything_and_no_purge(harness: Harness) -> None:
    """Not by Stripe, where what has ended stays so."""
    subscription = paid(harness)
    placed = harness.placement(subscription)
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    approve(harness, ask(harness, early=True).digest)
    harness.revive(1)
    harness.work()
    row = harness.tenant(subscription)
    assert row.phase is Phase.ACTIVE
    assert (row.closed_at, row.purge_after) == (None, None)
    assert harness.placement(subscription) == placed
    assert harness.lets_in(placed)
    assert harness.violations() == []


def test_a_subscription_that_is_revived_after_the_purge_begins_anew(harness: Harness) -> None:
    """Not by Stripe, where what has ended stays so."""
    old = purged(harness)
    harness.revive(1)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        found = conn.execute("SELECT id, slug FROM tenant WHERE id <> %s", [TENANT]).fetchall()
        now = conn.execute("SELECT tenant_id FROM contract").fetchone()
        assert tenant.get(conn, TENANT).phase is Phase.PURGED
    assert now is not None
    [new] = found
    assert new["id"] == tenant_id_for(f"{SUBSCRIPTION}#2") == now["tenant_id"]
    assert new["slug"] != "customer-1"
    entry = harness.cache.read(f"{new['slug']}.{ZONE}")
    assert entry is not None
    assert entry.payload["status"] == "active"
    assert old.database not in str(entry.payload)
    assert harness.violations() == []


def test_a_plan_may_say_that_nobody_need_be_asked(harness: Harness) -> None:
    plans = dict(harness.ctx.catalogue.plans)
    plans["shared"] = replace(plans["shared"], purge_without_approval=True)
    harness.ctx = replace(harness.ctx, catalogue=replace(harness.ctx.catalogue, plans=plans))
    closed(harness)
    retention_ends(harness)
    harness.work()
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED
    with harness.ctx.registry.connection() as conn:
        found = purge.of_tenant(conn, TENANT)
    assert found is not None
    assert (found.requested_by, found.approved_by) == ("policy:purge_without_approval", "policy:catalogue")


def test_the_certificate_says_what_went_and_proves_that_nothing_is_left(harness: Harness) -> None:
    placed = purged(harness)
    with harness.ctx.registry.connection() as conn:
        envelope = purges.certificate(conn, TENANT)
    assert certificate.fault(envelope, CERTIFICATE_KEY.public_key) is None
    document = envelope["certificate"]
    assert isinstance(document, dict)
    assert document["order"]["requested_by"] == "anna"
    assert document["order"]["approved_by"] == "bert"
    assert document["deleted"]["content"]["database"] == placed.database
    assert {line["system"] for line in document["deletion_proof"]} == {
        "AWS tags",
        "Cache",
        "Cloudflare",
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


def test_nothing_is_certified_while_something_is_left(harness: Harness) -> None:
    placed = closed(harness, "dedicated")
    retention_ends(harness)
    approve(harness, ask(harness).digest)
    key = f"placements/{placed.cluster_id}"
    state = harness.world.all("terraform-state")[key]
    harness.world._crash = lambda point: (
        harness.world.put("terraform-state", key, state) if point == "inventory.states:before" else None
    )
    for _ in range(ATTEMPTS_UNTIL_ATTENTION + 5):  # it waits for its cluster's end first
        harness.pass_time()
        work_once(harness.ctx)
    row = harness.tenant(SUBSCRIPTION)
    assert row.phase is not Phase.PURGED
    assert "not gone yet" in str(row.needs_attention)
    harness.world._crash = lambda _point: None
    harness.world.drop("terraform-state", key)
    harness.work()
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED


def test_a_tenant_that_was_never_made_leaves_nothing_and_is_certified(harness: Harness) -> None:
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    for event in ("active", "canceled"):
        harness.subscribe(1, status=event)
        harness.hear(subscription)
        work_once(harness.ctx)
        if event == "active":
            continue
    harness.work()
    approve(harness, ask(harness, early=True).digest)
    harness.work()
    assert harness.tenant(subscription).phase is Phase.PURGED
    assert harness.violations() == []
    assert Reader(harness.ctx).read().unread == ()


class Killed(BaseException):
    """The worker's end, in the middle of a call."""


def test_what_a_killed_run_made_for_one_who_then_left_goes_with_the_purge(
    registry: Registry, database_url: str
) -> None:
    """It left before it was ever usable, so no second apply adopts what the first one made."""
    killed: list[str] = []

    def crash(point: str) -> None:
        if not killed and re.match(r"terraform\.apply:module\.placements\..*:after", point):
            killed.append(point)
            raise Killed

    harness = Harness(database_url, crash=crash)
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    with pytest.raises(Killed):
        harness.work()
    assert harness.terraform.orphans() != []
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    approve(harness, ask(harness, early=True).digest)
    harness.work()
    assert harness.tenant(subscription).phase is Phase.PURGED
    assert harness.terraform.orphans() == []
    assert harness.violations() == []
    harness.close()


def test_whoever_holds_its_rows_is_named(harness: Harness) -> None:
    paid(harness)
    with harness.ctx.registry.connection() as conn:
        clone_id = run(conn, "clone", TENANT, slug="copy-of-it", actor="anna", reason="a bug").made
    harness.work()
    harness.subscribe(1, status="canceled")
    harness.hear(SUBSCRIPTION)
    harness.work()
    asked = ask(harness, early=True)
    assert asked.content["clones"] == [clone_id]
    approve(harness, asked.digest)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        document = purges.certificate(conn, TENANT)["certificate"]
    assert isinstance(document, dict)
    assert ("clone", clone_id) in {(kept["kind"], kept["name"]) for kept in document["kept"]}
    assert harness.violations() == []


def test_a_tenant_that_has_moved_is_purged_where_it_lives_and_names_where_it_lived(harness: Harness) -> None:
    paid(harness)
    old = harness.placement(SUBSCRIPTION)
    with harness.ctx.registry.connection() as conn:
        run(conn, "move", TENANT, to="dedicated", actor="anna", reason="grows")
    harness.work()
    harness.subscribe(1, status="canceled")
    harness.hear(SUBSCRIPTION)
    harness.work()
    new = harness.placement(SUBSCRIPTION)
    assert new.cluster_id != old.cluster_id
    approve(harness, ask(harness, early=True).digest)
    harness.work()
    assert harness.tenant(SUBSCRIPTION).phase is Phase.PURGED
    with harness.ctx.registry.connection() as conn:
        document = purges.certificate(conn, TENANT)["certificate"]
    assert isinstance(document, dict)
    assert document["deleted"]["content"]["placement"] == new.id
    kept = {(copy["kind"], copy["name"]) for copy in document["kept"]}
    assert kept == {
        ("snapshot", f"{new.cluster_id}-purge-1"),
        ("automatic backups", old.cluster_id),
    }
    assert harness.world.all("aws-cluster").keys() == {old.cluster_id}
    assert harness.violations() == []


def test_an_open_move_is_over_before_a_purge(harness: Harness) -> None:
    paid(harness)
    with harness.ctx.registry.connection() as conn:
        run(conn, "move", TENANT, to="dedicated", actor="anna", reason="grows")
        conn.execute(
            'UPDATE tenant SET spec = spec || \'{"lifecycle": "closed"}\', closed_at = now(),'
            " purge_after = now()"
        )
        with pytest.raises(Conflict, match="a transfer that is not over"):
            run(conn, "purge", TENANT, actor="anna", reason="x", early=True)
