"""Another slug: what the dry run says, and where `tenants show` says that the old host leads."""

from __future__ import annotations

from tests.cli.conftest import Desk


def test_a_dry_run_says_from_where_to_where_and_until_when(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    shown = desk.run("tenants", "rename", "acme", "--slug", "acme-two", "--dry-run")
    assert shown.exit_code == 0
    rows = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert (rows["former_host"], rows["host"]) == ("acme.tenants.example", "acme-two.tenants.example")
    assert rows["redirects_until"].startswith("20")
    assert desk.site.rows("SELECT slug FROM tenant") == [{"slug": "acme"}]


def test_a_renamed_tenant_shows_from_where_it_redirects(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    assert desk.run("tenants", "rename", "acme", "--slug", "acme-two", "--redirect-days", "3").exit_code == 0
    shown = desk.run("tenants", "show", "acme-two")
    assert shown.exit_code == 0
    [former] = [
        line.split() for line in shown.stdout.splitlines() if line.startswith("acme.tenants.example ")
    ]
    assert (former[1], "until" in former) == ("former", True)
    taken = desk.run("tenants", "rename", "acme-two", "--slug", "www")
    assert taken.exit_code != 0
    assert "slug: expected a name that is not reserved" in taken.stderr


def test_who_knows_the_former_slug_alone_is_told_the_new_one(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    desk.ok("tenants", "rename", "acme", "--slug", "acme-two")
    rows = dict(line.split(maxsplit=1) for line in desk.ok("tenants", "show", "acme").splitlines()[:3])
    assert rows["tenant"].startswith("acme-two (t-")
    assert rows["renamed"] == "from acme to acme-two"
    done = desk.run("tenants", "rotate", "acme")
    assert (done.exit_code, "the former slug of acme-two" in done.stderr) == (4, True)
    host = desk.ok("tenants", "show", "acme-two.tenants.example")
    assert "found by" not in host


def test_the_slug_that_it_has_is_nothing_to_do(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    for more in ([], ["--dry-run"]):
        said = desk.ok("tenants", "rename", "acme", "--slug", "acme", *more)
        assert "nothing to do: it is called so" in said
