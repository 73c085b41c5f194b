"""Deleting for good takes two tokens, the whole id and the right digest."""

from __future__ import annotations

import pytest

from controlplane.domain.job import JobKind, Lane
from tests.web.site import Site


@pytest.fixture
def closed(site: Site) -> str:
    return site.closed("sub_1")


def test_it_is_shown_asked_for_and_approved_by_another(site: Site, closed: str) -> None:
    path = f"/v1/tenants/{closed}/purge"
    shown = site.get(path).json
    assert (shown["purge"], shown["due"]) == (None, False)
    assert shown["would_delete"]["database"] == shown["would_delete"]["placement"].replace("-", "_")
    assert site.post(path, {"reason": "gone"}).status_code == 409
    asked = site.post(path, {"reason": "art. 17", "early": True}).json["purge"]
    assert asked["purge"]["requested_by"] == "api:operator-bot"
    again = site.post(path, {"reason": "art. 17", "early": True}).json["purge"]
    assert again["purge"]["id"] == asked["purge"]["id"]
    approve = f"/v1/tenants/{closed}/approve-purge"
    word = {"digest": asked["digest"], "reason": "looked at"}
    alone = site.post(approve, word)
    assert (alone.status_code, "somebody else" in alone.json["error"]["message"]) == (409, True)
    stale = site.post(approve, {**word, "digest": "0" * 64}, role="second")
    assert stale.status_code == 409
    assert site.wake_ups == []
    done = site.post(approve, word, role="second")
    assert (done.status_code, done.json["purge"]["purge"]["approved_by"]) == (202, "api:second-bot")
    assert site.wake_ups == [Lane.QUICK]
    assert (JobKind.TENANT, closed) in site.jobs()
    assert site.get(f"/v1/tenants/{closed}/certificate").status_code == 404
    back = site.post(f"/v1/tenants/{closed}/withdraw-purge", {"reason": "a mistake"})
    assert (back.status_code, back.json["purge"]["purge"]) == (200, None)
    actions = [row["action"] for row in site.rows("SELECT action FROM audit ORDER BY seq")]
    assert actions[-3:] == ["purge.request", "purge.approve", "purge.withdraw"]


@pytest.mark.parametrize("act", ["purge", "approve-purge", "withdraw-purge"])
def test_a_slug_is_not_enough(site: Site, closed: str, act: str) -> None:
    answer = site.post(
        f"/v1/tenants/acme/{act}", {"reason": "x", **({"digest": "x"} if act == "approve-purge" else {})}
    )
    assert answer.status_code == 400
    assert answer.json["error"]["field"] == "tenant"
    assert site.get("/v1/tenants/acme/purge").json["tenant"] == closed


@pytest.mark.parametrize(
    ("act", "body", "field"),
    [
        ("purge", {}, "reason"),
        ("purge", {"reason": "x", "early": "yes"}, "early"),
        ("approve-purge", {"reason": "x"}, "digest"),
        ("approve-purge", {"digest": "x"}, "reason"),
        ("withdraw-purge", {"reason": ""}, "reason"),
    ],
)
def test_what_is_missing_is_named(
    site: Site, closed: str, act: str, body: dict[str, object], field: str
) -> None:
    answer = site.post(f"/v1/tenants/{closed}/{act}", body)
    assert (answer.status_code, answer.json["error"]["field"]) == (400, field)


def test_a_living_tenant_is_not_purged(site: Site) -> None:
    tenant_id = site.found("sub_1")
    assert site.get(f"/v1/tenants/{tenant_id}/purge").status_code == 409
    assert site.post(f"/v1/tenants/{tenant_id}/purge", {"reason": "x", "early": True}).status_code == 409


def test_notices_are_listed_shown_and_sent_again(site: Site, closed: str) -> None:
    listed = site.get("/v1/notifications").json
    [notification] = listed["items"]
    assert (notification["kind"], notification["tenant"], notification["state"]) == (
        "closing",
        closed,
        "waiting",
    )
    shown = site.get(f"/v1/notifications/{notification['id']}").json
    assert shown["payload"]["type"] == "tenant.closing"
    assert shown["payload"]["data"]["tenant"] == closed
    assert site.post(f"/v1/notifications/{notification['id']}/redeliver", {}).status_code == 409
    site.rows("UPDATE notification SET state = 'dead', finished_at = now()")
    assert site.get("/v1/notifications?state=dead").json["items"][0]["id"] == notification["id"]
    site.rows(
        "INSERT INTO job (kind, subject, lock, lane, priority, due_at)"
        " VALUES ('notifications', 'notifications', 'notifications', 'quick', 3, now() + interval '5 s')"
    )
    again = site.post(f"/v1/notifications/{notification['id']}/redeliver", {})
    assert (again.status_code, again.json["notification"]["state"]) == (202, "waiting")
    assert Lane.QUICK in site.wake_ups
    assert site.jobs(JobKind.NOTIFICATIONS) == [(JobKind.NOTIFICATIONS, "notifications")], "due at once"
    assert site.get("/v1/notifications?state=lost").status_code == 400
