"""What a purge deletes has a digest that anything which matters changes, and takes two persons."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane.domain.catalogue import Isolation
from controlplane.domain.errors import Conflict
from controlplane.domain.placement import Placement
from controlplane.domain.purge import Content, content_of, kept_for, require_same, require_second_person

PLACED = Placement("p-cccccccccccc", "t-aaaaaaaaaaaa", "c-bbbbbbbbbbbb")


def content(placement: Placement | None = PLACED, isolation: Isolation = Isolation.SHARED) -> Content:
    return content_of(
        tenant_id="t-aaaaaaaaaaaa",
        slug="acme",
        customer_id="cus_1",
        closed_at=datetime(2026, 11, 24, tzinfo=UTC),
        placement=placement,
        isolation=None if placement is None else isolation,
        hosts=["b.dev", "a.dev"],
        clones=[],
    )


def test_all_that_goes_is_named() -> None:
    shared, dedicated = content(), content(isolation=Isolation.DEDICATED)
    assert (shared.copy, shared.cluster_goes) == ("dump", False)
    assert (dedicated.copy, dedicated.cluster_goes) == ("snapshot", True)
    assert shared.database == "p_cccccccccccc"
    assert len(shared.roles) == 4
    assert shared.secrets == ("placements/p-cccccccccccc/app",)
    assert shared.to_json()["hosts"] == ["a.dev", "b.dev"]


def test_what_was_never_made_is_not_named() -> None:
    nothing = content(None)
    assert (nothing.database, nothing.copy, nothing.cluster_goes, nothing.roles) == (None, None, False, ())


def test_every_field_is_in_the_digest() -> None:
    whole = content()
    assert content().digest == whole.digest
    others = {
        replace(whole, **{name: ("x",) if isinstance(value, tuple) else "x"}).digest  # type: ignore[arg-type]
        for name, value in ((f, getattr(whole, f)) for f in whole.to_json())
    }
    assert len(others) == len(whole.to_json())
    assert whole.digest not in others


def test_two_persons_and_one_digest() -> None:
    require_second_person(requested_by="anna", approver="bert")
    with pytest.raises(Conflict, match="somebody else"):
        require_second_person(requested_by="anna", approver="anna")
    require_same(requested="a", now="a", approved="a")
    with pytest.raises(Conflict, match="not the one"):
        require_same(requested="a", now="a", approved="b")
    with pytest.raises(Conflict, match="has changed"):
        require_same(requested="a", now="b", approved="a")


def test_why_data_is_kept_names_the_first_five_subscriptions_and_counts_the_rest() -> None:
    why = "its customer cus_1 pays or is to pay for a contract that has not ended: "
    assert kept_for("cus_1", [("sub_1", "active"), ("sub_2", None)], clone=False) == (
        f"{why}sub_1 (active), sub_2 (status unknown)"
    )
    live = [(f"sub_{number}", "active") for number in range(1, 8)]
    assert str(kept_for("cus_1", live[:5], clone=False)).endswith("sub_5 (active)")
    assert str(kept_for("cus_1", live, clone=False)).endswith("sub_5 (active) and 2 more")


def test_nothing_keeps_the_data_of_who_has_no_subscription_nor_a_clone() -> None:
    assert kept_for("cus_1", [], clone=False) is None
    assert kept_for("cus_1", [("sub_1", "active")], clone=True) is None
