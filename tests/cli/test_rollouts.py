"""`controlplane releases` and `rollouts`, from a folder of files to an aborted rollout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Desk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_notes.sql").write_text("CREATE TABLE notes (id bigint PRIMARY KEY)")
    return tmp_path


def test_a_folder_becomes_a_release_and_a_rollout(desk: Desk, folder: Path, tmp_path: Path) -> None:
    assert "release 0001: 1 files" in desk.ok("releases", "create", folder)
    (folder / "0002_drop.sql").write_text("DROP TABLE old_notes")
    reported = desk.ok("releases", "create", folder)
    assert "ban-drop-table" in reported
    assert "0002_drop.sql:1" in reported
    finding = desk.json("releases", "show", "0002")["findings"][0]["id"]
    refused = desk.run("rollouts", "start", "0002")
    assert refused.exit_code == 1
    assert finding in refused.stderr
    assert "accepted by api:operator-bot" in desk.ok("releases", "accept", finding, "--reason", "unused")
    assert [item["number"] for item in desk.json("releases", "list")["items"]] == ["0002", "0001"]

    started = desk.json("rollouts", "start", "0002", "--sequential", "--wave", "10%", "--failures", 2)
    assert started["spec"]["waves"] == ["10%"]
    assert (started["spec"]["concurrency"], started["spec"]["failures"]) == (1, 2)
    number = started["id"]
    assert "is paused" in desk.ok("rollouts", "pause", number, "--reason", "lunch")
    assert "paused" in desk.ok("rollouts", "show", number, "--members")
    assert "is running" in desk.ok("rollouts", "resume", number, "--reason", "back")
    assert desk.run("rollouts", "retry", number).exit_code == 1
    assert "is aborted" in desk.ok("rollouts", "abort", number, "--reason", "never mind")
    watched = desk.run("rollouts", "watch", number)
    assert watched.exit_code == 1
    assert "never mind" in watched.stderr
    assert "aborted" in desk.ok("rollouts", "list")
    drawing = tmp_path / "rollout.svg"
    desk.ok("rollouts", "plot", number, "--output", drawing)
    assert drawing.read_text().startswith("<svg")


def test_snapshots_are_shown_and_counted_while_they_are_made(desk: Desk, folder: Path) -> None:
    desk.ok("releases", "create", folder)
    number = desk.json("rollouts", "start", "0001")["id"]
    assert "SNAPSHOT" not in desk.ok("rollouts", "show", number)
    desk.site.rows(
        "INSERT INTO cluster (id, cluster_class, slots, spec) VALUES ('c-aaaaaaaaaaaa', 'x', 1, '{}'::jsonb)"
    )
    desk.site.rows(
        "INSERT INTO rollout_snapshot (rollout_id, cluster_id, number, name, error)"
        " VALUES (%s, 'c-aaaaaaaaaaaa', 1, 'c-aaaaaaaaaaaa-rollout-7-1', 'AWS answered Throttling')",
        number,
    )
    reported = desk.ok("rollouts", "show", number)
    assert "c-aaaaaaaaaaaa-rollout-7-1" in reported
    assert "AWS answered Throttling" in reported
    assert "1 snapshots in the making" in desk.ok("rollouts", "pause", number, "--reason", "lunch")


def test_compat_tells_whom_an_application_would_turn_away(desk: Desk) -> None:
    assert "no tenant is active" in desk.ok("releases", "compat", "0002..0003")
    for number, release in enumerate(("0001", "0002", "0003"), start=1):
        desk.site.found(f"sub_{number}", name=f"customer-{number}")
        desk.site.rows(
            "UPDATE tenant SET release = %s, ready_at = now() WHERE slug = %s", release, f"customer-{number}"
        )
    assert "customer-1" in desk.ok("releases", "compat")
    assert desk.json("releases", "compat", "0001..")["turned_away"] == 0
    refused = desk.run("releases", "compat", "0002..0003")
    assert refused.exit_code == 1
    assert "customer-1" in refused.stdout
    assert "1 tenants would be answered 503" in refused.stderr
    wrong = desk.run("releases", "compat", "2..3")
    assert wrong.exit_code == 2
    assert "0003..0005" in wrong.stderr


def test_a_folder_without_migrations_is_named(desk: Desk, tmp_path: Path) -> None:
    done = desk.run("releases", "create", tmp_path)
    assert done.exit_code == 1
    assert "NNNN_name.sql" in done.stderr


def test_a_viewer_starts_nothing(desk: Desk, folder: Path) -> None:
    desk.ok("releases", "create", folder)
    desk.role = "viewer"
    assert desk.run("rollouts", "start", "0001").exit_code == 5
