"""Purge, certificate and notifications at the command line."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from controlplane.certificate import CertificateKey, issue
from controlplane.cli.main import cli
from tests.cli.conftest import Desk

KEY = CertificateKey("c1", b"s" * 32)
DOCUMENT = {
    "tenant": {"id": "t-aaaaaaaaaaaa", "slug": "acme", "customer": "cus_1"},
    "issuer": {"environment": "test", "zone": "tenants.example"},
    "issued_at": "2026-11-24T12:00:00+00:00",
    "existed": {"created_at": "2026-01-01T00:00:00+00:00", "closed_at": "2026-10-01T00:00:00+00:00"},
    "order": {
        "requested_by": "api:anna",
        "requested_at": "2026-11-24T11:00:00+00:00",
        "reason": "the end",
        "approved_by": "api:bert",
        "approved_at": "2026-11-24T11:30:00+00:00",
    },
    "deletion_proof": [{"system": "IAM", "asked": "role c-aaaaaaaaaaaa", "answer": "there is none"}],
    "kept": [{"kind": "dump", "name": "purges/x.dump", "until": "2026-12-24T12:00:00+00:00"}],
    "remains": ["the registry's row"],
}


@pytest.fixture
def closed(desk: Desk) -> str:
    return desk.site.closed("sub_1")


def test_a_dry_run_shows_and_the_request_tells_how_to_approve(desk: Desk, closed: str) -> None:
    shown = desk.ok("tenants", "purge", closed, "--dry-run")
    assert re.search(r"\bp_[a-z2-7]{12} on ", shown)
    assert "approve-purge" not in shown
    refused = desk.run("tenants", "purge", "acme")
    assert (refused.exit_code, "its id in full" in refused.stderr) == (2, True)
    assert desk.run("tenants", "purge", "acme", "--dry-run").stderr == refused.stderr
    early = desk.run("tenants", "purge", closed)
    assert (early.exit_code, "keeps its data until" in early.stderr) == (1, True)
    asked = desk.ok("tenants", "purge", closed, "--early", "--reason", "art. 17")
    digest = desk.json("tenants", "purge", closed, "--dry-run")["digest"]
    assert f"controlplane tenants approve-purge {closed} --digest {digest}" in asked
    alone = desk.run("tenants", "approve-purge", closed, "--digest", digest)
    assert (alone.exit_code, "somebody else" in alone.stderr) == (1, True)
    assert "art. 17" not in desk.ok("tenants", "withdraw-purge", closed)
    assert "data kept until" in desk.ok("tenants", "show", "acme")


@pytest.mark.parametrize("options", [["--dry-run", "--wait"], ["--wait"], ["--digest", "x"]])
def test_options_that_do_not_go_together(desk: Desk, options: list[str]) -> None:
    assert desk.run("tenants", "purge", "t-aaaaaaaaaaaa", *options).exit_code == 2


def test_a_certificate_is_shown_and_checked(desk: Desk, closed: str, tmp_path: Path) -> None:
    assert desk.run("tenants", "certificate", "acme").exit_code == 4
    envelope = issue(DOCUMENT, KEY)
    desk.site.rows(
        "INSERT INTO purge (tenant_id, state, reason, content, digest, requested_by, approved_by,"
        " approved_at, begun_at, done_at, certificate) VALUES"
        " (%s, 'done', 'x', '{}', repeat('0', 64), 'a', 'b', now(), now(), now(), %s::jsonb)",
        closed,
        json.dumps(envelope),
    )
    shown = desk.ok("tenants", "certificate", "acme")
    assert "role c-aaaaaaaaaaaa" in shown
    assert "kept until 2026-12-24T12:00:00+00:00: dump purges/x.dump" in shown
    file = tmp_path / "certificate.json"
    file.write_text(desk.ok("tenants", "certificate", "acme", "--json"))
    key = base64.b64encode(KEY.public_key).decode()
    assert "good, of tenant t-aaaaaaaaaaaa" in desk.ok("certificate", "check", file, "--key", key)
    other = base64.b64encode(CertificateKey("c2", b"t" * 32).public_key).decode()
    wrong = desk.run("certificate", "check", file, "--key", other)
    assert (wrong.exit_code, "not of this document" in wrong.stderr) == (1, True)
    file.write_text(file.read_text().replace("api:bert", "api:anna"))
    assert desk.run("certificate", "check", file, "--key", key).exit_code == 1


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("{}", "x", "expected base64"),
        ("{}", "AAAA", "expected 32 bytes"),
        ("[", "A" * 43 + "=", "expected JSON"),
        ("[]", "A" * 43 + "=", "expected a JSON object"),
    ],
)
def test_what_can_not_be_checked_is_said(tmp_path: Path, text: str, key: str, said: str) -> None:
    file = tmp_path / "certificate.json"
    file.write_text(text)
    done = CliRunner().invoke(cli, ["certificate", "check", str(file), "--key", key])
    assert (done.exit_code, said in done.stderr) == (2, True)


def test_the_public_key_is_shown(tmp_path: Path) -> None:
    seed = base64.b64encode(KEY.seed).decode()
    done = CliRunner().invoke(cli, ["certificate", "key"], env={"CONTROLPLANE_CERTIFICATE_KEY": f"c1:{seed}"})
    assert done.stdout == f"c1 {base64.b64encode(KEY.public_key).decode()}\n"
    assert CliRunner().invoke(cli, ["certificate", "key"], env={}).exit_code == 2


def test_notices_are_listed_shown_and_sent_again(desk: Desk, closed: str) -> None:
    [notification] = desk.json("notifications", "list")["items"]
    assert "closing" in desk.ok("notifications", "list")
    assert '"tenant.closing"' in desk.ok("notifications", "show", notification["id"])
    desk.site.rows("UPDATE notification SET state = 'delivered', finished_at = now()")
    assert "will deliver it again" in desk.ok("notifications", "redeliver", notification["id"])
    assert desk.json("notifications", "list", "--state", "waiting")["items"][0]["id"] == notification["id"]
    assert closed


def test_an_export_is_asked_for_and_awaited(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.cli.watching.POLL", 0.01)
    desk.site.found("sub_1")
    desk.site.rows("UPDATE tenant SET ready_at = now()")
    assert "exports/p-" in desk.ok("tenants", "export", "acme")
    late = desk.run("tenants", "export", "acme", "--wait", "--timeout", "1")
    assert (late.exit_code, "is not made after 1 s" in late.stderr) == (6, True)
    desk.site.rows("UPDATE data_copy SET state = 'failed'")  # the same request would find it
    desk.site.rows(
        "CREATE FUNCTION fail_it() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.state = 'failed'; NEW.error = 'no bucket'; RETURN NEW; END $$"
    )
    desk.site.rows(
        "CREATE TRIGGER fail_it BEFORE INSERT ON data_copy FOR EACH ROW EXECUTE FUNCTION fail_it()"
    )
    try:
        failed = desk.run("tenants", "export", "acme", "--wait")
    finally:
        desk.site.rows("DROP FUNCTION fail_it CASCADE")
    assert (failed.exit_code, "no bucket" in failed.stderr) == (1, True)
