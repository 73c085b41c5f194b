"""An export is asked for at the API and shown until it is gone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.site import Site


def test_it_is_asked_for_and_shown(site: Site) -> None:
    tenant_id, _ = site.found("sub_1")
    assert site.post(f"/v1/tenants/{tenant_id}/export", {"reason": "x"}).status_code == 409
    site.rows("UPDATE tenant SET ready_at = now()")
    answer = site.post("/v1/tenants/acme/export", {"reason": "art. 20", "keep_days": 3})
    export = answer.json["export"]
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/exports/{export['id']}")
    assert site.rings[-1] == ("workers.tasks.export", [str(export["id"])])
    assert export["name"].startswith(f"exports/{tenant_id}-1-")
    assert site.get(f"/v1/exports/{export['id']}").json == export
    assert site.rows("SELECT action FROM audit ORDER BY seq DESC LIMIT 1")[0]["action"] == "export.request"


@pytest.mark.parametrize(("body", "field"), [({}, "reason"), ({"reason": "x", "keep_days": 0}, "keep_days")])
def test_what_is_wrong_is_named(site: Site, body: dict[str, Any], field: str) -> None:
    tenant_id, _ = site.found("sub_1")
    answer = site.post(f"/v1/tenants/{tenant_id}/export", body)
    assert (answer.status_code, answer.json["error"]["field"]) == (400, field)
