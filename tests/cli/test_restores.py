from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.domain.transfer import moment
from tests.cli.conftest import Desk


def test_a_restore_is_asked_for_shown_and_aborted(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    desk.site.rows("UPDATE tenant SET ready_at = now() - interval '1 day'")
    at = moment(datetime.now(UTC) - timedelta(hours=1))
    assert desk.json("tenants", "restore", "acme", "--at", at)["resource"] == tenant_id
    shown = desk.ok("tenants", "show", "acme")
    assert "last restore" in shown
    assert f"preparing, to {at[:10]}" in shown
    assert "operations watch" in desk.ok("tenants", "abort-transfer", "acme")
    desk.site.rows("UPDATE transfer SET phase = 'aborted', finished_at = now()")
    assert "operations watch" in desk.ok("tenants", "restore", "acme", "--snapshot", "nightly")
    assert "preparing, to snapshot nightly" in desk.ok("tenants", "show", "acme")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--at", "2026-11-24T10:00:00Z", "--snapshot", "nightly"],
        ["--snapshot", "nightly", "--dry-run", "--wait"],
        ["--snapshot"],
    ],
)
def test_what_does_not_go_together(desk: Desk, options: list[str]) -> None:
    desk.site.found("sub_1", name="Acme")
    assert desk.run("tenants", "restore", "acme", *options).exit_code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--at", "2026-11-24T10:00:00"], "at: expected a moment in the past with its time zone"),
        (["--at", "2999-01-01T00:00:00Z"], "got '2999-01-01T00:00:00Z'"),
        (["--snapshot", "no--name"], "snapshot: expected the name of a snapshot of its cluster"),
    ],
)
def test_wrong_input_is_named_and_nothing_begins(desk: Desk, options: list[str], said: str) -> None:
    desk.site.found("sub_1", name="Acme")
    desk.site.rows("UPDATE tenant SET ready_at = now() - interval '1 day'")
    done = desk.run("tenants", "restore", "acme", *options)
    assert (done.exit_code, said in done.stderr) == (2, True)
    assert desk.site.rows("SELECT FROM transfer") == []
