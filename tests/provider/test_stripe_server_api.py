"""The Stripe fake server's manners: keys, errors, idempotency, paging, expansion, as the SDK meets them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe

from tests.harness.stripe import (
    KEY,
    StripeFixture,
    make_client,
    plain,
    run_stripe,
)


@pytest.fixture(scope="module")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeFixture]:
    with run_stripe(tmp_path_factory.mktemp("stripe")) as fixture:
        yield fixture


@pytest.fixture
def fixture(fake_server: StripeFixture) -> StripeFixture:
    fake_server.control.clear_faults()
    return fake_server


@pytest.mark.parametrize("key", ["sk_test_somebody_elses_key", "sk_live_0123456789", "x"])
def test_another_key_is_refused_and_not_repeated(fixture: StripeFixture, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key provided") as raised:
        make_client(fixture.url, key=key).v1.customers.list()
    assert raised.value.http_status == 401
    assert key not in str(raised.value.user_message)  # without the request's id, whose letters are drawn


def test_no_key_is_refused(fixture: StripeFixture) -> None:
    answer = httpx.get(f"{fixture.url}/v1/customers")
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["Request-Id"].startswith("req_")


@pytest.mark.parametrize(
    ("call", "status", "code", "param"),
    [
        (("POST", "/v1/customers", {"nam": "x"}), 400, "parameter_unknown", "nam"),
        (("POST", "/v1/customers", {"metadata[a]": "x" * 501}), 400, None, "metadata"),
        (("POST", "/v1/products", {}), 400, "parameter_missing", "name"),
        (
            ("POST", "/v1/prices", {"currency": "usd", "unit_amount": "-1", "product": "p"}),
            400,
            "parameter_invalid_integer",
            "unit_amount",
        ),
        (("POST", "/v1/subscriptions", {"customer": "cus_x"}), 400, "resource_missing", "customer"),
        (("GET", "/v1/subscriptions?status=open", None), 400, None, "status"),
        (("GET", "/v1/subscriptions?limit=101", None), 400, "parameter_invalid_integer", "limit"),
        (("GET", "/v1/subscriptions?starting_after=sub_x", None), 400, "resource_missing", "starting_after"),
        (("GET", "/v1/subscriptions/sub_x", None), 404, "resource_missing", "id"),
        (("GET", "/v1/charges", None), 404, None, None),
        (("PUT", "/v1/customers", {}), 404, None, None),
        (
            ("POST", "/v1/customers", {"a[b][c][d][e][f][g][h][i]": "x"}),
            400,
            None,
            "a[b][c][d][e][f][g][h][i]",
        ),
        (
            ("POST", "/v1/webhook_endpoints", {"url": "https://acme.dev/", "enabled_events[]": "*"}),
            400,
            None,
            "url",
        ),
    ],
)
def test_refusals_name_code_and_parameter(
    fixture: StripeFixture, call: tuple[str, str, Any], status: int, code: str | None, param: str | None
) -> None:
    method, path, data = call
    answer = httpx.request(method, fixture.url + path, data=data, headers={"Authorization": f"Bearer {KEY}"})
    error = answer.json()["error"]
    assert (answer.status_code, error.get("code"), error.get("param")) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_a_refused_call_leaves_nothing(fixture: StripeFixture) -> None:
    before = len(list(fixture.client.v1.events.list({"limit": 100}).auto_paging_iter()))
    customer = fixture.customer("pm_card_chargeCustomerFail")
    with pytest.raises(stripe.CardError, match="declined"):
        fixture.client.v1.subscriptions.create(
            {
                "customer": customer,
                "items": [{"price": fixture.prices["shared"]}],
                "payment_behavior": "error_if_incomplete",
            }
        )
    assert fixture.client.v1.subscriptions.list({"customer": customer, "status": "all"}).data == []
    after = len(list(fixture.client.v1.events.list({"limit": 100}).auto_paging_iter()))
    assert after == before + 1  # the customer's own


def test_one_idempotency_key_makes_one_object(fixture: StripeFixture) -> None:
    params: Any = {"name": "Acme"}
    first = fixture.client.v1.customers.create(params, options={"idempotency_key": "k-1"})
    again = fixture.client.v1.customers.create(params, options={"idempotency_key": "k-1"})
    assert again.id == first.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        fixture.client.v1.customers.create({"name": "Bolt"}, options={"idempotency_key": "k-1"})


def test_a_lost_answer_is_replayed_to_the_sdks_own_retry(fixture: StripeFixture) -> None:
    fixture.control.set_faults(api=[{"status": 500, "count": 1, "when": "after", "method": "POST"}])
    name = "the answer got lost"
    made = make_client(fixture.url, retries=2).v1.customers.create({"name": name})
    found = [item.id for item in fixture.client.v1.customers.list({"limit": 100}).data if item.name == name]
    assert found == [made.id]


def test_lists_page_forwards_and_backwards(fixture: StripeFixture) -> None:
    customers = fixture.client.v1.customers
    made = [customers.create({"email": "pages@acme.dev"}).id for _ in range(7)][::-1]
    assert [
        item.id for item in customers.list({"email": "pages@acme.dev", "limit": 3}).auto_paging_iter()
    ] == made
    first = customers.list({"email": "pages@acme.dev", "limit": 3})
    assert ([item.id for item in first.data], first.has_more) == (made[:3], True)
    rest = customers.list({"email": "pages@acme.dev", "limit": 5, "starting_after": made[2]})
    assert ([item.id for item in rest.data], rest.has_more) == (made[3:], False)
    back = customers.list({"email": "pages@acme.dev", "limit": 2, "ending_before": made[4]})
    assert ([item.id for item in back.data], back.has_more) == (made[2:4], True)


def test_expansion_reaches_through_lists(fixture: StripeFixture) -> None:
    subscription = fixture.subscribe(slug="acme")
    wanted: Any = {"expand": ["customer", "latest_invoice", "items.data.price.product"]}
    found = plain(fixture.client.v1.subscriptions.retrieve(subscription.id, wanted))
    assert found["customer"]["email"] == "billing@acme.dev"
    assert found["latest_invoice"]["status"] == "paid"
    assert found["items"]["data"][0]["price"]["product"]["name"] == "shared"
    listed = plain(fixture.client.v1.subscriptions.list({"limit": 1, "expand": ["data.customer"]}))
    assert listed["data"][0]["customer"]["object"] == "customer"
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        fixture.client.v1.subscriptions.retrieve(subscription.id, {"expand": ["status"]})


def test_lookup_keys_are_unique_and_can_be_handed_over(fixture: StripeFixture) -> None:
    price: Any = {"currency": "usd", "unit_amount": 100, "recurring": {"interval": "month"}}
    prices = fixture.client.v1.prices
    first = prices.create({**price, "product_data": {"name": "One"}, "lookup_key": "handed"})
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        prices.create({**price, "product": first.product, "lookup_key": "handed"})
    second = prices.create(
        {**price, "product": first.product, "lookup_key": "handed", "transfer_lookup_key": True}
    )
    assert [item.id for item in prices.list({"lookup_keys": ["handed"]}).data] == [second.id]
    assert prices.retrieve(first.id).lookup_key is None


def test_a_webhook_secret_is_shown_once(fixture: StripeFixture) -> None:
    endpoints = fixture.client.v1.webhook_endpoints
    made = endpoints.create({"url": "http://127.0.0.1:9/", "enabled_events": ["customer.created"]})
    assert made.secret is not None
    assert made.secret.startswith("whsec_")
    assert "secret" not in endpoints.retrieve(made.id)
    changed = endpoints.update(made.id, {"enabled_events": ["*"], "disabled": True})
    assert (changed.enabled_events, changed.status) == (["*"], "disabled")
    endpoints.delete(made.id)
    with pytest.raises(stripe.InvalidRequestError, match="No such webhook endpoint"):
        endpoints.retrieve(made.id)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"api": [{"status": 200}]}, r"api\[0\].status"),
        ({"api": [{"when": "during"}]}, r"api\[0\].when"),
        ({"api": [{"delay_seconds": 1e9}]}, r"api\[0\].delay_seconds"),
        ({"api": [{"colour": 1}]}, r"api\[0\].colour"),
        ({"api": {}}, "api: expected a list"),
        ({"deliveries": {"drop": 2}}, "deliveries.drop"),
        ({"deliveries": {"hold": 1}}, "deliveries.hold"),
        ({"weather": 1}, "weather: unknown"),
    ],
)
def test_a_wrong_fault_switch_is_named(fixture: StripeFixture, body: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        fixture.control.call("POST", "/faults", body)


def test_objects_outlive_a_restart(tmp_path: Path) -> None:
    with run_stripe(tmp_path) as fixture:
        subscription = fixture.subscribe(slug="acme")
        fixture.control.advance(5 * 86400)
        ahead = fixture.control.call("GET", "/clock")["ahead_seconds"]
        fixture.crash()
        found = plain(fixture.client.v1.subscriptions.retrieve(subscription.id))
        assert found["metadata"] == {"slug": "acme"}
        assert fixture.control.call("GET", "/clock")["ahead_seconds"] == ahead
