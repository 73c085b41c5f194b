"""Each action that is declared has its route, its command, its line in the docs and in the audit trail."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controlplane.actions import ACTIONS
from controlplane.actions.action import Action, Fleet, Subject
from controlplane.cli import clusters, fleet, main, tenants
from controlplane.domain.job import JobKind, Lane, Trouble
from controlplane.store import job
from tests.web.site import Site

DOCS = Path(__file__).parents[2] / "docs"
BODIES: dict[str, dict[str, Any]] = {
    "move": {"to": "dedicated"},
    "restore": {"snapshot": "nightly"},
    "clone": {"slug": "acme-copy"},
    "approve-purge": {"digest": "0" * 64},
    "freeze": {"hours": 1},
    "bind": {"contract": "sub_1"},
    "split": {"contract": "sub_1"},
    "hold": {"kind": "suspend", "days": 3},
    "end-hold": {"kind": "suspend"},
    "rename": {"slug": "acme-renamed"},
}
COMMANDS = {
    Subject.TENANT: tenants.command,
    Subject.CLUSTER: clusters.command,
    Subject.FLEET: fleet.command,
}


@pytest.fixture
def tenant_id(site: Site) -> str:
    tenant_id = site.found("sub_1", name="Acme")
    site.rows("UPDATE tenant SET ready_at = now() - interval '3 days'")
    return tenant_id


@pytest.fixture(params=[f"{kind} {name}" for kind, name in ACTIONS])
def action(request: pytest.FixtureRequest) -> Action[Any]:
    kind, _, name = request.param.partition(" ")
    return ACTIONS[Subject(kind), name]


@pytest.fixture
def url(site: Site, tenant_id: str, action: Action[Any]) -> str:
    return action.path(subject_id(site, tenant_id, action))


def subject_id(site: Site, tenant_id: str, action: Action[Any]) -> str:
    if action.subject is Subject.TENANT:
        return tenant_id
    if action.subject is Subject.FLEET:
        return Fleet().id
    return str(site.rows("SELECT cluster_id FROM placement")[0]["cluster_id"])


def test_it_is_listed_with_its_parameters(site: Site, action: Action[Any]) -> None:
    [declared] = [
        item
        for item in site.get("/v1/actions", role="viewer").json["items"]
        if (item["subject"], item["name"]) == (action.subject, action.name)
    ]
    assert declared["permission"] == "operator"
    assert declared["summary"]
    assert set(declared["parameters"].get("properties", {})) == set(action.params.model_fields)
    assert declared["approved_by"] == ("approve-purge" if action.name == "purge" else None)


def test_every_parameter_says_what_is_expected_and_what_it_is_for(action: Action[Any]) -> None:
    for field in action.params.model_fields.values():
        assert field.title
        assert field.description


def test_a_viewer_may_not(site: Site, url: str, action: Action[Any]) -> None:
    body = {"reason": "x", **BODIES.get(action.name, {})}
    assert site.post(url, body, role="viewer").status_code == 403
    assert site.rows("SELECT FROM audit WHERE actor LIKE 'api:%%'") == []


def test_it_wants_a_reason_and_nothing_unknown(site: Site, url: str, action: Action[Any]) -> None:
    for extra, field in (({}, "reason"), ({"reason": "x", "colour": "red"}, "colour")):
        answer = site.post(url, {**BODIES.get(action.name, {}), **extra})
        assert (answer.status_code, answer.json["error"]["field"]) == (400, field)


def test_it_is_audited_once_with_its_reason(site: Site, tenant_id: str) -> None:
    """Of those that a living tenant can be asked for; what it refuses leaves no row, and theirs are shown by
    their own tests."""
    accepted = set()
    for action in ACTIONS.values():
        reason = f"why {action.subject} {action.name}"
        named = subject_id(site, tenant_id, action)
        body = {"reason": reason, **BODIES.get(action.name, {})}
        status = site.post(action.path(named), body).status_code
        rows = site.rows(
            "SELECT action, actor FROM audit WHERE detail->>'reason' = %s AND resource = %s", reason, named
        )
        if status in {200, 202}:
            assert rows == [{"action": action.audited_as, "actor": "api:operator-bot"}]
            accepted.add(action.name)
        else:
            assert (status in {404, 409}, rows) == (True, []), action.name
    assert accepted >= {"reprovision", "rotate", "export", "move", "freeze", "unfreeze"}


def test_it_is_a_command(action: Action[Any]) -> None:
    shown = CliRunner().invoke(COMMANDS[action.subject], [action.name, "--help"])
    assert shown.exit_code == 0
    said = " ".join(shown.output.split())
    assert action.summary.split(".")[0].replace("`", "")[:40] in said.replace("`", "")
    named = "" if action.subject is Subject.FLEET else f" {action.subject.upper()}"
    assert f"{action.name} [OPTIONS]{named} " in said
    assert "--reason" in said
    assert ("--dry-run" in said) == (action.preview is not None)
    for field in action.params.model_fields:
        assert f"--{field.replace('_', '-')}" in said


def test_the_help_of_all_commands_names_it(action: Action[Any]) -> None:
    _, about = main.COMMANDS[str(COMMANDS[action.subject].name)]
    assert re.search(rf"(?<![\w-]){action.name}(?![\w-])", about)


@pytest.mark.parametrize("page", ["api.md", "cli.md"])
def test_it_is_in_the_docs(action: Action[Any], page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    group = COMMANDS[action.subject].name
    named = {
        "cli.md": f"`{group} {action.name} ",
        "api.md": f"| {action.subject} | `{action.name}` |",
    }
    assert named[page] in text, f"add its row to docs/{page}"


def test_a_cluster_is_set_going_again(site: Site, tenant_id: str) -> None:
    """One that needed a person too, and one that no tenant lives on: nothing else asks for it."""
    [row] = site.rows("SELECT cluster_id AS id FROM placement")
    site.rows("INSERT INTO stack (workspace, digest, outputs) VALUES (%s, 'x', '{}')", row["id"])
    with site.registry.connection() as conn:
        held = job.claim(conn, Lane.LONG, holder="test", seconds=60, kinds=[JobKind.CLUSTER])
        assert held is not None
        job.park(conn, held, Trouble("no quota", None, "aws-quota"))
    answer = site.post(f"/v1/clusters/{row['id']}/reprovision", {"reason": "the quota was raised"})
    assert (answer.status_code, answer.json["operation"]["resource"]) == (202, row["id"])
    assert answer.json["operation"]["state"] == "waiting"
    assert site.rows("SELECT FROM stack") == []
    assert site.wake_ups == [Lane.LONG]
    assert site.jobs(JobKind.CLUSTER) == [(JobKind.CLUSTER, row["id"])]


def test_a_cluster_that_is_gone_or_never_was(site: Site, tenant_id: str) -> None:
    [row] = site.rows("UPDATE cluster SET destroyed_at = now() RETURNING id")
    for cluster_id, status in ((row["id"], 409), ("c-aaaaaaaaaaaa", 404), ("acme", 404)):
        answer = site.post(f"/v1/clusters/{cluster_id}/reprovision", {"reason": "x"})
        assert answer.status_code == status


def test_a_dry_run_refuses_a_slug_as_the_act_does(site: Site, tenant_id: str, action: Action[Any]) -> None:
    if not action.full_id or action.preview is None:
        return
    body = BODIES.get(action.name, {})
    acts = site.post(action.path("acme"), {**body, "reason": "x"})
    planned = site.post(action.path("acme"), {**body, "dry_run": True})
    assert acts.status_code == 400
    assert (planned.status_code, planned.json) == (400, acts.json)


def test_what_the_act_refuses_its_dry_run_does(site: Site, tenant_id: str) -> None:
    site.rows("INSERT INTO customer (id) VALUES ('cus_9')")
    site.rows(
        "INSERT INTO contract (id, customer_id, outcome, first_event_at)"
        " VALUES ('sub_9', 'cus_9', 'applied', now())"
    )
    hold, bind = {"kind": "suspend", "days": 1}, {"contract": "sub_9"}
    for name, body in (("hold", hold), ("bind", bind)):
        path = f"/v1/tenants/{tenant_id}/{name}"
        assert site.post(path, {**body, "dry_run": True}).status_code == 200
        assert site.post(path, {**body, "reason": "x"}).status_code == 200
        again = site.post(path, {**body, "reason": "x"})
        planned = site.post(path, {**body, "dry_run": True})
        assert again.status_code == 409
        assert (planned.status_code, planned.json) == (409, again.json)
