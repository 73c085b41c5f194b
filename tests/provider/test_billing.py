"""What `ports.Billing` promises, of the real provider on the fake server and of the fake alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from controlplane.domain.errors import Invalid, NotFound, Retryable
from controlplane.localcloud.fakes.billing import FakeBilling
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers import stripe_billing
from controlplane.workers.providers.stripe_billing import StripeBilling
from tests import builders
from tests.harness.stripe import (
    KEY,
    StripeFixture,
    run_stripe,
)

CREATED = "customer.subscription.created"


class Fixture(Protocol):
    """The outside, as a test arranges it; ids come back."""

    billing: StripeBilling | FakeBilling

    def subscribe(self, *, status: str = "active", customer: str | None = None, **metadata: str) -> str: ...
    def customer(self, *, deleted: bool = False) -> str: ...
    def owe(self) -> str:
        """A subscription that is past due, with an invoice that was to be paid within 30 days."""

    def checkout(self, **metadata: str) -> tuple[str, str]: ...
    def throttle(self, *, after: float) -> None: ...


class FakeServer:
    def __init__(self, stripe: StripeFixture) -> None:
        self.stripe = stripe
        self.billing = StripeBilling(KEY, stripe.url)
        stripe.control.clear_faults()

    def subscribe(self, *, status: str = "active", customer: str | None = None, **metadata: str) -> str:
        made = self.stripe.client.v1.subscriptions.create(
            {
                "customer": customer or self.customer(),
                "items": [{"price": self.stripe.prices["shared"]}],
                "metadata": metadata,
            }
        )
        if status != "active":
            self.stripe.control.set_status(made.id, status)
        return made.id

    def owe(self) -> str:
        made = self.stripe.client.v1.subscriptions.create(
            {
                "customer": self.customer(),
                "items": [{"price": self.stripe.prices["shared"]}],
                "collection_method": "send_invoice",
                "days_until_due": 30,
            }
        )
        self.stripe.control.set_status(made.id, "past_due")
        return made.id

    def customer(self, *, deleted: bool = False) -> str:
        key = self.stripe.customer()
        if deleted:
            self.stripe.client.v1.customers.delete(key)
        return key

    def checkout(self, **metadata: str) -> tuple[str, str]:
        session = self.stripe.client.v1.checkout.sessions.create(
            {
                "mode": "subscription",
                "success_url": "https://acme.dev/",
                "line_items": [{"price": self.stripe.prices["shared"], "quantity": 1}],
                "metadata": metadata,
            }
        )
        done = self.stripe.control.complete_checkout(session.id)
        return session.id, done["subscription"]

    def throttle(self, *, after: float) -> None:
        self.stripe.control.set_faults(api=[{"status": 429, "count": 1, "retry_after": after}])


class Fake:
    def __init__(self) -> None:
        self.world = World()
        self.billing = FakeBilling(self.world)

    def subscribe(self, *, status: str = "active", customer: str | None = None, **metadata: str) -> str:
        number = self.world.count("number", "subscription")
        made = int(datetime.now(UTC).timestamp()) + number
        key = f"sub_{number}"
        body = builders.subscription(
            id=key, customer=customer or self.customer(), status=status, metadata=metadata, created=made
        )
        self.billing.put_subscription(body)
        return key

    def owe(self) -> str:
        key, now = self.subscribe(), int(datetime.now(UTC).timestamp())
        invoice = builders.invoice(subscription=key, status="open", created=now, due_date=now + 30 * 86400)
        body = {**self.billing.subscription(key), "status": "past_due", "open_invoices": [invoice]}
        self.billing.put_subscription(body)
        return key

    def customer(self, *, deleted: bool = False) -> str:
        key = f"cus_{self.world.count('number', 'customer')}"
        self.billing.put_customer(
            {"id": key, "object": "customer", "deleted": True} if deleted else builders.customer(id=key)
        )
        return key

    def checkout(self, **metadata: str) -> tuple[str, str]:
        subscription = self.subscribe()
        self.billing.put_checkout_session(
            builders.checkout_session(id="cs_test_1", subscription=subscription, metadata=metadata)
        )
        return "cs_test_1", subscription

    def throttle(self, *, after: float) -> None:
        self.billing.fail(Retryable("Stripe: HTTP 429", after=after))


@pytest.fixture(scope="module")
def stripe_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeFixture]:
    with run_stripe(tmp_path_factory.mktemp("stripe")) as fixture:
        yield fixture


@pytest.fixture(params=["fake server", "fake"])
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return FakeServer(request.getfixturevalue("stripe_fixture")) if request.param == "fake server" else Fake()


def test_a_subscription_comes_with_its_prices_and_metadata(fixture: Fixture) -> None:
    found = fixture.billing.subscription(fixture.subscribe(slug="acme"))
    assert (found["object"], found["status"], found["metadata"]) == (
        "subscription",
        "active",
        {"slug": "acme"},
    )
    (item,) = found["items"]["data"]
    assert (item["price"]["lookup_key"], item["quantity"]) == ("shared", 1)
    assert item["current_period_end"] > item["current_period_start"]


def test_objects_are_plain_json(fixture: Fixture) -> None:
    found = fixture.billing.subscription(fixture.subscribe())

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(plain(item) for item in value)
        return value is None or isinstance(value, str | int | float | bool)

    assert plain(found)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("status", ["trialing", "past_due", "canceled", "unpaid", "paused", "incomplete"])
def test_the_status_is_the_current_one(fixture: Fixture, status: str) -> None:
    assert fixture.billing.subscription(fixture.subscribe(status=status))["status"] == status


def test_one_that_is_past_due_names_what_is_owed_and_since_when(fixture: Fixture) -> None:
    owing, paying = fixture.owe(), fixture.subscribe()
    alone = fixture.billing.subscription(owing)
    listed = {found["id"]: fixture.billing.whole(found) for found in fixture.billing.subscriptions()}
    of_customer = fixture.billing.subscriptions_of(alone["customer"])
    for found in (alone, listed[owing], of_customer[0]):
        assert {invoice["status"] for invoice in found["open_invoices"]} == {"open"}
        terms = [i["due_date"] - i["created"] for i in found["open_invoices"] if i["due_date"] is not None]
        assert 30 * 86400 in terms
    assert "open_invoices" not in listed[paying]
    assert "open_invoices" not in fixture.billing.subscription(paying)


def test_a_customers_subscriptions_are_all_of_them_and_nobody_elses(fixture: Fixture) -> None:
    customer = fixture.customer()
    ended, active = (
        fixture.subscribe(customer=customer, status="canceled"),
        fixture.subscribe(customer=customer),
    )
    fixture.subscribe()
    assert [item["id"] for item in fixture.billing.subscriptions_of(customer)] == [active, ended]
    assert fixture.billing.subscriptions_of(fixture.customer()) == []


def test_all_subscriptions_page_by_page(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_billing, "PAGE_SIZE", 2)
    made = [fixture.subscribe() for _ in range(5)]
    unpaid = fixture.subscribe(status="unpaid")
    found = [item["id"] for item in fixture.billing.subscriptions()]
    assert [key for key in found if key in made] == made[::-1]
    assert unpaid in found
    assert len(found) == len(set(found))
    statuses = {item["id"]: item["status"] for item in fixture.billing.subscriptions("unpaid")}
    assert statuses[unpaid] == "unpaid"
    assert set(statuses.values()) == {"unpaid"}


def test_a_customer_and_what_is_left_of_a_deleted_one(fixture: Fixture) -> None:
    assert fixture.billing.customer(fixture.customer())["object"] == "customer"
    key = fixture.customer(deleted=True)
    assert fixture.billing.customer(key) == {"id": key, "object": "customer", "deleted": True}


def test_a_checkout_session_names_its_subscription(fixture: Fixture) -> None:
    session, subscription = fixture.checkout(slug="acme")
    found = fixture.billing.checkout_of(subscription)
    assert found is not None
    assert (found["id"], found["subscription"], found["payment_status"]) == (session, subscription, "paid")
    assert found["metadata"] == {"slug": "acme"}


def test_a_subscription_that_was_bought_without_a_checkout_has_none(fixture: Fixture) -> None:
    assert fixture.billing.checkout_of(fixture.subscribe()) is None


def test_what_is_not_there_is_not_found(fixture: Fixture) -> None:
    with pytest.raises(NotFound, match="sub_missing"):
        fixture.billing.subscription("sub_missing")
    with pytest.raises(NotFound, match="cus_missing"):
        fixture.billing.customer("cus_missing")


@pytest.mark.parametrize("key", ["", "../customers", "sub_1?expand=x", "sub_1\n"])
def test_an_id_that_is_none_is_never_sent(fixture: Fixture, key: str) -> None:
    with pytest.raises(Invalid, match="subscription_id"):
        fixture.billing.subscription(key)
    with pytest.raises(Invalid, match="customer_id"):
        fixture.billing.subscriptions_of(key)


def test_a_rate_limit_says_when_to_come_back(fixture: Fixture) -> None:
    key = fixture.subscribe()
    fixture.throttle(after=7)
    with pytest.raises(Retryable) as raised:
        fixture.billing.subscription(key)
    assert raised.value.after == 7
    assert fixture.billing.subscription(key)["id"] == key
