"""Releases and rollouts over the API: registering, what is refused, steering, and who may."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

import pytest

from controlplane.domain.job import JobKind, Lane
from tests.web.site import Site

SAFE = "CREATE TABLE notes (id bigint PRIMARY KEY)"
DANGEROUS = "ALTER TABLE notes ADD COLUMN stars int NOT NULL;\nDROP TABLE old_notes"


def store(site: Site, text: str) -> str:
    answer = site.post("/v1/releases/files", {"body": text})
    assert answer.status_code == 200, answer.json
    return str(answer.json["sha256"])


def create(site: Site, *texts: str, names: list[str] | None = None) -> Any:
    names = names or [f"{number:04d}_file.sql" for number in range(1, len(texts) + 1)]
    files = [{"name": name, "sha256": store(site, text)} for name, text in zip(names, texts, strict=True)]
    return site.post("/v1/releases", {"adapter": "sql", "files": files})


def test_a_release_is_registered_once_and_never_changed(site: Site) -> None:
    made = create(site, SAFE)
    assert made.status_code == 201
    assert made.json["number"] == "0001"
    assert made.json["files"] == [
        {"name": "0001_file.sql", "sha256": hashlib.sha256(SAFE.encode()).hexdigest()}
    ]
    again = create(site, SAFE)
    assert (again.status_code, again.json["error"]["code"]) == (409, "conflict")
    rewritten = create(site, SAFE + " -- changed", "SELECT 1")
    assert rewritten.status_code == 409
    assert "which is history" in rewritten.json["error"]["message"]
    with pytest.raises(Exception, match="never changed"), site.registry.connection() as conn:
        conn.execute("UPDATE release SET checksum = 'x'")


def test_the_same_rehearsal_again_is_the_first_until_it_has_ended(site: Site) -> None:
    create(site, SAFE)
    asked = {"release": "0001", "copies": 2}
    first = site.post("/v1/rehearsals", asked).json["id"]
    again = site.post("/v1/rehearsals", asked)
    assert (again.status_code, again.json["id"]) == (202, first)
    assert site.post("/v1/rehearsals", {**asked, "copies": 3}).json["id"] != first
    site.rows("UPDATE rehearsal SET state = 'failed', finished_at = now()")
    assert site.post("/v1/rehearsals", asked).json["id"] != first


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0002_file.sql"], "there is a gap"),
        (["1_file.sql"], "expected a name like"),
        (["../0001_file.sql"], "expected a name like"),
    ],
)
def test_a_file_that_can_not_be_part_of_a_release_is_named(
    site: Site, names: list[str], message: str
) -> None:
    answer = create(site, SAFE, names=names)
    assert (answer.status_code, answer.json["error"]["field"]) == (400, "files")
    assert message in answer.json["error"]["message"]


def test_contents_that_were_never_stored_are_missed(site: Site) -> None:
    answer = site.post(
        "/v1/releases", {"adapter": "sql", "files": [{"name": "0001_a.sql", "sha256": "a" * 64}]}
    )
    assert answer.status_code == 400
    assert "the contents of 0001_a.sql" in answer.json["error"]["message"]


def test_another_tools_release_carries_digests_and_no_command(site: Site) -> None:
    files = [{"name": "versions/1_a.py", "sha256": "a" * 64}]
    assert site.post("/v1/releases", {"adapter": "alembic", "files": files}).json["number"] == "0001"
    answer = site.post("/v1/releases", {"adapter": "command", "files": files, "command": ["sh"]})
    assert (answer.status_code, answer.json["error"]["field"]) == (400, "command")
    mixed = create(site, SAFE)
    assert mixed.status_code == 409


def test_no_rollout_starts_before_each_danger_is_accepted(site: Site) -> None:
    create(site, SAFE)
    made = create(site, SAFE, DANGEROUS).json
    assert [finding["rule"] for finding in made["findings"]] == ["adding-required-field", "ban-drop-table"]
    assert made["findings"][0]["statement"] == "ALTER TABLE notes ADD COLUMN stars int NOT NULL"
    refused = site.post("/v1/rollouts", {"release": "0002"})
    assert refused.status_code == 409
    for finding in made["findings"]:
        assert finding["id"] in refused.json["error"]["message"]
        path = f"/v1/releases/findings/{finding['id']}/accept"
        assert site.post(path, {"reason": "x"}).status_code == 400
        accepted = site.post(path, {"reason": "the table is empty"}).json
        assert (accepted["accepted_by"], accepted["reason"]) == ("api:operator-bot", "the table is empty")
    started = site.post("/v1/rollouts", {"release": "0002"})
    assert started.status_code == 202
    assert site.wake_ups == [Lane.LONG]
    assert site.jobs(JobKind.ROLLOUT) == [(JobKind.ROLLOUT, f"{started.json['id']}/1")]


def test_more_at_once_than_one_worker_takes_is_shared_out(site: Site) -> None:
    create(site, SAFE)
    number = site.post("/v1/rollouts", {"release": "0001", "spec": {"concurrency": 40}}).json["id"]
    assert [subject for _, subject in site.jobs(JobKind.ROLLOUT)] == [f"{number}/{n}" for n in (1, 2, 3)]


def test_a_rollout_is_steered_by_operators_and_watched_by_viewers(site: Site) -> None:
    create(site, SAFE)
    number = site.post("/v1/rollouts", {"release": "0001"}).json["id"]
    path = f"/v1/rollouts/{number}"
    assert site.post(f"{path}/pause", {"reason": "lunch"}).json["state"] == "paused"
    assert site.post(f"{path}/pause", {"reason": "lunch"}).status_code == 409
    assert site.post(f"{path}/resume", {"reason": "back"}).json["state"] == "running"
    assert site.post(f"{path}/abort", {"reason": "over"}).json["state"] == "aborted"
    assert site.post(f"{path}/retry", {}).status_code == 409
    assert site.get(path, role="viewer").json["state"] == "aborted"
    assert site.get("/v1/rollouts", role="viewer").json["items"][0]["id"] == number
    assert site.get(f"{path}/members", role="viewer").json["items"] == []
    assert site.get(f"{path}/plot", role="viewer").json["svg"].startswith("<svg")
    assert site.post(f"{path}/abort", {"reason": "over"}, role="viewer").status_code == 403


def test_the_fleet_is_listed_by_release(site: Site) -> None:
    for subscription, release in (("sub_1", "0001"), ("sub_2", "0001"), ("sub_3", "0002"), ("sub_4", None)):
        site.found(subscription, name=f"customer-{subscription[-1]}")
        site.rows(
            "UPDATE tenant SET release = %s, ready_at = now() WHERE slug = %s", release, slug(subscription)
        )
    site.found("sub_5", name="customer-5")  # it has not served yet
    assert site.get("/v1/releases/fleet").json == {
        "items": [
            {"release": None, "tenants": 1, "example": "customer-4"},
            {"release": "0001", "tenants": 2, "example": "customer-1"},
            {"release": "0002", "tenants": 1, "example": "customer-3"},
        ],
        "next_cursor": None,
    }


def slug(subscription: str) -> str:
    return f"customer-{subscription[-1]}"


def test_a_rollouts_snapshots_are_told_with_the_day_until_which_they_are_kept(site: Site) -> None:
    create(site, SAFE)
    made = site.post("/v1/rollouts", {"release": "0001", "spec": {"snapshot_days": 3}}).json
    assert made["snapshots"] == []
    cluster = "c-" + "a" * 12
    site.rows(
        "INSERT INTO cluster (id, cluster_class, slots, spec) VALUES (%s, 'x', 1, '{}'::jsonb)",
        cluster,
    )
    site.rows(
        "INSERT INTO rollout_snapshot (rollout_id, cluster_id, number, name, state, available_at)"
        " VALUES (%s, %s, 1, 'snapshot-1', 'available', now())",
        made["id"],
        cluster,
    )
    path = f"/v1/rollouts/{made['id']}"
    (snapshot,) = site.get(path).json["snapshots"]
    assert (snapshot["cluster"], snapshot["name"], snapshot["state"]) == (cluster, "snapshot-1", "available")
    assert snapshot["kept_until"] is None
    ended = site.post(f"{path}/abort", {"reason": "over"}).json
    kept = datetime.fromisoformat(ended["snapshots"][0]["kept_until"])
    assert kept - datetime.fromisoformat(ended["finished_at"]) == timedelta(days=3)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"failure_ratio": 2}, "failure_ratio"),
        ({"waves": ["50%", "10%"]}, "waves"),
        ({"waves": ["0%"]}, "waves"),
        ({"waves": "10%"}, "waves"),
        ({"waves": ["nobody-of-ours"]}, "waves"),
        ({"windows": ["sometimes"]}, "windows"),
        ({"windows": ["mon 10:00-11:00 Mars/Olympus"]}, "windows"),
        ({"snapshot_days": 31}, "snapshot_days"),
        ({"snapshot_timeout": 1}, "snapshot_timeout"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(site: Site, spec: dict[str, Any], field: str) -> None:
    create(site, SAFE)
    answer = site.post("/v1/rollouts", {"release": "0001", "spec": spec})
    assert (answer.status_code, answer.json["error"]["field"]) == (400, field)
    assert site.get("/v1/rollouts").json["items"] == []
