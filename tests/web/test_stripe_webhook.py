import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from controlplane.domain.job import JobKind, Lane
from controlplane.localcloud.servers.process import free_port
from controlplane.store.registry import Registry
from tests.web.site import OLD_SECRET, Site, event, signed

INTAKE = [(JobKind.INTAKE, "sub_1")]


def test_an_event_is_stored_as_it_was_signed_then_notified(site: Site) -> None:
    body = event("evt_a")
    answer = site.deliver(body)
    assert (answer.status_code, answer.json) == (200, {"event": "evt_a", "new": True})
    (row,) = site.rows("SELECT * FROM stripe_event")
    assert (row["id"], row["state"], bytes(row["body"])) == ("evt_a", "received", body)
    assert site.wake_ups == [Lane.QUICK]
    assert site.jobs() == INTAKE


def test_a_duplicate_is_answered_200_and_does_nothing(site: Site) -> None:
    site.deliver(event("evt_a"))
    again = site.deliver(event("evt_a", created=1))
    assert (again.status_code, again.json) == (200, {"event": "evt_a", "new": False})
    assert len(site.rows("SELECT 1 FROM stripe_event")) == 1
    assert (site.wake_ups, site.jobs()) == ([Lane.QUICK], INTAKE)


def test_five_deliveries_at_once_make_one_row_and_one_wake_up(site: Site) -> None:
    body = event("evt_a")
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: site.deliver(body), range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert sum(answer.json["new"] for answer in answers) == 1
    assert len(site.rows("SELECT 1 FROM stripe_event")) == 1
    assert site.wake_ups == [Lane.QUICK]
    assert site.jobs() == INTAKE


def test_events_about_one_subscription_are_one_job_and_its_causes(site: Site) -> None:
    for number in range(3):
        site.deliver(event(f"evt_{number}"))
    site.deliver(event("evt_other", data={"object": {"id": "sub_2", "object": "subscription"}}))
    assert site.jobs() == [*INTAKE, (JobKind.INTAKE, "sub_2")]
    first, _ = site.rows("SELECT causes FROM job ORDER BY id")
    assert [cause["event"] for cause in first["causes"]] == ["evt_0", "evt_1", "evt_2"]
    assert site.wake_ups == [Lane.QUICK] * 4


def test_what_is_about_no_subscription_is_ignored_at_once(site: Site) -> None:
    invoice = {"object": {"id": "in_1", "object": "invoice"}}
    assert site.deliver(event(type="invoice.paid", data=invoice)).status_code == 200
    (row,) = site.rows("SELECT state, reason, handled_at IS NOT NULL AS handled FROM stripe_event")
    assert row == {"state": "ignored", "reason": "it names no subscription", "handled": True}
    assert (site.wake_ups, site.jobs()) == ([], [])


def test_an_unknown_type_is_stored_and_ignored(site: Site) -> None:
    assert site.deliver(event(type="price.created")).status_code == 200
    (row,) = site.rows("SELECT state, reason FROM stripe_event")
    assert row["state"] == "ignored"
    assert "price.created" in row["reason"]
    assert (site.wake_ups, site.jobs()) == ([], [])


def test_an_event_of_the_other_mode_is_parked(site: Site) -> None:
    assert site.deliver(event(livemode=True)).status_code == 200
    (row,) = site.rows("SELECT state, reason FROM stripe_event")
    assert row["state"] == "parked"
    assert "livemode" in row["reason"]
    assert (site.wake_ups, site.jobs()) == ([], [])


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"[]", "object"),
        (b"{}", "object"),
        (b"not json", "JSON"),
        (event(id=None), "id"),
        (event(type=7), "type"),
        (event(data="x"), "data"),
        (event(api_version={"a": 1}), "api_version"),
        (event(account="a\0b"), "NUL"),
        (b'{"id": "evt_1", "object": "event", "n": NaN}', "JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
    ],
)
def test_what_is_signed_and_unusable_is_kept_and_parked(site: Site, body: bytes, word: str) -> None:
    name = f"sha256:{hashlib.sha256(body).hexdigest()}"
    for _ in range(2):
        answer = site.deliver(body)
        assert answer.status_code == 200
        assert answer.json["event"] == name
    (row,) = site.rows("SELECT * FROM stripe_event")
    assert (row["id"], row["state"], bytes(row["body"])) == (name, "parked", body)
    assert word in row["reason"]
    assert (site.wake_ups, site.jobs()) == ([], [])


