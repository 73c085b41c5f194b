"""How the Stripe provider translates what goes wrong, and that the key stays out of it."""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Iterator

import pytest

from controlplane.domain.errors import ControlPlaneError, Invalid, NeedsHuman, Refused, Retryable
from controlplane.workers.providers import stripe_billing
from controlplane.workers.providers.stripe_billing import StripeBilling
from tests.harness.stripe import (
    KEY,
    StripeFixture,
    run_stripe,
)


@pytest.fixture(scope="module")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeFixture]:
    with run_stripe(tmp_path_factory.mktemp("stripe")) as fixture:
        yield fixture


@pytest.fixture
def stripe_fixture(fake_server: StripeFixture) -> StripeFixture:
    fake_server.control.clear_faults()
    return fake_server


@pytest.fixture
def billing(stripe_fixture: StripeFixture) -> StripeBilling:
    return StripeBilling(KEY, stripe_fixture.url)


def the_traceback(error: BaseException) -> str:
    """Everything a log would show of an error: all causes, all messages."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, NeedsHuman),
        (401, NeedsHuman),
        (403, NeedsHuman),
        (402, NeedsHuman),
        (409, Retryable),
        (429, Retryable),
        (500, Retryable),
        (502, Retryable),
        (503, Retryable),
    ],
)
def test_each_status_names_who_acts_next(
    stripe_fixture: StripeFixture, billing: StripeBilling, status: int, kind: type[ControlPlaneError]
) -> None:
    stripe_fixture.control.set_faults(api=[{"status": status, "count": 1}])
    with pytest.raises(kind) as raised:
        billing.subscription("sub_1")
    assert f"HTTP {status}" in str(raised.value)
    assert "req_" in str(raised.value)
    if isinstance(raised.value, NeedsHuman):
        expected = "stripe-credentials" if status in (401, 403) else "stripe-refusal"
        assert raised.value.runbook == expected
    assert KEY not in the_traceback(raised.value)


def test_each_failure_costs_one_call(stripe_fixture: StripeFixture, billing: StripeBilling) -> None:
    stripe_fixture.control.set_faults(api=[{"status": 500, "count": 10}])
    with pytest.raises(Retryable):
        billing.subscription("sub_1")
    assert stripe_fixture.control.call("GET", "/faults")["api"][0]["count"] == 9


def test_a_key_that_stripe_does_not_know(stripe_fixture: StripeFixture) -> None:
    key = "sk_test_another_canary_0123456789"
    with pytest.raises(NeedsHuman) as raised:
        StripeBilling(key, stripe_fixture.url).subscription("sub_1")
    assert raised.value.runbook == "stripe-credentials"
    assert key not in the_traceback(raised.value)


@pytest.mark.parametrize("key", ["", "sk_test_canary\n", "sk test canary", "sk_test_cänary"])
def test_a_malformed_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(Invalid, match="api_key: expected") as raised:
        StripeBilling(key)
    assert "canary" not in str(raised.value)


def test_the_key_is_in_no_repr() -> None:
    billing = StripeBilling(KEY)
    assert KEY not in repr(billing)
    assert KEY not in repr(vars(billing))


@pytest.mark.parametrize(("header", "seconds"), [(0, 0), (2.5, 2.5), (3600, 900)])
def test_retry_after_is_honoured_up_to_a_quarter_of_an_hour(
    stripe_fixture: StripeFixture, billing: StripeBilling, header: float, seconds: float
) -> None:
    stripe_fixture.control.set_faults(api=[{"status": 429, "count": 1, "retry_after": header}])
    with pytest.raises(Retryable) as raised:
        billing.subscription("sub_1")
    assert raised.value.after == seconds


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Retryable, match="can't be reached") as raised:
        StripeBilling(KEY, f"http://127.0.0.1:{port}").subscription("sub_1")
    assert KEY not in the_traceback(raised.value)


def test_a_stall_ends_with_the_timeout(stripe_fixture: StripeFixture) -> None:
    """Who waited for the answer would get it, and raise another error."""
    stripe_fixture.control.set_faults(api=[{"delay_seconds": 5, "count": 1}])
    with pytest.raises(Retryable, match="can't be reached"):
        StripeBilling(KEY, stripe_fixture.url, timeout=0.5).subscription("sub_1")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'"x"'])
def test_an_answer_that_is_not_stripes_is_retried(body: bytes) -> None:
    """A proxy's page with status 200 must not be taken for a subscription."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                peer.sendall(head.encode() + body)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Retryable):
            StripeBilling(KEY, f"http://127.0.0.1:{server.getsockname()[1]}").subscription("sub_1")
        thread.join()


def test_a_page_that_fails_is_asked_for_again_after_as_long_as_stripe_says(
    stripe_fixture: StripeFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_billing, "PAGE_SIZE", 1)
    waited: list[float] = []
    billing = StripeBilling(KEY, stripe_fixture.url, sleep=waited.append)
    made = {stripe_fixture.subscribe().id for _ in range(3)}
    found = billing.subscriptions()
    first = next(found)["id"]
    faults = [{"status": 429, "count": 1, "retry_after": 7}, {"status": 500, "count": 1}]
    stripe_fixture.control.set_faults(api=faults)
    assert made <= {first, *(item["id"] for item in found)}
    assert waited == [7.0, 2.0]


def test_a_page_that_fails_for_good_ends_the_listing(stripe_fixture: StripeFixture) -> None:
    waited: list[float] = []
    billing = StripeBilling(KEY, stripe_fixture.url, sleep=waited.append)
    stripe_fixture.control.set_faults(api=[{"status": 429, "count": 9, "retry_after": 600}])
    with pytest.raises(Retryable):
        next(billing.subscriptions())
    assert waited == [30.0] * 3
    stripe_fixture.control.set_faults(api=[])


