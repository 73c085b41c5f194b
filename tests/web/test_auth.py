import logging

import pytest
from flask import Flask

from controlplane.actions import ACTIONS
from controlplane.actions.action import Subject
from tests.web.site import TOKENS, Site, bearer
from tests.web.test_api_actions import BODIES

READS = [
    "/v1/actions",
    "/v1/tenants",
    "/v1/tenants/t-aaaaaaaaaaaa",
    "/v1/tenants/t-aaaaaaaaaaaa/purge",
    "/v1/tenants/t-aaaaaaaaaaaa/certificate",
    "/v1/exports/1",
    "/v1/notifications",
    "/v1/notifications/msg_1",
    "/v1/previews/1",
    "/v1/operations",
    "/v1/operations/1",
    "/v1/events",
    "/v1/events/evt_1",
    "/v1/clusters",
    "/v1/clusters/c-aaaaaaaaaaaa",
    "/v1/contracts",
    "/v1/pool",
    "/v1/summary",
    "/v1/rollouts",
    "/v1/rollouts/1",
    "/v1/rollouts/1/members",
    "/v1/rollouts/1/plot",
    "/v1/releases",
    "/v1/releases/fleet",
    "/v1/releases/1",
    "/v1/rehearsals/1",
    "/v1/schema",
    "/v1/fleet",
]
IDS = {Subject.TENANT: "t-aaaaaaaaaaaa", Subject.CLUSTER: "c-aaaaaaaaaaaa", Subject.FLEET: ""}
DECLARED = {action.path(IDS[action.subject]): action.name in BODIES for action in ACTIONS.values()}
ACTS = [
    *(path for path, takes_more in DECLARED.items() if not takes_more),
    "/v1/notifications/msg_1/redeliver",
    "/v1/events/evt_1/replay",
]
MAKES = [
    *(path for path, takes_more in DECLARED.items() if takes_more),
    "/v1/events/evt_1/dismiss",
    "/v1/events/replay",
    "/v1/rollouts/1/pause",
    "/v1/rollouts/1/resume",
    "/v1/rollouts/1/abort",
    "/v1/rollouts/1/retry",
    "/v1/rollouts/1/skip",
    "/v1/rollouts",
    "/v1/releases",
    "/v1/releases/files",
    "/v1/releases/findings/1/accept",
    "/v1/rehearsals",
]
"""What is sent to them here is not what they take, so an operator hears of that first."""
RESOLVE = "/v1/resolve?host=a.tenants.example"


def urls(app: Flask) -> set[tuple[str, str]]:
    """Every (method, path) below /v1 that the application serves."""
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "POST", "PUT", "PATCH", "DELETE"}
        if rule.rule.startswith("/v1")
    }


def test_the_lists_above_name_every_url(site: Site) -> None:
    shapes = {("GET", path) for path in [*READS, "/v1/resolve"]} | {
        ("POST", path) for path in [*ACTS, *MAKES]
    }
    adapter = site.app.url_map.bind("localhost")
    named = {
        (method, adapter.match(path, method=method, return_rule=True)[0].rule) for method, path in shapes
    }
    assert named == urls(site.app)


@pytest.mark.parametrize("path", [*READS, RESOLVE])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer \xff"},
        {"Authorization": f"Basic {TOKENS['operator']}"},
        {"Authorization": TOKENS["operator"]},
        {"Authorization": f"Bearer {TOKENS['operator'][:-1]}"},
        {"Authorization": f"Bearer {TOKENS['operator']}x"},
    ],
)
def test_without_a_valid_token_nobody_reads(site: Site, path: str, headers: dict[str, str]) -> None:
    answer = site.client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json["error"]["code"] == "unauthorized"
    assert answer.json["error"]["message"].endswith("`Authorization: Bearer <token>`")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", [*ACTS, *MAKES])
def test_without_a_valid_token_nobody_acts(site: Site, path: str) -> None:
    assert site.client.post(path, json={"reason": "x"}).status_code == 401


@pytest.mark.parametrize("role", ["viewer", "operator"])
@pytest.mark.parametrize("path", READS)
def test_viewers_and_operators_read(site: Site, path: str, role: str) -> None:
    assert site.get(path, role=role).status_code in {200, 404}


@pytest.mark.parametrize("path", READS)
def test_a_data_plane_reads_nothing_else(site: Site, path: str) -> None:
    answer = site.get(path, role="dataplane")
    assert answer.status_code == 403
    assert answer.json["error"]["code"] == "forbidden"


@pytest.mark.parametrize("role", ["viewer", "operator", "dataplane"])
def test_all_roles_resolve(site: Site, role: str) -> None:
    assert site.get(RESOLVE, role=role).json["error"]["code"] == "unknown_host"


@pytest.mark.parametrize("role", ["viewer", "dataplane"])
@pytest.mark.parametrize("path", MAKES)
def test_only_operators_make(site: Site, path: str, role: str) -> None:
    assert site.post(path, {"reason": "x"}, role=role).status_code == 403
    assert site.post(path, {"reason": "x"}).status_code in {400, 404}


@pytest.mark.parametrize("role", ["viewer", "dataplane"])
@pytest.mark.parametrize("path", ACTS)
def test_only_operators_act(site: Site, path: str, role: str) -> None:
    assert site.post(path, {"reason": "x"}, role=role).status_code == 403
    assert site.post(path, {"reason": "x"}).status_code == 404


def test_the_scheme_is_read_in_any_case(site: Site) -> None:
    headers = {"Authorization": f"bearer  {TOKENS['viewer']}"}
    assert site.client.get("/v1/tenants", headers=headers).status_code == 200


def test_health_needs_no_token(site: Site) -> None:
    assert site.client.get("/healthz").status_code == 200
    assert site.client.get("/readyz").status_code == 200


def test_no_token_is_ever_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        site.get("/v1/tenants")
        site.client.get("/v1/tenants", headers={"Authorization": "Bearer nearly-right"})
        site.client.get("/v1/tenants", query_string={"token": TOKENS["viewer"]}, headers=bearer("viewer"))
    assert "/v1/tenants" in caplog.text
    for record in caplog.records:
        assert "nearly-right" not in repr(record.__dict__)
        assert TOKENS["viewer"] not in repr(record.__dict__)