@pytest.mark.parametrize(
    ("named", "field"),
    [
        ({"account": "acct_other"}, "account"),
        ({"account": "acct_other", "context": "acct_other"}, "account"),
        ({"context": "acct_other"}, "context"),
        ({"context": "org_1/acct_other"}, "context"),
        ({"account": ["nonsense"]}, "account"),
    ],
)
def test_an_event_of_another_account_is_ignored_and_says_why(
    site: Site, named: dict[str, object], field: str
) -> None:
    """Of Connect or an organisation: nothing of it can be fetched from the own account."""
    assert site.deliver(event("evt_a", **named)).json == {"event": "evt_a", "new": True}
    shown = site.get("/v1/events/evt_a").json
    assert (shown["state"], shown["handled_at"] is None) == ("ignored", False)
    assert shown["reason"].startswith(f"{field}: expected none or this endpoint's own account")
    assert "CONTROLPLANE_STRIPE_ACCOUNT" in shown["reason"]
    assert [item["id"] for item in site.get("/v1/events?state=ignored").json["items"]] == ["evt_a"]
    assert (site.wake_ups, site.jobs()) == ([], [])


def thin(event_id: str, type_: str, related: str, **fields: object) -> bytes:
    about = {"id": related, "type": "subscription", "url": f"/v1/subscriptions/{related}"}
    made = event(event_id, object="v2.core.event", created="2026-01-01T00:00:00.123Z", type=type_)
    return json.dumps({**json.loads(made), "data": None, "related_object": about, **fields}).encode()


def test_a_thin_event_says_what_it_is_about_and_nothing_more_is_needed(site: Site) -> None:
    site.deliver(thin("evt_a", "v1.customer.subscription.updated", "sub_7"))
    assert site.jobs() == [(JobKind.INTAKE, "sub_7")]
    site.deliver(thin("evt_b", "v1.customer.updated", "cus_7"))
    assert (JobKind.INTAKE, "cus_7") in site.jobs()
    assert site.get("/v1/events/evt_a").json["created_at"] == "2026-01-01T00:00:00.123Z"


def test_a_thin_event_of_another_type_or_account_is_ignored(site: Site) -> None:
    site.deliver(thin("evt_a", "v2.core.event_destination.ping", "ed_1", related_object=None))
    site.deliver(thin("evt_b", "v1.invoice.paid", "in_1"))
    site.deliver(thin("evt_c", "v1.customer.subscription.updated", "sub_7", context="acct_other"))
    for name in ("evt_a", "evt_b", "evt_c"):
        assert site.get(f"/v1/events/{name}").json["state"] == "ignored"
    assert site.jobs() == []


def test_a_thin_event_that_names_nothing_is_parked(site: Site) -> None:
    site.deliver(thin("evt_a", "v1.customer.subscription.updated", "in_7"))
    shown = site.get("/v1/events/evt_a").json
    assert (shown["state"], "related_object.id" in shown["reason"]) == ("parked", True)
    broken = site.deliver(thin("evt_b", "v1.customer.subscription.updated", "x", related_object=7)).json
    assert broken["parked"].startswith("related_object: expected an object or null, got 7")


@pytest.mark.parametrize(
    "named", [{}, {"account": None, "context": None}, {"account": "acct_1"}, {"context": "org_1/acct_1"}]
)
def test_an_event_that_names_the_own_account_is_acted_on(
    registry: Registry, named: dict[str, object]
) -> None:
    site = Site(registry, settings={"CONTROLPLANE_STRIPE_ACCOUNT": "acct_1"})
    site.deliver(event("evt_a", **named))
    site.deliver(event("evt_b", account="acct_2"))
    states = site.rows("SELECT id, state FROM stripe_event ORDER BY id")
    assert states == [{"id": "evt_a", "state": "received"}, {"id": "evt_b", "state": "ignored"}]
    assert (site.wake_ups, site.jobs()) == ([Lane.QUICK], INTAKE)


