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


def test_a_listing_has_an_end(
    stripe_fixture: StripeFixture, billing: StripeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_billing, "MAX_OBJECTS", 2)
    for _ in range(3):
        stripe_fixture.subscribe()
    found = billing.subscriptions()
    assert [next(found)["object"], next(found)["object"]] == ["subscription", "subscription"]
    with pytest.raises(NeedsHuman, match="more than 2 subscriptions") as raised:
        next(found)
    assert raised.value.runbook == "billing-listing-limit"


def test_a_refused_lookup_is_no_refused_caller(billing: StripeBilling) -> None:
    """NotFound is the only Refused that a lookup may raise."""
    with pytest.raises(Refused, match="knows no subscription sub_missing"):
        billing.subscription("sub_missing")