def test_what_a_restricted_key_may_not_read_is_named(
    stripe_fixture: StripeFixture, billing: StripeBilling
) -> None:
    assert billing.refused() == []
    faults = [{"status": 403, "count": 1, "path": path} for path in ("/v1/customers", "/v1/invoices")]
    stripe_fixture.control.set_faults(api=faults)
    assert billing.refused() == ["Invoices", "Customers"]


def test_a_refused_lookup_is_no_refused_caller(billing: StripeBilling) -> None:
    """NotFound is the only Refused that a lookup may raise."""
    with pytest.raises(Refused, match="knows no subscription sub_missing"):
        billing.subscription("sub_missing")


def test_more_items_than_stripe_shows_are_fetched(
    stripe_fixture: StripeFixture, billing: StripeBilling
) -> None:
    v1 = stripe_fixture.client.v1
    items = []
    for number in range(12):
        product = v1.products.create({"name": f"part {number}"})
        recurring = {"interval": "month"}
        price = {"product": product.id, "currency": "usd", "unit_amount": 100, "recurring": recurring}
        items.append({"price": v1.prices.create(price).id})  # type: ignore[arg-type]
    made = v1.subscriptions.create({"customer": stripe_fixture.customer(), "items": items})  # type: ignore[typeddict-item]
    assert (len(made["items"].data), made["items"].has_more) == (10, True)
    for found in (billing.subscription(made.id), *billing.subscriptions_of(str(made.customer))):
        assert [item["price"]["id"] for item in found["items"]["data"]] == [item["price"] for item in items]
        assert found["items"]["has_more"] is False


@pytest.mark.parametrize(
    ("warning", "type_"),
    [(False, "charge.dispute.created"), (True, "radar.early_fraud_warning.created")],
)
def test_a_dispute_names_a_charge_and_that_names_the_customer(
    stripe_fixture: StripeFixture, billing: StripeBilling, warning: bool, type_: str
) -> None:
    subscription = stripe_fixture.subscribe()
    told = stripe_fixture.control.dispute(subscription.id, warning=warning)
    [event] = stripe_fixture.client.v1.events.list({"types": [type_], "limit": 1}).data
    assert event.data.object["charge"] == told["charge"]
    assert billing.charge(told["charge"])["customer"] == subscription.customer


def test_recurring_prices_are_listed_archived_ones_too(
    stripe_fixture: StripeFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_billing, "PAGE_SIZE", 1)
    waited: list[float] = []
    billing, v1 = StripeBilling(KEY, stripe_fixture.url, sleep=waited.append), stripe_fixture.client.v1
    product = v1.products.create({"name": "Listed"}).id
    priced = {"product": product, "currency": "usd", "unit_amount": 100}
    once = v1.prices.create(priced)  # type: ignore[arg-type]
    monthly = [v1.prices.create({**priced, "recurring": {"interval": "month"}}).id for _ in range(2)]  # type: ignore[arg-type]
    v1.prices.update(monthly[0], {"active": False})
    listed = {price["id"]: price for price in billing.prices()}
    assert {name: listed[name]["active"] for name in monthly} == {monthly[0]: False, monthly[1]: True}
    assert listed[monthly[1]]["product"] == product
    assert once.id not in listed
    assert set(stripe_fixture.prices.values()) <= set(listed)
    stripe_fixture.control.set_faults(api=[{"status": 429, "count": 1, "retry_after": 3}])
    assert {price["id"] for price in billing.prices()} == set(listed)
    assert waited == [3.0]


def test_a_key_that_may_not_read_prices_says_so(
    stripe_fixture: StripeFixture, billing: StripeBilling
) -> None:
    """No worker needs that, so `refused` says nothing of it."""
    stripe_fixture.control.set_faults(api=[{"status": 403, "count": 9, "path": "/v1/prices"}])
    with pytest.raises(NeedsHuman, match="prices: HTTP 403") as raised:
        next(billing.prices())
    assert raised.value.runbook == "stripe-credentials"
    assert billing.refused() == []


def test_subscriptions_of_no_status_are_those_that_were_not_canceled(
    stripe_fixture: StripeFixture, billing: StripeBilling
) -> None:
    kept, owing, canceled = (stripe_fixture.subscribe().id for _ in range(3))
    stripe_fixture.control.set_status(owing, "past_due")
    stripe_fixture.client.v1.subscriptions.cancel(canceled)
    found = {item["id"]: item["status"] for item in billing.subscriptions(None)}
    assert (found[kept], found[owing], canceled in found) == ("active", "past_due", False)
    assert canceled in {item["id"] for item in billing.subscriptions()}


def test_what_makes_a_subscription_whole_is_tried_as_often_as_asked_for(
    stripe_fixture: StripeFixture,
) -> None:
    waited: list[float] = []
    billing = StripeBilling(KEY, stripe_fixture.url, sleep=waited.append)
    owing = stripe_fixture.subscribe().id
    stripe_fixture.control.set_status(owing, "past_due")
    found = next(item for item in billing.subscriptions(None) if item["id"] == owing)
    faults = [{"status": 500, "count": 1, "path": "/v1/invoices"}]
    stripe_fixture.control.set_faults(api=faults)
    with pytest.raises(Retryable):
        billing.whole(found)
    stripe_fixture.control.set_faults(api=faults)
    assert "open_invoices" in billing.whole(found, tries=2)
    assert waited == [1.0]
