"""How the Cloudflare provider translates what goes wrong, and that the token stays out of it."""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.domain.errors import ControlPlaneError, Invalid, NeedsHuman, Refused, Retryable
from controlplane.localcloud.cloudflare.zone import Limits
from controlplane.workers.providers.cloudflare_hostnames import CloudflareHostnames
from tests.harness.cloudflare import (
    TOKEN,
    ZONE,
    CloudflareFixture,
    run_cloudflare_here,
)

HOST, OURS = "notes.acme.dev", "t-aaaaaaaaaaaa"
NOBODY = "0d89c70d-ad9f-4843-b99f-6cc0252067e9"


@pytest.fixture
def fixture() -> Iterator[CloudflareFixture]:
    with run_cloudflare_here() as fixture:
        yield fixture


@pytest.fixture
def hostnames(fixture: CloudflareFixture) -> CloudflareHostnames:
    return CloudflareHostnames(TOKEN, ZONE, fixture.base)


def the_traceback(error: BaseException) -> str:
    """Everything a log would show of an error: all causes, all messages."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("status", "kind", "runbook"),
    [
        (400, NeedsHuman, "cloudflare-refusal"),
        (401, NeedsHuman, "cloudflare-credentials"),
        (403, NeedsHuman, "cloudflare-credentials"),
        (408, Retryable, None),
        (409, Retryable, None),
        (429, Retryable, None),
        (500, Retryable, None),
        (503, Retryable, None),
        (524, Retryable, None),
    ],
)
def test_each_status_names_who_acts_next(
    fixture: CloudflareFixture,
    hostnames: CloudflareHostnames,
    status: int,
    kind: type[ControlPlaneError],
    runbook: str | None,
) -> None:
    calls: list[Any] = [
        lambda: hostnames.find(HOST),
        lambda: hostnames.create(HOST, OURS),
        lambda: hostnames.delete(NOBODY),
    ]
    fixture.control.set_faults(api=[{"status": status, "count": len(calls)}])
    for call in calls:
        with pytest.raises(kind) as raised:
            call()
        assert getattr(raised.value, "runbook", None) == runbook
        assert f"HTTP {status}" in str(raised.value)
        assert TOKEN not in the_traceback(raised.value)
    assert fixture.control.call("GET", "/faults")["api"] == []  # each cost one call: the SDK did not retry


def test_a_duplicate_costs_one_post_and_one_look(fixture: CloudflareFixture) -> None:
    with run_cloudflare_here(limits=Limits(requests=100, window=60)) as counted:
        hostnames = CloudflareHostnames(TOKEN, ZONE, counted.base)
        hostnames.create(HOST, OURS)
        before = int(counted.request("GET").headers["x-ratelimit-remaining"])
        hostnames.create(HOST, OURS)
        after = int(counted.request("GET").headers["x-ratelimit-remaining"])
        assert before - after == 3  # POST, GET and the look of this test itself


def test_a_created_hostname_whose_answer_got_lost_is_adopted(
    fixture: CloudflareFixture, hostnames: CloudflareHostnames
) -> None:
    fixture.control.set_faults(api=[{"status": 502, "count": 1, "when": "after", "method": "POST"}])
    with pytest.raises(Retryable):
        hostnames.create(HOST, OURS)
    seen = hostnames.find(HOST)
    assert seen is not None
    assert hostnames.create(HOST, OURS).id == seen.id


def test_a_created_hostname_whose_answer_came_too_late_is_adopted(
    fixture: CloudflareFixture, hostnames: CloudflareHostnames
) -> None:
    """Who waited for the answer would get it, and raise nothing."""
    fixture.control.set_faults(api=[{"delay_seconds": 3, "count": 1, "when": "after", "method": "POST"}])
    with pytest.raises(Retryable, match="can't be reached"):
        CloudflareHostnames(TOKEN, ZONE, fixture.base, timeout=0.5).create(HOST, OURS)
    assert hostnames.create(HOST, OURS).tenant_id == OURS


def test_success_false_with_status_200_is_a_failure(
    fixture: CloudflareFixture, hostnames: CloudflareHostnames
) -> None:
    made = hostnames.create(HOST, OURS)
    calls: list[Any] = [
        lambda: hostnames.find(HOST),
        lambda: hostnames.create("other.acme.dev", OURS),
        lambda: hostnames.delete(made.id),
        hostnames.quota_left,
    ]
    fixture.control.set_faults(unsuccessful=len(calls))
    for call in calls:
        with pytest.raises(Retryable, match="HTTP 200, codes 1500"):
            call()
    assert hostnames.find(HOST) is not None


def test_the_real_limit_asks_for_the_whole_window() -> None:
    with run_cloudflare_here(limits=Limits(requests=3, window=300)) as fixture:
        hostnames = CloudflareHostnames(TOKEN, ZONE, fixture.base)
        for _ in range(3):
            hostnames.find(HOST)
        with pytest.raises(Retryable, match="HTTP 429") as raised:
            hostnames.find(HOST)
        assert raised.value.after is not None
        assert 290 <= raised.value.after <= 300


def test_a_mistaken_retry_after_does_not_park_for_a_day(
    fixture: CloudflareFixture, hostnames: CloudflareHostnames
) -> None:
    fixture.control.set_faults(api=[{"status": 429, "count": 1, "retry_after": 3600}])
    with pytest.raises(Retryable) as raised:
        hostnames.find(HOST)
    assert raised.value.after == 900


@pytest.mark.parametrize(
    ("settings", "runbook"),
    [
        ({"quota": 0}, "cloudflare-quota"),
        ({"metadata": False}, "cloudflare-custom-metadata"),
    ],
)
def test_what_the_plan_lacks_is_for_a_person(
    fixture: CloudflareFixture, hostnames: CloudflareHostnames, settings: dict[str, Any], runbook: str
) -> None:
    fixture.control.set_zone(**settings)
    with pytest.raises(NeedsHuman) as raised:
        hostnames.create(HOST, OURS)
    assert raised.value.runbook == runbook


def test_the_quotas_end(fixture: CloudflareFixture, hostnames: CloudflareHostnames) -> None:
    fixture.control.set_zone(quota=1)
    assert hostnames.quota_left() == 1
    hostnames.create(HOST, OURS)
    assert hostnames.quota_left() == 0
    with pytest.raises(NeedsHuman, match="1405") as raised:
        hostnames.create("other.acme.dev", OURS)
    assert raised.value.runbook == "cloudflare-quota"


@pytest.mark.parametrize(
    ("origins", "origin", "created"),
    [
        (frozenset({"eu.saas.internal"}), "eu.saas.internal", True),
        (frozenset({"eu.saas.internal"}), "us.saas.internal", False),
        (None, "eu.saas.internal", False),
    ],
)
def test_a_custom_origin_must_be_the_zones(
    origins: frozenset[str] | None, origin: str, created: bool
) -> None:
    with run_cloudflare_here(origins=origins) as fixture:
        hostnames = CloudflareHostnames(TOKEN, ZONE, fixture.base, origin=origin)
        if created:
            assert fixture.get(hostnames.create(HOST, OURS).id).custom_origin_server == origin
            return
        with pytest.raises(NeedsHuman) as raised:
            hostnames.create(HOST, OURS)
        assert raised.value.runbook == "cloudflare-custom-origin"


def test_another_token_or_zone(fixture: CloudflareFixture) -> None:
    wrong = "another-canary-token-0123456789"
    for token, zone in ((wrong, ZONE), (TOKEN, "0" * 32)):
        hostnames = CloudflareHostnames(token, zone, fixture.base)
        with pytest.raises(NeedsHuman) as raised:
            hostnames.find(HOST)
        assert raised.value.runbook == "cloudflare-credentials"
        assert wrong not in the_traceback(raised.value)


@pytest.mark.parametrize("token", ["", "canary token", "canary\ntoken", "canary-tökén"])
def test_a_malformed_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(Invalid, match="api_token: expected") as raised:
        CloudflareHostnames(token, ZONE)
    assert "canary" not in str(raised.value)


def test_a_malformed_zone_is_refused() -> None:
    with pytest.raises(Invalid, match="zone_id: expected"):
        CloudflareHostnames(TOKEN, "../accounts")


def test_other_credentials_of_the_environment_are_not_sent(
    fixture: CloudflareFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK would send them beside the token, and go where the environment says."""
    monkeypatch.setenv("CLOUDFLARE_API_KEY", "canary-key")
    monkeypatch.setenv("CLOUDFLARE_EMAIL", "somebody@acme.dev")
    monkeypatch.setenv("CLOUDFLARE_API_USER_SERVICE_KEY", "canary-service-key")
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", "http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        hostnames = CloudflareHostnames(
            TOKEN, ZONE, f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.3
        )
        with pytest.raises(Retryable):
            hostnames.find(HOST)
        peer, _ = server.accept()
        with peer:
            sent = peer.recv(65536).decode()
    assert f"Bearer {TOKEN}" in sent
    assert "canary-key" not in sent
    assert "canary-service-key" not in sent
    assert "somebody@acme.dev" not in sent


def test_the_token_is_in_no_repr() -> None:
    hostnames = CloudflareHostnames(TOKEN, ZONE)
    assert TOKEN not in repr(hostnames)
    assert TOKEN not in repr(vars(hostnames))


def test_nobody_listens() -> None:
    with pytest.raises(Retryable, match="can't be reached") as raised:
        CloudflareHostnames(TOKEN, ZONE, "http://127.0.0.1:1").find(HOST)
    assert TOKEN not in the_traceback(raised.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'"x"'])
def test_an_answer_that_is_not_cloudflares_is_retried(body: bytes) -> None:
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
            CloudflareHostnames(TOKEN, ZONE, f"http://127.0.0.1:{server.getsockname()[1]}").find(HOST)
        thread.join()


def test_an_id_that_is_none_is_never_sent(hostnames: CloudflareHostnames) -> None:
    """An empty id would turn a deletion of one into a request to the collection."""
    for key in ("", "../fallback_origin", "x/y"):
        with pytest.raises(Invalid, match="hostname_id: expected"):
            hostnames.delete(key)


def test_a_refused_host_is_told_with_its_code(hostnames: CloudflareHostnames) -> None:
    with pytest.raises(Refused, match="1409"):
        hostnames.create("acme.test", OURS)