def test_a_parked_body_does_not_stand_in_the_way_of_the_event_it_names(site: Site) -> None:
    site.deliver(event("evt_a", data=None))
    assert site.deliver(event("evt_a")).json == {"event": "evt_a", "new": True}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Stripe-Signature": ""},
        {"Stripe-Signature": "t=1,v1=00"},
        {"Stripe-Signature": "v1=\xff"},
        signed(event("evt_other")),
        signed(event("evt_a"), secret="whsec_unknown"),
        signed(event("evt_a"), at=time.time() - 3600),
        signed(event("evt_a"), at=time.time() + 3600),
    ],
)
def test_a_bad_signature_is_refused_and_nothing_kept(site: Site, headers: dict[str, str]) -> None:
    answer = site.client.post("/webhooks/stripe", data=event("evt_a", created=1), headers=headers)
    assert answer.status_code == 400
    assert answer.json["error"]["code"] == "bad_signature"
    assert site.rows("SELECT 1 FROM stripe_event") == []
    assert (site.wake_ups, site.jobs()) == ([], [])


def test_both_secrets_are_live_while_one_is_rolled(site: Site) -> None:
    assert site.deliver(event("evt_a"), secret=OLD_SECRET).status_code == 200


def test_a_body_that_is_not_utf8_is_refused(site: Site) -> None:
    assert site.deliver(b"\xff\xfe").status_code == 400


def test_a_body_over_the_limit_is_refused(site: Site) -> None:
    smallest = len(event("evt_a", account=""))
    for size, status in ((256 * 1024, 200), (256 * 1024 + 1, 413), (256 * 1024 + 2, 413)):
        answer = site.deliver(event("evt_a", account="x" * (size - smallest)))
        assert answer.status_code == status
    assert answer.json["error"]["code"] == "too_large"


def test_a_registry_that_is_down_answers_503_and_notifies_nobody() -> None:
    with Registry(f"postgresql://127.0.0.1:{free_port()}/x", wait=0.2) as registry:
        site = Site(registry)
        for body in (event("evt_a"), b"[]"):
            answer = site.deliver(body)
            assert answer.status_code == 503
            assert answer.json["error"]["code"] == "unavailable"
            assert int(answer.headers["Retry-After"]) > 0
        assert site.wake_ups == []


@pytest.fixture
def one(registry: Registry, shared_registry_url: str) -> Iterator[Site]:
    """Over a single connection of its own."""
    with Registry(shared_registry_url, size=1) as own:
        yield Site(own)


def cut_off(one: Site, registry: Registry) -> None:
    """Its connection ends at the server's."""
    (backend,) = one.rows("SELECT pg_backend_pid() AS pid")
    with registry.connection() as conn:
        conn.execute("SELECT pg_terminate_backend(%s, 60000)", [backend["pid"]])


def test_a_registry_that_comes_back_is_used_again(
    one: Site, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.store.registry.FRESH", -1.0)
    one.deliver(event("evt_a"))
    cut_off(one, registry)
    assert one.deliver(event("evt_b")).status_code == 200
    assert len(one.rows("SELECT 1 FROM stripe_event")) == 2


def test_a_connection_that_broke_a_moment_ago_costs_one_503(
    one: Site, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.store.registry.FRESH", 3600.0)
    one.deliver(event("evt_a"))
    cut_off(one, registry)
    broken = one.deliver(event("evt_b"))
    assert (broken.status_code, broken.json["error"]["code"]) == (503, "unavailable")
    assert int(broken.headers["Retry-After"]) > 0
    assert one.wake_ups == [Lane.QUICK]
    assert one.deliver(event("evt_b")).json == {"event": "evt_b", "new": True}
    assert len(one.rows("SELECT 1 FROM stripe_event")) == 2


def test_a_broker_that_is_down_costs_nothing_but_the_wake_up(site: Site) -> None:
    site.broker_down = True
    assert site.deliver(event("evt_a")).status_code == 200
    assert site.wake_ups == []
    assert site.rows("SELECT state FROM stripe_event") == [{"state": "received"}]
    assert site.jobs() == INTAKE


def test_only_post_is_answered(site: Site) -> None:
    answer = site.client.get("/webhooks/stripe")
    assert answer.status_code == 405
    assert answer.json["error"]["code"] == "method_not_allowed"
    assert "POST" in answer.headers["Allow"]
