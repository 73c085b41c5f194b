from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.domain.job import JobKind, Lane
from controlplane.domain.transfer import moment
from tests.web.site import Site


def _ready(site: Site) -> str:
    tenant_id = site.found("sub_1", name="Acme")
    site.rows("UPDATE tenant SET ready_at = now() - interval '3 days'")
    return tenant_id


def _ago(**time: float) -> str:
    return moment(datetime.now(UTC) - timedelta(**time))


def test_a_restore_is_asked_for_and_shown(site: Site) -> None:
    tenant_id, at = _ready(site), _ago(hours=2)
    answer = site.post("/v1/tenants/acme/restore", {"at": at, "reason": "rows were deleted"})
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/operations/{answer.json['operation']['id']}"
    assert site.wake_ups == [Lane.QUICK]
    assert (JobKind.TENANT, tenant_id) in site.jobs()
    shown = site.get("/v1/tenants/acme").json["transfer"]
    assert (shown["kind"], shown["phase"], shown["to"]) == ("restore", "preparing", "shared")
    assert shown["restore"] == {
        "at": at.replace("Z", ".000Z"),
        "snapshot": None,
        "placement": None,
        "cluster": None,
        "release": None,
        "opened_at": None,
    }
    assert shown["copied_at"] is None
    [entry] = site.rows("SELECT actor, detail FROM audit WHERE action = 'transfer.begin'")
    assert entry["actor"] == "api:operator-bot"
    assert entry["detail"]["kind"] == "restore"
    assert (entry["detail"]["at"], entry["detail"]["reason"]) == (at, "rows were deleted")
    again = site.post("/v1/tenants/acme/restore", {"at": at, "reason": "x"})
    assert (again.status_code, "has a restore that is preparing" in again.json["error"]["message"]) == (
        409,
        True,
    )
    assert site.post("/v1/tenants/acme/abort-transfer", {"reason": "x"}).status_code == 202


def test_a_moment_is_taken_in_any_zone(site: Site) -> None:
    _ready(site)
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    there = (at + timedelta(hours=1)).replace(tzinfo=None).isoformat() + "+01:00"
    assert site.post("/v1/tenants/acme/restore", {"at": there, "reason": "x"}).status_code == 202
    assert site.rows("SELECT at FROM transfer") == [{"at": at}]


def test_a_dry_run_is_a_workers_to_work_out(site: Site) -> None:
    tenant_id = _ready(site)
    answer = site.post("/v1/tenants/acme/restore", {"snapshot": "nightly", "dry_run": True})
    assert answer.status_code == 202
    assert answer.json["preview"]["tenant"] == tenant_id
    assert site.wake_ups == [Lane.LONG]
    assert site.jobs(JobKind.PREVIEW) == [(JobKind.PREVIEW, str(answer.json["preview"]["id"]))]
    assert site.rows("SELECT transfer FROM preview") == [{"transfer": {"snapshot": "nightly"}}]
    assert site.rows("SELECT FROM transfer") == []


@pytest.mark.parametrize(
    ("requested", "field", "expected"),
    [
        ({}, "at", "the name of a snapshot in `snapshot`"),
        ({"at": "2026-11-24T10:00:00Z", "snapshot": "x"}, "at", "and not both"),
        ({"at": "2026-11-24T10:00:00"}, "at", "with its time zone"),
        ({"at": "2026-11-24"}, "at", "with its time zone"),
        ({"at": 1764000000}, "at", "such as 2026-11-24T10:00:00Z"),
        ({"at": _ago(hours=-1)}, "at", "it is 20"),
        ({"at": _ago(days=4)}, "at", "since when there is something"),
        ({"at": _ago(days=8)}, "at", "since when there is something"),
        ({"snapshot": ""}, "snapshot", "the name of a snapshot"),
        ({"snapshot": "a; drop"}, "snapshot", "the name of a snapshot"),
        ({"snapshot": ["a"]}, "snapshot", "the name of a snapshot"),
        ({"snapshot": "x", "to": "shared"}, "to", "no other fields"),
        ({"snapshot": "x", "dry_run": "yes"}, "dry_run", "true or false"),
        ({"snapshot": "x", "reason": ""}, "reason", "why"),
    ],
)
def test_what_is_not_valid_is_named_with_what_was_expected(
    site: Site, requested: dict[str, Any], field: str, expected: str
) -> None:
    _ready(site)
    answer = site.post("/v1/tenants/acme/restore", {"reason": "x", **requested})
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "invalid")
    assert answer.json["error"]["message"].startswith(f"{field}: expected ")
    assert expected in answer.json["error"]["message"]
    assert site.rows("SELECT FROM transfer") == []


def test_who_may_not_or_can_not(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme")
    requested = {"snapshot": "nightly", "reason": "x"}
    assert site.post("/v1/tenants/acme/restore", requested).status_code == 409
    assert site.post("/v1/tenants/t-aaaaaaaaaaaa/restore", requested).status_code == 404
    site.rows("UPDATE tenant SET ready_at = now() - interval '3 days'")
    assert site.post("/v1/tenants/acme/restore", requested, role="viewer").status_code == 403
    site.rows('UPDATE cluster SET destroyed_at = now(), spec = spec || \'{"lifecycle": "closed"}\'')
    gone = site.post(f"/v1/tenants/{tenant_id}/restore", {"at": _ago(hours=1), "reason": "x"})
    assert (gone.status_code, "which is gone" in gone.json["error"]["message"]) == (409, True)
