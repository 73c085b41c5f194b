import pytest

from controlplane.domain.job import JobKind, Lane
from controlplane.store import audit
from tests.web.site import Site, event


def test_events_are_listed_newest_first_and_filtered(site: Site) -> None:
    site.deliver(event("evt_1"))
    site.deliver(event("evt_2", type="price.created"))
    site.deliver(event("evt_3", livemode=True))
    everything = site.get("/v1/events").json["items"]
    assert [(item["id"], item["state"]) for item in everything] == [
        ("evt_3", "parked"),
        ("evt_2", "ignored"),
        ("evt_1", "received"),
    ]
    assert [item["id"] for item in site.get("/v1/events?state=parked").json["items"]] == ["evt_3"]
    assert "body" not in everything[0]


def test_only_operators_see_the_body(site: Site) -> None:
    body = event("evt_1", account="é")
    site.deliver(body)
    assert site.get("/v1/events/evt_1", role="operator").json["body"] == body.decode()
    assert "body" not in site.get("/v1/events/evt_1", role="viewer").json


def test_a_body_of_any_bytes_can_be_shown(site: Site) -> None:
    site.deliver(event("evt_1"))
    site.rows(r"UPDATE stripe_event SET body = '\x00ff41'")
    assert site.get("/v1/events/evt_1", role="operator").json["body"] == "\0�A"


def test_a_replay_is_due_audited_and_notified(site: Site) -> None:
    site.deliver(event("evt_1", livemode=True))
    answer = site.post("/v1/events/evt_1/replay")
    assert answer.status_code == 202
    assert answer.headers["Location"] == "/v1/events/evt_1"
    assert (answer.json["event"]["state"], answer.json["event"]["handled_at"]) == ("received", None)
    assert site.wake_ups == [Lane.QUICK]
    assert site.jobs() == [(JobKind.INTAKE, "evt_1")]
    assert site.rows("SELECT actor, resource FROM audit WHERE action = 'event.replay'") == [
        {"actor": "api:operator-bot", "resource": "evt_1"}
    ]
    with site.registry.connection() as conn:
        assert audit.first_break(conn) is None


def test_a_parked_event_is_dismissed_with_a_reason(site: Site) -> None:
    site.deliver(event("evt_1", livemode=True))
    answer = site.post("/v1/events/evt_1/dismiss", {"reason": "a test of Stripe's"})
    assert answer.status_code == 200
    assert (answer.json["event"]["state"], answer.json["event"]["reason"]) == (
        "ignored",
        "dismissed by api:operator-bot: a test of Stripe's",
    )
    assert site.rows("SELECT actor, resource, detail FROM audit WHERE action = 'event.dismiss'") == [
        {"actor": "api:operator-bot", "resource": "evt_1", "detail": {"reason": "a test of Stripe's"}}
    ]
    assert site.post("/v1/events/evt_1/replay").status_code == 202, "it can be taken back"


def test_what_is_not_parked_is_not_dismissed(site: Site) -> None:
    site.deliver(event("evt_1"))
    answer = site.post("/v1/events/evt_1/dismiss", {"reason": "x"})
    assert (answer.status_code, "is received" in answer.json["error"]["message"]) == (409, True)
    assert site.post("/v1/events/evt_2/dismiss", {"reason": "x"}).status_code == 404
    assert site.post("/v1/events/evt_1/dismiss", {"reason": " "}).json["error"]["field"] == "reason"
    assert site.rows("SELECT 1 FROM audit") == []


def test_a_parked_body_is_found_by_its_digest(site: Site) -> None:
    name = site.deliver(b"not json").json["event"]
    shown = site.get(f"/v1/events/{name}", role="operator").json
    assert (shown["state"], shown["body"]) == ("parked", "not json")
    assert site.post(f"/v1/events/{name}/replay").status_code == 202


@pytest.mark.parametrize("name", ["evt_x", "%00", "x" * 256, "a b", "é"])
def test_an_unknown_event_is_404(site: Site, name: str) -> None:
    assert site.get(f"/v1/events/{name}").status_code == 404
    assert site.post(f"/v1/events/{name}/replay").status_code == 404
    assert site.wake_ups == []
    assert site.rows("SELECT 1 FROM audit") == []
