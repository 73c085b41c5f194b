import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from controlplane.localcloud.servers.process import free_port
from controlplane.store.registry import Registry
from tests.web.site import OLD_SECRET, Site, event, signed

HANDLE = "controlplane.workers.runtime.tasks.handle_event"


def test_an_event_is_stored_as_it_was_signed_then_notified(site: Site) -> None:
    body = event("evt_a")
    answer = site.deliver(body)
    assert (answer.status_code, answer.json) == (200, {"event": "evt_a", "new": True})
    (row,) = site.rows("SELECT * FROM stripe_event")
    assert (row["id"], row["state"], bytes(row["body"])) == ("evt_a", "received", body)
    assert site.wake_ups == [(HANDLE, ["evt_a"])]


def test_a_duplicate_is_answered_200_and_does_nothing(site: Site) -> None:
    site.deliver(event("evt_a"))
    again = site.deliver(event("evt_a", created=1))
    assert (again.status_code, again.json) == (200, {"event": "evt_a", "new": False})
    assert len(site.rows("SELECT 1 FROM stripe_event")) == 1
    assert len(site.wake_ups) == 1


def test_five_deliveries_at_once_make_one_row_and_one_wake_up(site: Site) -> None:
    body = event("evt_a")
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: site.deliver(body), range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert sum(answer.json["new"] for answer in answers) == 1
    assert len(site.rows("SELECT 1 FROM stripe_event")) == 1
    assert site.wake_ups == [(HANDLE, ["evt_a"])]


def test_an_unknown_type_is_stored_and_ignored(site: Site) -> None:
    assert site.deliver(event(type="price.created")).status_code == 200
    (row,) = site.rows("SELECT state, reason FROM stripe_event")
    assert row["state"] == "ignored"
    assert "price.created" in row["reason"]
    assert site.wake_ups == []


def test_an_event_of_the_other_mode_is_parked(site: Site) -> None:
    assert site.deliver(event(livemode=True)).status_code == 200
    (row,) = site.rows("SELECT state, reason FROM stripe_event")
    assert row["state"] == "parked"
    assert "livemode" in row["reason"]
    assert site.wake_ups == []


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
    assert site.wake_ups == []


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
    assert site.wake_ups == []


def test_a_thin_event_of_another_account_is_ignored_too(site: Site) -> None:
    answers = [
        site.deliver(event("evt_a", object="v2.core.event", created="2026-01-01T00:00:00Z", context=context))
        for context in ("acct_other", None)
    ]
    foreign, own = (answer.json for answer in answers)
    assert "context: expected none or" in foreign["ignored"]
    assert "evt_a" in foreign["ignored"]
    assert "a snapshot, not a thin event" in own["parked"]
    assert site.get(f"/v1/events/{foreign['event']}").json["state"] == "ignored"


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
    assert [args for _, args in site.wake_ups] == [["evt_a"]]


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
    assert site.wake_ups == []


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


def test_a_registry_that_comes_back_is_used_again(site: Site) -> None:
    site.deliver(event("evt_a"))
    site.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert site.deliver(event("evt_b")).status_code == 200
    assert len(site.rows("SELECT 1 FROM stripe_event")) == 2


def test_a_broker_that_is_down_costs_nothing_but_the_wake_up(site: Site) -> None:
    site.broker_down = True
    assert site.deliver(event("evt_a")).status_code == 200
    (row,) = site.rows("SELECT state, next_attempt_at <= clock_timestamp() AS due FROM stripe_event")
    assert row == {"state": "received", "due": True}


def test_only_post_is_answered(site: Site) -> None:
    answer = site.client.get("/webhooks/stripe")
    assert answer.status_code == 405
    assert answer.json["error"]["code"] == "method_not_allowed"
    assert "POST" in answer.headers["Allow"]
