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


CAUSE = "livemode is True"


def parked(site: Site, *event_ids: str, customer: str = "cus_1") -> None:
    """Events of the other mode, in the order in which they were parked."""
    for event_id in event_ids:
        body = {"object": {"id": f"sub_{event_id[-1]}", "object": "subscription", "customer": customer}}
        site.deliver(event(event_id, livemode=True, data=body))


def states(site: Site) -> dict[str, str]:
    return {item["id"]: item["state"] for item in site.get("/v1/events").json["items"]}


def test_all_that_are_parked_for_one_cause_are_replayed_and_audited_once(site: Site) -> None:
    parked(site, "evt_1", "evt_2")
    name = site.deliver(b"not json").json["event"]
    site.deliver(event("evt_3"))
    answer = site.post("/v1/events/replay", {"because": CAUSE})
    assert answer.status_code == 202
    assert (answer.json["count"], answer.json["left"]) == (2, 0)
    assert [(item["id"], item["state"], item["reason"]) for item in answer.json["items"]] == [
        ("evt_1", "received", "replay asked for"),
        ("evt_2", "received", "replay asked for"),
    ]
    assert states(site) == {"evt_1": "received", "evt_2": "received", "evt_3": "received", name: "parked"}
    assert set(site.jobs()) >= {(JobKind.INTAKE, "evt_1"), (JobKind.INTAKE, "evt_2")}
    assert site.rows("SELECT lock, causes->0->>'event' AS event FROM job WHERE subject = 'evt_1'") == [
        {"lock": "cus_1", "event": "evt_1"}
    ]
    assert site.rows("SELECT actor, resource, detail FROM audit WHERE action = 'event.replay'") == [
        {
            "actor": "api:operator-bot",
            "resource": "parked",
            "detail": {"because": CAUSE, "count": 2, "events": ["evt_1", "evt_2"]},
        }
    ]


def test_a_replay_by_cause_again_finds_nothing_and_says_nothing(site: Site) -> None:
    parked(site, "evt_1")
    asked = {"because": CAUSE}
    assert site.post("/v1/events/replay", asked).json["count"] == 1
    site.wake_ups.clear()
    answer = site.post("/v1/events/replay", asked)
    assert (answer.status_code, answer.json) == (202, {"count": 0, "left": 0, "items": []})
    assert site.wake_ups == []
    assert len(site.rows("SELECT 1 FROM audit")) == 1


def test_a_dry_run_of_a_replay_by_cause_changes_nothing(site: Site) -> None:
    parked(site, "evt_1", "evt_2")
    answer = site.post("/v1/events/replay", {"because": CAUSE, "dry_run": True, "limit": 1})
    assert (answer.status_code, answer.json["count"], answer.json["left"]) == (200, 1, 1)
    assert [(item["id"], item["state"]) for item in answer.json["items"]] == [("evt_1", "parked")]
    assert states(site) == {"evt_1": "parked", "evt_2": "parked"}
    assert (site.wake_ups, site.jobs(), site.rows("SELECT 1 FROM audit")) == ([], [], [])


def test_a_limit_takes_what_has_been_parked_for_the_longest(site: Site) -> None:
    parked(site, "evt_1", "evt_2", "evt_3")
    site.rows("UPDATE stripe_event SET handled_at = clock_timestamp() WHERE id = 'evt_1' RETURNING id")
    answer = site.post("/v1/events/replay", {"because": CAUSE, "limit": 2})
    assert ([item["id"] for item in answer.json["items"]], answer.json["left"]) == (["evt_2", "evt_3"], 1)
    assert states(site) == {"evt_1": "parked", "evt_2": "received", "evt_3": "received"}


def test_a_pattern_is_text(site: Site) -> None:
    parked(site, "evt_1")
    assert site.post("/v1/events/replay", {"because": "livemode%True"}).json["count"] == 0
    assert site.post("/v1/events/replay", {"because": "event's livemode"}).json["count"] == 1


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "because"),
        ({"because": " "}, "because"),
        ({"because": 7}, "because"),
        ({"because": "a\0b"}, "because"),
        ({"because": "x" * 201}, "because"),
        ({"because": "x", "limit": 0}, "limit"),
        ({"because": "x", "limit": 1001}, "limit"),
        ({"because": "x", "limit": True}, "limit"),
        ({"because": "x", "dry_run": "yes"}, "dry_run"),
        ({"because": "x", "state": "parked"}, "state"),
    ],
)
def test_a_replay_by_cause_that_is_not_understood(site: Site, asked: dict[str, object], field: str) -> None:
    parked(site, "evt_1")
    answer = site.post("/v1/events/replay", asked)
    assert (answer.status_code, answer.json["error"]["field"]) == (400, field)
    assert states(site) == {"evt_1": "parked"}


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
