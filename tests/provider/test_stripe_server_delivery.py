"""The Stripe fake server's webhooks: signed, retried, doubled, lost, late and out of order, on demand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stripe

from controlplane.localcloud.servers.fake_http.store import ObjectStore
from controlplane.localcloud.stripe.account import Account, Settings
from controlplane.localcloud.stripe.delivery import Deliverer
from controlplane.localcloud.stripe.server import make_app
from tests.harness.stripe import (
    Receiver,
    StripeFixture,
    run_receiver,
    run_stripe,
    run_stripe_here,
)

TOLERANCE = 300


@pytest.fixture
def fixture() -> Iterator[StripeFixture]:
    with run_stripe_here(retry_seconds=(0.05, 0.1, 3600)) as fixture:
        yield fixture


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as receiver:
        yield receiver


def listen(fixture: StripeFixture, receiver: Receiver, *types: str, version: str = "") -> tuple[str, str]:
    """An endpoint for these types; its id and secret."""
    made = fixture.client.v1.webhook_endpoints.create(
        {
            "url": receiver.url,
            "enabled_events": list(types or ("customer.created",)),  # type: ignore[typeddict-item]
            **({"api_version": version} if version else {}),  # type: ignore[typeddict-item]
        }
    )
    return made.id, str(made.secret)


def ids(receiver: Receiver) -> list[str]:
    return [json.loads(body)["id"] for body in receiver.bodies()]


def test_events_arrive_signed_as_the_sdk_verifies(fixture: StripeFixture, receiver: Receiver) -> None:
    _, secret = listen(fixture, receiver, "customer.subscription.*")
    subscription = fixture.subscribe(slug="acme", name="Ä♥")
    fixture.control.wait_until_delivered()
    (hook,) = receiver.hooks
    event = stripe.Webhook.construct_event(hook.body, hook.signature, secret, tolerance=TOLERANCE)
    assert event.type == "customer.subscription.created"
    assert event.data.object["id"] == subscription.id
    assert event.data.object["metadata"]["name"] == "Ä♥"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(hook.body + b" ", hook.signature, secret)


def test_only_what_an_endpoint_asked_for_arrives(fixture: StripeFixture, receiver: Receiver) -> None:
    listen(fixture, receiver, "customer.subscription.updated", "invoice.*")
    fixture.subscribe()
    fixture.control.wait_until_delivered()
    types = {json.loads(body)["type"] for body in receiver.bodies()}
    assert types == {
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
        "invoice.updated",
    }


def test_the_endpoints_version_decides_the_shape(fixture: StripeFixture, receiver: Receiver) -> None:
    listen(fixture, receiver, "customer.subscription.created", version="2024-06-20")
    fixture.subscribe()
    fixture.control.wait_until_delivered()
    event = json.loads(receiver.bodies()[0])
    assert event["api_version"] == "2024-06-20"
    assert event["data"]["object"]["current_period_end"]


def test_a_failed_delivery_is_tried_again_with_a_new_signature(
    fixture: StripeFixture, receiver: Receiver
) -> None:
    _, secret = listen(fixture, receiver)
    receiver.statuses = [503, 500]
    fixture.customer()
    fixture.control.wait_until_delivered()
    assert len(set(ids(receiver))) == 1
    assert len(receiver.hooks) == 3
    for hook in receiver.hooks:
        stripe.Webhook.construct_event(hook.body, hook.signature, secret, tolerance=TOLERANCE)
    (delivery,) = fixture.control.deliveries()
    assert [attempt["status"] for attempt in delivery["attempts"]] == [503, 500, 200]
    assert delivery["state"] == "delivered"
    assert fixture.client.v1.events.list().data[0].pending_webhooks == 0


def test_long_waits_are_skipped_by_advancing_the_clock(fixture: StripeFixture, receiver: Receiver) -> None:
    _, secret = listen(fixture, receiver)
    receiver.statuses = [500, 500, 500]
    fixture.customer()
    deadline = time.monotonic() + 10
    while len(receiver.hooks) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    assert [item["state"] for item in fixture.control.deliveries()] == ["pending"]
    assert fixture.client.v1.events.list().data[0].pending_webhooks == 1
    fixture.control.advance(3600)
    fixture.control.wait_until_delivered()
    # An hour ahead by the fake server's clock, but signed by the machine's.
    assert len(receiver.hooks) == 4
    assert abs(int(receiver.hooks[-1].signature.split(",")[0][2:]) - time.time()) < 60
    stripe.Webhook.construct_event(receiver.hooks[-1].body, receiver.hooks[-1].signature, secret)


def test_retries_end(fixture: StripeFixture, receiver: Receiver) -> None:
    listen(fixture, receiver)
    receiver.statuses = [500] * 10
    fixture.customer()
    deadline = time.monotonic() + 10
    while len(receiver.hooks) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    fixture.control.advance(3600)
    fixture.control.wait_until_delivered()
    assert [(item["state"], len(item["attempts"])) for item in fixture.control.deliveries()] == [
        ("failed", 4)
    ]


def test_an_endpoint_nobody_serves_is_recorded(fixture: StripeFixture, receiver: Receiver) -> None:
    made = fixture.client.v1.webhook_endpoints.create(
        {"url": "http://127.0.0.1:1/hook", "enabled_events": ["customer.created"]}
    )
    fixture.customer()
    deadline = time.monotonic() + 10
    attempts: list[dict[str, str]] = []
    while len(attempts) < 3 and time.monotonic() < deadline:
        (delivery,) = fixture.control.deliveries(endpoint=made.id)
        attempts = delivery["attempts"]
        time.sleep(0.02)
    assert "ConnectError" in attempts[0]["error"]


def test_both_secrets_sign_while_one_is_rolled(fixture: StripeFixture, receiver: Receiver) -> None:
    endpoint, old = listen(fixture, receiver)
    new = fixture.control.roll_secret(endpoint, overlap_seconds=60)
    fixture.customer()
    fixture.control.wait_until_delivered()
    (hook,) = receiver.hooks
    assert hook.signature.count("v1=") == 2
    for secret in (old, new):
        stripe.Webhook.construct_event(hook.body, hook.signature, secret)
    fixture.control.advance(61)
    fixture.customer()
    fixture.control.wait_until_delivered()
    hook = receiver.hooks[-1]
    stripe.Webhook.construct_event(hook.body, hook.signature, new)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(hook.body, hook.signature, old)


def test_duplicates(fixture: StripeFixture, receiver: Receiver) -> None:
    listen(fixture, receiver)
    fixture.control.set_faults(deliveries={"duplicates": 4})
    fixture.customer()
    fixture.control.wait_until_delivered()
    assert len(receiver.hooks) == 5
    assert len(set(ids(receiver))) == 1


def test_lost_webhooks_leave_their_events(fixture: StripeFixture, receiver: Receiver) -> None:
    listen(fixture, receiver)
    fixture.control.set_faults(deliveries={"drop": 1})
    fixture.customer()
    fixture.control.wait_until_delivered()
    assert receiver.hooks == []
    assert [item["state"] for item in fixture.control.deliveries()] == ["dropped"]
    assert len(fixture.client.v1.events.list({"type": "customer.created"}).data) == 1


def test_late_webhooks(fixture: StripeFixture, receiver: Receiver) -> None:
    listen(fixture, receiver)
    fixture.control.set_faults(deliveries={"delay_seconds": 600})
    fixture.customer()
    time.sleep(0.5)
    assert receiver.hooks == []
    fixture.control.advance(600)
    fixture.control.wait_until_delivered()
    assert len(receiver.hooks) == 1


def test_held_webhooks_leave_shuffled_by_the_seed() -> None:
    def order(seed: int) -> list[int]:
        """In which order ten customers' events arrive."""
        with (
            run_stripe_here(delivery_threads=1) as fixture,
            run_receiver() as receiver,
        ):
            listen(fixture, receiver)
            fixture.control.set_faults(deliveries={"hold": True})
            for number in range(10):
                fixture.customer(name=str(number))
            time.sleep(0.3)
            assert receiver.hooks == []
            assert fixture.control.release(seed=seed) == 10
            fixture.control.wait_until_delivered()
            return [int(json.loads(body)["data"]["object"]["name"]) for body in receiver.bodies()]

    first, again, other = order(7), order(7), order(8)
    assert first == again
    assert first != other
    assert sorted(first) == list(range(10))
    assert first != list(range(10))


