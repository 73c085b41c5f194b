from __future__ import annotations

import pytest

from tests.cli.conftest import Desk


def test_a_move_is_asked_for_shown_and_aborted(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    desk.site.rows("UPDATE tenant SET ready_at = now()")
    assert desk.json("tenants", "move", "acme", "--to", "dedicated")["resource"] == tenant_id
    assert "preparing, to dedicated" in desk.ok("tenants", "show", "acme")
    done = desk.run("tenants", "confirm-transfer", "acme")
    assert (done.exit_code, "only one that is reversible" in done.stderr) == (1, True)
    assert "operations watch" in desk.ok("tenants", "abort-transfer", "acme", "--reason", "not now")
    desk.site.rows(
        "UPDATE transfer SET phase = 'reversible', pause_seconds = 0.1234, keep_until = now(),"
        " checked = 'before',"
        """ compared = '[{"name": "app.notes", "rows": 7, "checksum": "1", "same": true}]'"""
    )
    shown = desk.ok("tenants", "show", "acme")
    assert "no write for 0.123 s, 7 rows of 1 tables the same, source kept until 20" in shown


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--to", "shared", "--dry-run", "--wait"],
    ],
)
def test_what_does_not_go_together(desk: Desk, options: list[str]) -> None:
    assert desk.run("tenants", "move", "acme", *options).exit_code == 2


def test_a_clone_is_planned_made_and_closed(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    desk.site.rows("UPDATE tenant SET ready_at = now()")
    assert "copy.tenants.example" in desk.ok("tenants", "clone", "acme", "--slug", "copy", "--dry-run")
    assert desk.json("tenants", "clone", "acme", "--slug", "copy")["state"] == "waiting"
    assert "clone of" in desk.ok("tenants", "show", "copy")
    assert "operations watch" in desk.ok("tenants", "close", "copy", "--reason", "done")
    assert desk.run("tenants", "close", "acme").exit_code == 1
    assert desk.run("tenants", "clone", "acme", "--slug", "x2", "--dry-run", "--wait").exit_code == 2
