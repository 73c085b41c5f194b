"""`controlplane verify`: what it prints, its JSON, its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from controlplane.cli.verify import command
from controlplane.domain.errors import Retryable
from controlplane.localcloud.fakes.aws import FakeAccount
from tests.harness.engine import ZONE, Harness

NOWHERE = "c-zzzzzzzzzzzz"
HOST = f"customer-1.{ZONE}"

Run = Callable[..., Result]


@pytest.fixture
def run(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command with the harness for its worker's context."""
    subscription = harness.subscribe(1)
    harness.hear(subscription, "customer.subscription.created")
    harness.work()
    monkeypatch.setattr("controlplane.workers.runtime.wiring.context_from_environment", lambda: harness.ctx)
    monkeypatch.setattr(harness.ctx.registry, "close", lambda: None)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, [*arguments], catch_exceptions=False)

    return run


def test_nothing_found(run: Run) -> None:
    done = run()
    assert done.exit_code == 0
    assert "nothing found: the systems agree" in done.output
    assert "tried 3 times what must be refused" in done.output
    document = json.loads(run("--json").stdout)
    assert (document["ok"], document["findings"], document["isolation_probe"]["tried"]) == (True, [], 3)


def test_a_leak_is_named_with_its_price(run: Run, harness: Harness) -> None:
    FakeAccount(harness.world).make("cluster", NOWHERE, status="available")
    done = run()
    assert done.exit_code == 1
    assert NOWHERE in done.output
    assert "about 43.80 USD a month (an estimate" in done.output
    assert done.stderr == "error: 1 findings\n"
    as_json = run("--json")
    assert as_json.exit_code == 1
    document = json.loads(as_json.stdout)
    assert (document["ok"], document["estimated_monthly_usd"]) == (False, 43.8)
    assert document["findings"][0]["fault"] == "orphan"


def test_repair_mends_what_two_looks_found(run: Run, harness: Harness) -> None:
    harness.cache.flush()
    done = run("--repair", "--grace", "0")
    assert done.exit_code == 1
    assert f"republish {HOST}: published" in done.output
    assert run().exit_code == 0


def test_without_repair_nothing_is_changed(run: Run, harness: Harness) -> None:
    harness.cache.flush()
    assert run().exit_code == 1
    assert harness.cache.read(HOST) is None


def test_a_system_that_cannot_be_asked_is_no_success(run: Run, harness: Harness) -> None:
    harness.hostnames.fail(Retryable("Cloudflare can't be reached"))
    done = run()
    assert done.exit_code == 3
    assert "not looked at: Cloudflare: Cloudflare can't be reached" in done.output


def test_one_tenant_and_one_that_is_not_there(run: Run, harness: Harness) -> None:
    FakeAccount(harness.world).make("cluster", NOWHERE, status="available")
    assert run("--tenant", "customer-1").exit_code == 0
    missing = run("--tenant", "ghost")
    assert missing.exit_code == 4
    assert missing.stderr == "error: tenant ghost does not exist\n"
