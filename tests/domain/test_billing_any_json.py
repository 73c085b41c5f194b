"""Behind an event that has been acknowledged nothing raises, whatever the JSON."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.billing import (
    EVENT_TYPES,
    Apply,
    Decision,
    Park,
    SubscriptionRef,
    Turn,
    Wait,
    spec_from_subscription,
    subscription_of_event,
)
from controlplane.domain.tenant import TenantSpec
from tests.domain.test_billing import CATALOGUE, NOW, ZONE, applied, decide, item, subscription
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
FIELDS = [*subscription(), "current_period_end", "pause_collection"]


def storable(decision: Decision) -> None:
    """What goes into the registry: no NUL, no half surrogate, of bounded length."""
    match decision:
        case Park(reason) | Turn(reason=reason):
            texts: tuple[str, ...] = (reason,)
        case Apply():
            texts = (decision.display_name, decision.requested_slug or "", *decision.warnings)
            assert TenantSpec.from_json(decision.spec.to_json()) == decision.spec
        case Wait(reason):
            texts = (reason,)
    assert all("\0" not in text and len(text.encode()) < 2000 for text in texts)


@given(st.dictionaries(st.sampled_from(FIELDS), anything), anything, anything)
def test_no_subscription_raises(changes: dict[str, Any], session: Any, customer: Any) -> None:
    storable(
        spec_from_subscription(
            subscription(**changes),
            CATALOGUE,
            platform_zone=ZONE,
            now=NOW,
            session=session,
            customer=customer,
        )
    )


@given(st.dictionaries(st.sampled_from([*item(), "plan"]), anything))
def test_no_item_raises(changes: dict[str, Any]) -> None:
    storable(decide(item() | changes))


@given(st.dictionaries(st.sampled_from(["slug", "name", "custom_domain", "custom_domains"]), st.text()))
def test_no_wish_stops_a_paying_customer(metadata: dict[str, str]) -> None:
    decision = applied(metadata=metadata)
    storable(decision)
    assert decision.spec.plan == "team"


@given(st.one_of(anything, st.builds(event, st.sampled_from(sorted(EVENT_TYPES)), anything)))
def test_no_event_raises(anything_at_all: Any) -> None:
    found = subscription_of_event(anything_at_all)
    assert found is None or isinstance(found, SubscriptionRef | Park)


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
    assert applied(id=f"sub_{rest}", customer=f"cus_{rest}").subscription_id == f"sub_{rest}"
