"""The fleet: who works, and what is frozen."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.job import JobKind, Lane
from controlplane.store import job
from tests.web.site import Site


def freeze(site: Site, path: str, **body: Any) -> Any:
    asked = {"hours": 4, "reason": "an incident", **body}
    return site.post(f"/v1/{path}/freeze", asked)


def scopes(site: Site) -> list[str]:
    return [found["scope"] for found in site.get("/v1/fleet").json["freezes"]]


def test_what_is_frozen_is_shown_wherever_somebody_would_wonder(site: Site) -> None:
    tenant_id = site.found("sub_1")
    cluster_id = site.get(f"/v1/tenants/{tenant_id}").json["placement"]["cluster"]
    answer = freeze(site, "fleet", terraform=True)
    assert answer.status_code == 200
    frozen = answer.json["freeze"]
    assert (frozen["scope"], frozen["actor"], frozen["interrupts"]) == (
        "terraform",
        "api:operator-bot",
        False,
    )
    freeze(site, f"clusters/{cluster_id}")
    freeze(site, f"tenants/{tenant_id}", interrupt=True)
    assert scopes(site) == ["terraform", cluster_id, tenant_id]
    for path, expected in (
        ("summary", ["terraform", cluster_id, tenant_id]),
        (f"tenants/{tenant_id}", ["terraform", cluster_id, tenant_id]),
        (f"clusters/{cluster_id}", ["terraform", cluster_id]),
    ):
        assert [found["scope"] for found in site.get(f"/v1/{path}").json["freezes"]] == expected


def test_a_freeze_is_lifted_by_a_person_and_the_workers_are_notified(site: Site) -> None:
    freeze(site, "fleet")
    site.wake_ups.clear()
    answer = site.post("/v1/fleet/unfreeze", {"reason": "it is over"})
    assert answer.json["freeze"]["scope"] == "all"
    assert set(site.wake_ups) == set(Lane)
    assert scopes(site) == []
    audited = site.rows("SELECT action, resource, detail->>'reason' AS why FROM audit ORDER BY seq")
    assert [tuple(row.values()) for row in audited] == [
        ("fleet.freeze", "fleet", "an incident"),
        ("fleet.unfreeze", "fleet", "it is over"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("fleet/freeze", {"hours": 0, "reason": "x"}, 400, "hours"),
        ("fleet/freeze", {"reason": "x"}, 400, "hours"),
        ("fleet/freeze", {"hours": 1}, 400, "reason"),
        ("fleet/unfreeze", {"reason": "x"}, 404, "all is not frozen"),
        ("tenants/t-aaaaaaaaaaaa/freeze", {"hours": 1, "reason": "x"}, 404, "t-aaaaaaaaaaaa"),
    ],
)
def test_what_can_not_be_frozen_or_lifted_is_said(
    site: Site, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = site.post(f"/v1/{path}", body)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text


def test_the_same_twice_is_a_conflict(site: Site) -> None:
    freeze(site, "fleet")
    assert freeze(site, "fleet").status_code == 409


def test_the_processes_that_work_are_named_and_the_dead_are_no_longer_alive(site: Site) -> None:
    tenant_id = site.found("sub_1")
    with site.registry.connection() as conn:
        held = job.claim(conn, Lane.QUICK, holder="here", seconds=30, kinds=[JobKind.TENANT])
        assert held is not None
        assert held.subject == tenant_id
        job.beat(conn, "here", [held.fencing_token], lanes=[Lane.QUICK], version="1.0", seconds=30)
        job.beat(conn, "gone", [], lanes=list(Lane), version="0.9", seconds=30)
        conn.execute("UPDATE process SET heartbeat_at = heartbeat_at - interval '61 s' WHERE id = 'gone'")
    found = site.get("/v1/fleet").json["processes"]
    assert [(p["id"], p["lanes"], p["version"], p["alive"], p["jobs"]) for p in found] == [
        ("here", ["quick"], "1.0", True, 1),
        ("gone", ["quick", "long"], "0.9", False, 0),
    ]
