"""A cluster's release of the stacks: shown, counted, and changed by its action."""

from __future__ import annotations

import pytest

from controlplane.domain.job import JobKind
from controlplane.store import cluster, stack
from tests.web.site import Site

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def home(site: Site) -> str:
    """It runs the release that was installed before."""
    site.found("sub_1")
    [row] = site.rows("SELECT cluster_id AS id FROM placement")
    with site.registry.connection() as conn:
        for release in (OLD, NEW):
            stack.record_release(conn, release, {}, installed=True)
        cluster.name_release(conn, row["id"], OLD)
    return str(row["id"])


def test_a_cluster_shows_its_release_and_the_installed_one(site: Site, home: str) -> None:
    shown = site.get(f"/v1/clusters/{home}").json
    assert (shown["release"], shown["installed_release"], shown["upgraded_from"]) == (OLD, NEW, None)
    assert shown["drift"] is None
    [listed] = site.get("/v1/clusters").json["items"]
    assert listed["release"] == OLD
    site.rows("INSERT INTO stack (workspace, digest, outputs) VALUES (%s, 'x', '{}')", home)
    with site.registry.connection() as conn:
        stack.note_drift(conn, home, [{"address": "a.b", "action": "update"}])
    assert site.get(f"/v1/clusters/{home}").json["drift"] == [{"address": "a.b", "action": "update"}]


def test_the_summary_counts_those_of_another_release_and_those_changed_by_hand(site: Site, home: str) -> None:
    def counted() -> tuple[int, int]:
        found = site.get("/v1/summary").json["clusters"]
        return found["outdated"], found["drifted"]

    assert counted() == (1, 0)
    site.rows("INSERT INTO stack (workspace, digest, outputs) VALUES (%s, 'x', '{}')", home)
    with site.registry.connection() as conn:
        stack.note_drift(conn, home, [])
        assert counted() == (1, 0)
        stack.note_drift(conn, home, [{"address": "a.b", "action": "update"}])
        assert counted() == (1, 1)
        stack.record_release(conn, OLD, {}, installed=True)  # the deploy is taken back
        assert counted() == (0, 1)


def test_an_upgrade_is_asked_for(site: Site, home: str) -> None:
    site.rows("DELETE FROM job")
    answer = site.post(f"/v1/clusters/{home}/upgrade", {"reason": "the new module"})
    assert (answer.status_code, answer.json["operation"]["resource"]) == (202, home)
    assert site.jobs() == [(JobKind.CLUSTER, home)]
    shown = site.get(f"/v1/clusters/{home}").json
    assert (shown["release"], shown["upgraded_from"], shown["reconciled"]) == (NEW, OLD, False)
    again = site.post(f"/v1/clusters/{home}/upgrade", {"reason": "once more"})
    assert again.status_code == 409
    back = site.post(f"/v1/clusters/{home}/upgrade", {"reason": "taken back", "release": OLD[:12]})
    assert back.status_code == 202
    assert site.get(f"/v1/clusters/{home}").json["release"] == OLD


@pytest.mark.parametrize("release", ["c" * 64, "abc", 12, ""])
def test_a_release_that_nobody_published_is_refused(site: Site, home: str, release: object) -> None:
    answer = site.post(f"/v1/clusters/{home}/upgrade", {"reason": "x", "release": release})
    assert (answer.status_code, answer.json["error"]["field"]) == (400, "release")
    assert site.get(f"/v1/clusters/{home}").json["release"] == OLD


def test_without_a_worker_there_is_no_installed_release(site: Site) -> None:
    site.found("sub_1")
    [row] = site.rows("SELECT cluster_id AS id FROM placement")
    shown = site.get(f"/v1/clusters/{row['id']}").json
    assert (shown["release"], shown["installed_release"]) == (None, None)
    assert site.post(f"/v1/clusters/{row['id']}/upgrade", {"reason": "x"}).status_code == 409


def test_a_dry_run_is_a_preview_of_the_cluster(site: Site, home: str) -> None:
    answer = site.post(f"/v1/clusters/{home}/upgrade", {"dry_run": True})
    assert answer.status_code == 202
    asked = answer.json["preview"]
    assert (asked["cluster"], asked["state"]) == (home, "waiting")
    shown = site.get(f"/v1/previews/{asked['id']}").json
    assert (shown["tenant"], shown["cluster"]) == (None, home)
    assert "has not begun" in shown["waits_for"], "the cluster is still to be made"
    site.rows("DELETE FROM job WHERE kind = 'cluster'")
    assert site.get(f"/v1/previews/{asked['id']}").json["waits_for"] == "a worker to take it"
    assert site.get(f"/v1/clusters/{home}").json["release"] == OLD