def test_a_reorder_window_empties_itself(fixture: StripeFixture, receiver: Receiver) -> None:
    listen(fixture, receiver)
    fixture.control.set_faults(deliveries={"reorder_window": 5, "seed": 3})
    for number in range(7):
        fixture.customer(name=str(number))
    deadline = time.monotonic() + 10
    while len(receiver.hooks) < 7 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(set(ids(receiver))) == 7


def test_an_event_can_be_sent_again(fixture: StripeFixture, receiver: Receiver) -> None:
    listen(fixture, receiver)
    fixture.customer()
    fixture.control.wait_until_delivered()
    assert fixture.control.resend(ids(receiver)[0]) == 1
    fixture.control.wait_until_delivered()
    assert len(ids(receiver)) == 2
    assert len(set(ids(receiver))) == 1


def test_a_disabled_endpoint_gets_nothing(fixture: StripeFixture, receiver: Receiver) -> None:
    endpoint, _ = listen(fixture, receiver)
    fixture.client.v1.webhook_endpoints.update(endpoint, {"disabled": True})
    fixture.customer()
    assert fixture.control.deliveries() == []


def test_what_was_on_its_way_is_delivered_after_a_crash(tmp_path: Path, receiver: Receiver) -> None:
    with run_stripe(tmp_path) as fixture:
        _, secret = listen(fixture, receiver)
        fixture.control.set_faults(deliveries={"delay_seconds": 600})
        fixture.customer()
        fixture.crash()
        fixture.control.advance(600)
        fixture.control.wait_until_delivered()
        (hook,) = receiver.hooks
        stripe.Webhook.construct_event(hook.body, hook.signature, secret)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_deliverer_that_broke_down_is_seen() -> None:
    account = Account(ObjectStore(None), Settings())
    account.store.put("subscription", "sub_x", {"id": "sub_x", "broken": True}, created=0, due=1)
    health = make_app(account).test_client()
    assert health.get("/_localcloud/health").status_code == 200
    deliverer = Deliverer(account)
    deliverer.start()
    deliverer.stop()
    answer = health.get("/_localcloud/health")
    assert answer.status_code == 503
    assert "deliveries have stopped: KeyError" in answer.get_json()["status"]
