"""An export is asked for at the API and shown until it is gone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from controlplane.domain.job import JobKind, Lane
from tests.web.site import Site


def test_it_is_asked_for_and_shown(site: Site) -> None:
    tenant_id = site.found("sub_1")
    assert site.post(f"/v1/tenants/{tenant_id}/export", {"reason": "x"}).status_code == 409
    site.rows("UPDATE tenant SET ready_at = now()")
    answer = site.post("/v1/tenants/acme/export", {"reason": "art. 20", "keep_days": 3})
    export = answer.json["export"]
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/exports/{export['id']}")
    assert site.wake_ups == [Lane.LONG]
    assert site.jobs(JobKind.EXPORT) == [(JobKind.EXPORT, str(export["id"]))]
    assert export["name"].startswith("exports/p-")
    assert site.get(f"/v1/exports/{export['id']}").json == export
    assert site.rows("SELECT action FROM audit ORDER BY seq DESC LIMIT 1")[0]["action"] == "export.request"


@pytest.mark.parametrize(("body", "field"), [({}, "reason"), ({"reason": "x", "keep_days": 0}, "keep_days")])
def test_what_is_wrong_is_named(site: Site, body: dict[str, Any], field: str) -> None:
    tenant_id = site.found("sub_1")
    answer = site.post(f"/v1/tenants/{tenant_id}/export", body)
    assert (answer.status_code, answer.json["error"]["field"]) == (400, field)


def test_the_same_request_again_is_the_same_export_until_it_has_ended(site: Site) -> None:
    tenant_id = site.found("sub_1")
    site.rows("UPDATE tenant SET ready_at = now()")
    path = f"/v1/tenants/{tenant_id}/export"
    first = site.post(path, {"reason": "art. 20", "keep_days": 3}).json["export"]
    again = site.post(path, {"reason": "art. 20", "keep_days": 3}, role="second")
    assert (again.status_code, again.json["export"]) == (202, first)
    assert again.headers["Location"] == f"/v1/exports/{first['id']}"
    assert site.post(path, {"reason": "art. 20", "keep_days": 4}).json["export"]["id"] != first["id"]
    site.rows("UPDATE data_copy SET state = 'failed'")
    assert site.post(path, {"reason": "art. 20", "keep_days": 3}).json["export"]["id"] != first["id"]


def test_two_requests_at_once_are_one_export(site: Site) -> None:
    tenant_id = site.found("sub_1")
    site.rows("UPDATE tenant SET ready_at = now()")
    start = threading.Barrier(4)

    def ask(_: int) -> int:
        start.wait()
        return int(site.post(f"/v1/tenants/{tenant_id}/export", {"reason": "x"}).json["export"]["id"])

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(ask, range(4)))
    assert len(found) == 1
    assert site.rows("SELECT count(*) AS n FROM data_copy") == [{"n": 1}]
    assert site.jobs(JobKind.EXPORT) == [(JobKind.EXPORT, str(*found))]
