"""The Stripe fake server's objects beside Stripe's own examples: every key is there, of the same kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.stripe import (
    StripeFixture,
    make_client,
    plain,
    run_stripe,
)

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "stripe" / "objects.json"
# Keys that Stripe's examples still carry and its current version no longer has.
GONE = {
    "invoice.subscription",  # stands at parent.subscription_details.subscription
    "invoice.lines.data[].subscription",
}
# What the fake server's objects are not about: the examples show a quote, an invoice item, a shipment.
NOT_COMPARED = {"invoice.lines.data[].parent.invoice_item_details"}


@pytest.fixture(scope="module")
def stripe_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeFixture]:
    with run_stripe(tmp_path_factory.mktemp("stripe")) as fixture:
        yield fixture


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    if not REFERENCE.exists():
        pytest.skip("Stripe's example objects are not on this machine")
    found: dict[str, Any] = json.loads(REFERENCE.read_text())
    return found


@pytest.fixture(scope="module")
def objects(stripe_fixture: StripeFixture) -> dict[str, Any]:
    """One of each, as the SDK received it."""
    client = stripe_fixture.client.v1
    subscription = stripe_fixture.subscribe()
    item = subscription["items"].data[0]
    session = client.checkout.sessions.create(
        {
            "mode": "subscription",
            "success_url": "https://acme.dev/",
            "line_items": [{"price": stripe_fixture.prices["shared"], "quantity": 1}],
        }
    )
    stripe_fixture.control.complete_checkout(session.id)
    endpoint = client.webhook_endpoints.create(
        {"url": "http://127.0.0.1:9/hook", "enabled_events": ["customer.created"]}
    )
    found = {
        "subscription": client.subscriptions.retrieve(subscription.id),
        "invoice": client.invoices.retrieve(str(subscription.latest_invoice)),
        "checkout.session": client.checkout.sessions.retrieve(session.id),
        "customer": client.customers.retrieve(str(subscription.customer)),
        "price": client.prices.retrieve(item.price.id),
        "product": client.products.retrieve(str(item.price.product)),
        "event": client.events.retrieve(client.events.list({"type": "customer.created"}).data[0].id),
        "webhook_endpoint": client.webhook_endpoints.retrieve(endpoint.id),
    }
    shown = {name: plain(item) for name, item in found.items()}
    return {**shown, "subscription_item": shown["subscription"]["items"]["data"][0]}


def kind(value: Any) -> str:
    return {bool: "boolean", int: "number", float: "number", str: "string", dict: "object", list: "array"}[
        type(value)
    ]


def differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Where `ours` lacks a key of `theirs` or has another kind of value. Null says nothing about a
    kind, and an empty list nothing about its items."""
    if path in NOT_COMPARED or ours is None or theirs is None:
        return
    if kind(ours) != kind(theirs):
        yield f"{path}: {kind(ours)}, expected {kind(theirs)}"
    elif isinstance(theirs, dict) and not path.endswith(("metadata", "data.object")):
        for key in theirs:
            name = f"{path}.{key}"
            if key in ours:
                yield from differences(ours[key], theirs[key], name)
            elif name not in GONE:
                yield f"{name}: missing"
    elif isinstance(theirs, list) and theirs and ours:
        yield from differences(ours[0], theirs[0], f"{path}[]")


@pytest.mark.parametrize(
    "name",
    [
        "checkout.session",
        "customer",
        "event",
        "invoice",
        "price",
        "product",
        "subscription",
        "subscription_item",
        "webhook_endpoint",
    ],
)
def test_every_key_of_stripes_example_is_there(
    objects: dict[str, Any], examples: dict[str, Any], name: str
) -> None:
    assert list(differences(objects[name], examples[name], name)) == []
    assert objects[name]["object"] == examples[name]["object"]


def test_the_comparison_would_notice(examples: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(examples["subscription"]))
    del broken["items"]["data"][0]["price"]["lookup_key"]
    broken["status"] = 1
    assert list(differences(broken, examples["subscription"], "subscription")) == [
        "subscription.items.data[].price.lookup_key: missing",
        "subscription.status: number, expected string",
    ]


def test_the_period_stands_where_the_version_says(
    stripe_fixture: StripeFixture, objects: dict[str, Any]
) -> None:
    current = objects["subscription"]
    assert "current_period_end" not in current
    old = plain(
        stripe_fixture.client.v1.subscriptions.retrieve(
            current["id"], options={"stripe_version": "2024-06-20"}
        )
    )
    assert old["current_period_end"] == current["items"]["data"][0]["current_period_end"]
    assert old["current_period_start"] == current["items"]["data"][0]["current_period_start"]
    assert "current_period_end" not in old["items"]["data"][0]


def test_an_invoice_names_its_subscription_where_the_version_says(
    stripe_fixture: StripeFixture, objects: dict[str, Any]
) -> None:
    current = objects["invoice"]
    subscription = current["parent"]["subscription_details"]["subscription"]
    assert "subscription" not in current
    old = plain(
        stripe_fixture.client.v1.invoices.retrieve(current["id"], options={"stripe_version": "2024-06-20"})
    )
    assert old["subscription"] == subscription
    assert "parent" not in old


def test_an_account_of_an_older_version_shows_older_shapes(tmp_path: Path) -> None:
    with run_stripe(tmp_path, "--api-version", "2024-06-20") as fixture:
        subscription = fixture.subscribe()
        event = fixture.client.v1.events.list({"type": "customer.subscription.created"}).data[0]
        assert event.api_version == "2024-06-20"
        # The SDK asks for the current version; only what has none of its own follows the account.
        assert "current_period_end" not in make_client(fixture.url).v1.subscriptions.retrieve(subscription.id)
