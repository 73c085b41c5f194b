"""Each action that is declared has its route, its command, its line in the docs and in the audit trail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controlplane.actions import ACTIONS
from controlplane.cli import tenants
from tests.web.site import Site

DOCS = Path(__file__).parents[2] / "docs"
BODIES: dict[str, dict[str, Any]] = {
    "move": {"to": "dedicated"},
    "restore": {"snapshot": "nightly"},
    "clone": {"slug": "acme-copy"},
    "approve-purge": {"digest": "0" * 64},
}


@pytest.fixture
def tenant_id(site: Site) -> str:
    tenant_id, _ = site.found("sub_1", name="Acme")
    site.rows("UPDATE tenant SET ready_at = now() - interval '3 days'")
    return tenant_id


@pytest.fixture(params=sorted(ACTIONS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_listed_with_its_parameters(site: Site, name: str) -> None:
    [declared] = [
        item for item in site.get("/v1/actions", role="viewer").json["items"] if item["name"] == name
    ]
    assert declared["permission"] == "operator"
    assert declared["summary"]
    assert set(declared["parameters"].get("properties", {})) == set(ACTIONS[name].params.model_fields)
    assert declared["approved_by"] == ("approve-purge" if name == "purge" else None)


def test_every_parameter_says_what_is_expected_and_what_it_is_for(name: str) -> None:
    for field in ACTIONS[name].params.model_fields.values():
        assert field.title
        assert field.description


def test_a_viewer_may_not(site: Site, tenant_id: str, name: str) -> None:
    body = {"reason": "x", **BODIES.get(name, {})}
    assert site.post(f"/v1/tenants/{tenant_id}/{name}", body, role="viewer").status_code == 403
    assert site.rows("SELECT FROM audit WHERE actor LIKE 'api:%%'") == []


def test_it_wants_a_reason_and_nothing_unknown(site: Site, tenant_id: str, name: str) -> None:
    for extra, field in (({}, "reason"), ({"reason": "x", "colour": "red"}, "colour")):
        answer = site.post(f"/v1/tenants/{tenant_id}/{name}", {**BODIES.get(name, {}), **extra})
        assert (answer.status_code, answer.json["error"]["field"]) == (400, field)


def test_it_is_audited_once_with_its_reason(site: Site, tenant_id: str) -> None:
    """Of those that a living tenant can be asked for; the others' rows are shown by their own tests."""
    for name in ("reprovision", "rotate", "export", "move"):
        body = {"reason": f"why {name}", **BODIES.get(name, {})}
        assert site.post(f"/v1/tenants/{tenant_id}/{name}", body).status_code == 202
        [row] = site.rows("SELECT action, actor FROM audit WHERE detail->>'reason' = %s", f"why {name}")
        assert row == {
            "action": ACTIONS[name].audit or f"tenant.{name}",
            "actor": "api:operator-bot",
        }


def test_it_is_a_command(name: str) -> None:
    shown = CliRunner().invoke(tenants.command, [name, "--help"])
    assert shown.exit_code == 0
    said = " ".join(shown.output.split())
    assert ACTIONS[name].summary.split(".")[0].replace("`", "")[:40] in said.replace("`", "")
    assert "--reason" in said
    assert ("--dry-run" in said) == (ACTIONS[name].preview is not None)
    for field in ACTIONS[name].params.model_fields:
        assert f"--{field.replace('_', '-')}" in said


@pytest.mark.parametrize("page", ["api.md", "cli.md"])
def test_it_is_in_the_docs(name: str, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert (f"`tenants {name} " if page == "cli.md" else f"| `{name}` |") in text
