"""A tenant of one's own with a customer's rows, on fakes."""

from __future__ import annotations

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import Conflict, Invalid
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.domain.transfer import TransferKind, TransferPhase
from controlplane.store import placement, tenant, transfer
from controlplane.store.tenant import SlugTaken, TenantRow
from tests.engine.test_life import paid
from tests.harness.engine import ZONE, Harness

SOURCE = tenant_id_for("sub_00000001")


def clone(harness: Harness, slug: str = "copy-of-it") -> str:
    with harness.ctx.registry.connection() as conn:
        return run(conn, "clone", SOURCE, slug=slug, actor="support", reason="a ticket").made


def row(harness: Harness, tenant_id: str) -> TenantRow:
    with harness.ctx.registry.connection() as conn:
        return tenant.get(conn, tenant_id)


def test_a_clone_has_the_rows_and_nothing_else_of_its_source(harness: Harness) -> None:
    paid(harness, metadata={"custom_domain": "www.customer.dev"})
    assert harness.write(1, "theirs")
    clone_id = clone(harness)
    harness.work()
    made = row(harness, clone_id)
    assert (made.phase, made.clone_of, made.customer_id) == (Phase.ACTIVE, SOURCE, "internal")
    with harness.ctx.registry.connection() as conn:
        carried = transfer.latest(conn, clone_id)
    assert carried is not None
    assert (carried.kind, carried.phase, carried.source, carried.copied_rows) == (
        TransferKind.CLONE,
        TransferPhase.CONFIRMED,
        None,
        1,
    )
    assert carried.finished_at is not None
    assert made.spec.custom_domains == ()
    with harness.ctx.registry.connection() as conn:
        here, there = placement.current(conn, SOURCE), placement.current(conn, clone_id)
    assert here is not None
    assert there is not None
    assert harness.databases.rows(harness.endpoint(there), there.database) == ["theirs"]
    read = harness.ctx.providers.secrets.read
    assert read(here.app_secret) != read(there.app_secret)
    entry = harness.cache.read(f"copy-of-it.{ZONE}")
    assert entry is not None
    assert entry.payload["profile"]["subscription_status"] == "internal"
    assert harness.write(1, "later")
    assert harness.databases.rows(harness.endpoint(there), there.database) == ["theirs"]
    assert harness.violations() == []


def test_a_clone_is_not_served_before_it_has_its_rows(harness: Harness) -> None:
    paid(harness)
    harness.moves.refuse("clone")
    clone_id = clone(harness)
    harness.work()
    entry = harness.cache.read(f"copy-of-it.{ZONE}")
    assert entry is not None
    assert entry.payload["status"] == "provisioning"
    assert row(harness, clone_id).runbook == "move"


def test_a_clone_is_closed_by_hand_and_a_customer_is_not(harness: Harness) -> None:
    paid(harness)
    clone_id = clone(harness)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        run(conn, "close", clone_id, actor="support", reason="done with it")
        with pytest.raises(Conflict):
            run(conn, "close", SOURCE, actor="support", reason="oops")
    harness.work()
    assert row(harness, clone_id).phase is Phase.CLOSED
    assert harness.violations() == []


def test_what_is_refused(harness: Harness) -> None:
    subscription = paid(harness)
    with harness.ctx.registry.connection() as conn:
        with pytest.raises(SlugTaken):
            run(conn, "clone", SOURCE, slug="customer-1", actor="a", reason="r")
        with pytest.raises(Invalid):
            run(conn, "clone", SOURCE, slug="Not A Slug", actor="a", reason="r")
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    with harness.ctx.registry.connection() as conn, pytest.raises(Conflict):
        run(conn, "clone", SOURCE, slug="too-late", actor="a", reason="r")
