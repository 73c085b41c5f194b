"""Behind an event that has been acknowledged nothing raises, whatever the JSON."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.billing import (
    EVENT_TYPES,
    SubscriptionRef,
    event_type,
    foreign_account,
    subscription_of_event,
    wishes_of_checkout,
    wishes_of_customer,
)
from controlplane.domain.contract import Add, Apply, Decision, Ignore, Park, Turn, Wait, Wishes
from controlplane.domain.tenant import TenantSpec
from tests.domain.test_billing import applied, decide, item, read, subscription
from tests.domain.test_billing_events import event

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["sub_1", "cus_1", "cs_1", "price_team", "active", "canceled", "a.com, b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "data", "object", "metadata", "slug", "text", "plan"]), inner
        )
    ),
    max_leaves=8,
)
FIELDS = [
    *subscription(),
    "cancel_at",
    "created",
    "current_period_end",
    "current_period_start",
    "open_invoices",
    "pause_collection",
    "start_date",
    "trial_end",
]


def fit(*texts: str | None) -> None:
    """For the registry: no NUL, no half surrogate, of bounded length."""
    assert all(text is None or ("\0" not in text and len(text.encode()) < 2000) for text in texts)


def storable(decision: Decision) -> None:
    match decision:
        case Park(reason) | Turn(reason=reason) | Wait(reason) | Ignore(reason):
            fit(reason)
        case Apply():
            fit(*decision.warnings)
            assert TenantSpec.from_json(decision.spec.to_json()) == decision.spec
        case Add():
            fit(*decision.warnings)


def storable_wishes(wishes: Wishes) -> None:
    fit(wishes.slug, wishes.name)


@given(st.dictionaries(st.sampled_from(FIELDS), anything))
def test_no_subscription_raises(changes: dict[str, Any]) -> None:
    storable(decide(**changes))


@given(anything, st.dictionaries(st.sampled_from(["metadata", "custom_fields", "name"]), anything))
def test_no_session_and_no_customer_raises(whole: Any, fields: dict[str, Any]) -> None:
    for found in (whole, fields):
        storable_wishes(wishes_of_checkout(found))
        storable_wishes(wishes_of_customer(found))


@given(st.dictionaries(st.sampled_from([*item(), "plan"]), anything))
def test_no_item_raises(changes: dict[str, Any]) -> None:
    storable(decide(item() | changes))


@given(st.dictionaries(st.sampled_from(["slug", "name", "custom_domain", "custom_domains"]), st.text()))
def test_no_wish_stops_a_paying_customer(metadata: dict[str, str]) -> None:
    decision = applied(metadata=metadata)
    storable(decision)
    storable_wishes(read(metadata=metadata).wishes)
    assert decision.spec.plan == "team"


@given(st.one_of(anything, st.builds(event, st.sampled_from(sorted(EVENT_TYPES)), anything)))
def test_no_event_raises(anything_at_all: Any) -> None:
    found = subscription_of_event(anything_at_all)
    assert found is None or isinstance(found, SubscriptionRef | Park)
    fit(event_type(anything_at_all) and "", foreign_account(anything_at_all, None))


def test_neither_depth_nor_size_raises() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    huge = 10**5000
    for value in (deep, huge, {"id": deep}, {"id": huge}, float("nan"), float("inf")):
        for field in FIELDS:
            storable(decide(**{field: value}))
        for field in item():
            storable(decide(item() | {field: value}))
        for kind in EVENT_TYPES:
            assert isinstance(subscription_of_event(event(kind, {"subscription": value})), Park)


@given(st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=30))
def test_every_id_that_stripe_may_give_is_taken(rest: str) -> None:
    contract = read(id=f"sub_{rest}", customer=rest)
    assert (contract.id, contract.customer) == (f"sub_{rest}", rest)
