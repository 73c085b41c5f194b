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
from controlplane.store.transfer import TransferRow
from tests.engine.test_life import paid
from tests.harness.engine import ZONE, Harness

SOURCE = tenant_id_for("sub_00000001")


def clone(harness: Harness, slug: str = "copy-of-it") -> str:
    with harness.ctx.registry.connection() as conn:
        return run(conn, "clone", SOURCE, slug=slug, actor="support", reason="a ticket").made


def row(harness: Harness, tenant_id: str) -> TenantRow:
    with harness.ctx.registry.connection() as conn:
        return tenant.get(conn, tenant_id)


def last(harness: Harness, tenant_id: str) -> TransferRow:
    with harness.ctx.registry.connection() as conn:
        found = transfer.latest(conn, tenant_id)
    assert found is not None
    return found


def test_a_clone_has_the_rows_and_nothing_else_of_its_source(harness: Harness) -> None:
    paid(harness, metadata={"custom_domain": "www.customer.dev"})
    assert harness.write(1, "theirs")
    clone_id = clone(harness)
    harness.work()
    made = row(harness, clone_id)
    assert (made.phase, made.clone_of, made.customer_id) == (Phase.ACTIVE, SOURCE, "internal")
    carried = last(harness, clone_id)
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


def test_a_clone_that_is_closed_before_it_has_its_rows_is_over_and_nothing_goes_on(harness: Harness) -> None:
    paid(harness)
    harness.moves.refuse("clone")
    clone_id = clone(harness)
    harness.work()
    assert last(harness, clone_id).phase is TransferPhase.COPYING
    with harness.ctx.registry.connection() as conn:
        run(conn, "close", clone_id, actor="support", reason="not needed")
    harness.moves.refuse("clone", refuse=False)
    harness.work()
    found = last(harness, clone_id)
    assert (found.phase, found.finished_at is not None) == (TransferPhase.ABORTED, True)
    assert found.copied_rows is None
    assert row(harness, clone_id).phase is Phase.CLOSED
    assert harness.violations() == []


@pytest.mark.parametrize("word", ["confirm-transfer", "abort-transfer"])
def test_nobody_but_close_ends_a_clone_that_is_under_way(harness: Harness, word: str) -> None:
    paid(harness)
    harness.moves.refuse("clone")
    clone_id = clone(harness)
    harness.work()
    with harness.ctx.registry.connection() as conn, pytest.raises(Conflict, match="no move or restore"):
        run(conn, word, clone_id, actor="support", reason="oops")
    assert last(harness, clone_id).phase is TransferPhase.COPYING


def test_a_source_can_go_on_being_cloned_and_a_clone_too_once_it_is_whole(harness: Harness) -> None:
    paid(harness)
    harness.write(1, "theirs")
    first, second = clone(harness), clone(harness, "second-copy")
    with harness.ctx.registry.connection() as conn, pytest.raises(Conflict, match="only one that serves"):
        run(conn, "clone", first, slug="of-a-clone", actor="a", reason="r")
    harness.work()
    for made in (first, second):
        assert last(harness, made).copied_rows == 1
    with harness.ctx.registry.connection() as conn:
        third = run(conn, "clone", first, slug="of-a-clone", actor="a", reason="r").made
    harness.work()
    assert last(harness, str(third)).copied_rows == 1
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
