"""`catalogue check --account` over a Stripe fake server: what it says, and its status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controlplane.cli import catalogue
from controlplane.cli.main import cli
from controlplane.localcloud.servers.process import free_port
from controlplane.workers.providers import stripe_billing
from tests.harness.stripe import KEY, StripeFixture, run_stripe_here

PLAN = """
isolation = "dedicated"
min_acu = 0.5
max_acu = 4
backup_retention_days = 7
pool_size = 5
connection_limit = 20
retention_days = 30
"""
GOOD = f"""version = 1
[plans.shared]
lookup_keys = ["shared"]
{PLAN}
[plans.dedicated]
lookup_keys = ["dedicated"]
{PLAN}
"""


@dataclass
class Desk:
    """Where a catalogue is written for an account. `stripe`: the account."""

    stripe: StripeFixture
    path: Path

    def check(self, text: str, *args: str, **env: str | None) -> Result:
        """`env`: settings over a worker's own, by what is behind CONTROLPLANE_STRIPE_."""
        self.path.write_text(text)
        given = {"API_KEY": KEY, "API_BASE": self.stripe.url} | env
        return CliRunner().invoke(
            cli,
            ["catalogue", "check", str(self.path), "--account", *args],
            env={f"CONTROLPLANE_STRIPE_{name}": value for name, value in given.items()},
        )

    def price(self, **more: Any) -> str:
        """A recurring price of a product of its own."""
        product = self.stripe.client.v1.products.create({"name": "Another"}).id
        wanted: Any = {"product": product, "currency": "usd", "unit_amount": 100, **more}
        return self.stripe.client.v1.prices.create({**wanted, "recurring": {"interval": "month"}}).id

    def subscribe(self, *prices: str, customer: str | None = None, **more: Any) -> str:
        wanted: Any = {"items": [{"price": price} for price in prices], **more}
        buyer = customer or self.stripe.customer()
        return self.stripe.client.v1.subscriptions.create({**wanted, "customer": buyer}).id


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in ("API_KEY", "API_BASE"):
        monkeypatch.delenv(f"CONTROLPLANE_STRIPE_{name}", raising=False)
    with run_stripe_here() as stripe:
        yield Desk(stripe, tmp_path / "plans.toml")


def test_an_account_that_fits_is_good_and_needs_nothing_but_the_key(desk: Desk) -> None:
    desk.stripe.subscribe()
    desk.stripe.subscribe(plan="dedicated", tenant="acme")
    done = desk.check(GOOD)
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        f"{desk.path}: good, 2 plans: shared, dedicated",
        "the account (test mode): 2 recurring prices, 2 subscriptions not ended",
    ]
    assert lines[-2:] == [
        "subscriptions would be: 2 active, 0 suspended, 0 waiting, 0 ignored, 0 parked",
        "tenants would be: 2 active, 0 suspended",
    ]
    assert "1 subscription with `tenant` in the metadata: parked unless" in done.stdout
    assert "would park" not in done.stdout


def test_what_would_park_and_what_is_not_there_fail_it(desk: Desk) -> None:
    old, idle, shared = desk.price(), desk.price(lookup_key="idle"), desk.stripe.prices["shared"]
    parked = [desk.subscribe(old) for _ in range(6)]
    payer = desk.stripe.customer()
    twice = sorted(desk.subscribe(shared, customer=payer) for _ in range(2))
    desk.stripe.client.v1.subscriptions.cancel(desk.subscribe(old))
    text = GOOD.replace('["dedicated"]', '["dedicated", "yearly"]').replace(
        '["shared"]', '["shared"]\nprice_ids = ["price_gone"]\nproduct_ids = ["prod_gone"]'
    )
    done = desk.check(text)
    assert done.exit_code == 1
    assert done.stderr == "error: 6 subscriptions would park, 3 names not in the account\n"
    said = done.stdout
    reason = f"subscription.items.data[…].price: expected a price of the catalogue, got '{old}'"
    newest = ", ".join(reversed(parked[1:]))
    assert f"these 6 subscriptions would park because {reason}: {newest}, …\n" in said
    assert f"1 customer would pay twice for one tenant: {payer} ({', '.join(twice)})\n" in said
    rows = [line.split() for line in said.splitlines()]
    for row in (
        ["plans.shared.price_ids", "price_gone"],
        ["plans.shared.product_ids", "prod_gone"],
        ["plans.dedicated.lookup_keys", "yearly"],
    ):
        assert row in rows
    assert [row[0] for row in rows if row and row[0] in (old, idle)] == [old, idle]
    assert [row[2:] for row in rows if row and row[0] in (old, idle)] == [["6", "-"], ["0", "idle"]]


def test_json_is_one_document_and_the_status_the_same(desk: Desk) -> None:
    desk.stripe.subscribe()
    old = desk.subscribe(desk.price())
    done = desk.check(GOOD, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (found["version"], found["plans"], found["mode"]) == (1, ["shared", "dedicated"], "test")
    assert (found["ok"], found["parked"][0]["count"], found["parked"][0]["first"]) == (False, 1, [old])
    assert found["subscriptions"]["active"] == 1
    desk.stripe.client.v1.subscriptions.cancel(old)
    assert json.loads(desk.check(GOOD, "--json").stdout)["ok"]


def test_a_grace_is_read_with_the_open_invoices_and_items_beyond_ten(desk: Desk) -> None:
    many = [desk.price() for _ in range(11)]
    desk.subscribe(*many, desk.stripe.prices["shared"])
    owing = desk.subscribe(desk.stripe.prices["shared"])
    desk.stripe.control.set_status(owing, "past_due")
    found = json.loads(desk.check(GOOD, "--json").stdout)
    assert (found["subscriptions"]["active"], found["subscriptions"]["parked"]) == (2, 0)
    assert len(found["unlisted"]) == 11


def test_a_long_listing_shows_how_far_it_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "TOLD_EVERY", 0.0)
    desk.stripe.subscribe()
    done = desk.check(GOOD, "--json")
    assert done.stderr.splitlines() == ["1 prices so far …", "2 prices so far …", "1 subscriptions so far …"]
    assert json.loads(done.stdout)["ok"]


def test_without_a_key_it_says_which_setting(desk: Desk) -> None:
    done = desk.check(GOOD, API_KEY=None)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: CONTROLPLANE_STRIPE_API_KEY: expected to be set\n"


def test_a_key_that_is_refused_is_one_line(desk: Desk) -> None:
    done = desk.check(GOOD, API_KEY="sk_test_another_canary_0123456789")
    assert (done.exit_code, done.stdout) == (5, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Stripe refuses our key: prices: HTTP 401")
    assert "may read Prices, Subscriptions and Invoices" in line
    assert "canary" not in line


@pytest.mark.parametrize("path", ["/v1/prices", "/v1/subscriptions", "/v1/invoices"])
def test_each_permission_that_a_restricted_key_lacks_is_named(desk: Desk, path: str) -> None:
    desk.stripe.control.set_status(desk.subscribe(desk.stripe.prices["shared"]), "past_due")
    desk.stripe.control.set_faults(api=[{"status": 403, "count": 9, "path": path}])
    done = desk.check(GOOD)
    assert (done.exit_code, done.stdout) == (5, "")
    assert f"Stripe refuses our key: {path[4:]}: HTTP 403" in done.stderr


def test_a_request_that_is_refused_is_not_the_keys_fault(desk: Desk) -> None:
    desk.stripe.control.set_faults(api=[{"status": 400, "count": 9}])
    done = desk.check(GOOD)
    assert (done.exit_code, "permission" in done.stderr, "may read" in done.stderr) == (1, False, False)
    assert "Stripe refuses the request: prices: HTTP 400" in done.stderr


def test_a_stripe_that_is_away_is_one_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_billing, "PAGE_TRIES", 1)
    done = desk.check(GOOD, API_BASE=f"http://127.0.0.1:{free_port()}")
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr == "error: Stripe can't be reached (prices)\n"


def test_a_bad_catalogue_is_told_of_before_stripe_is_asked(desk: Desk) -> None:
    done = desk.check("version = 2", API_BASE=f"http://127.0.0.1:{free_port()}")
    assert (done.exit_code, "version: expected a whole number, 1" in done.stderr) == (1, True)


def test_a_family_that_no_plan_is_of_is_a_warning(desk: Desk) -> None:
    text = GOOD + '\n[families.workspaces]\ntenants = "many"\n'
    for more in ([], ["--json"]):
        desk.path.write_text(text)
        done = CliRunner().invoke(cli, ["catalogue", "check", str(desk.path), *more])
        assert done.exit_code == 0
        assert done.stderr == f"warning: {desk.path}: families.workspaces: no plan is of it\n"
    assert json.loads(done.stdout)["warnings"] == ["families.workspaces: no plan is of it"]


SHARED = """
isolation = "shared"
min_acu = 0
seconds_until_auto_pause = 300
max_acu = 4
backup_retention_days = 7
pool_size = 5
connection_limit = 20
retention_days = 30
"""


def test_the_floor_of_an_idle_tenant_is_told_with_its_parts(desk: Desk) -> None:
    shared = f'[plans.small]\nlookup_keys = ["small"]\nslots = 25\n{SHARED}'
    desk.path.write_text(GOOD + shared)
    done = CliRunner().invoke(cli, ["catalogue", "check", str(desk.path)])
    assert (done.exit_code, done.stderr) == (0, "")
    rows = [line.strip().split(maxsplit=2) for line in done.stdout.splitlines()]
    assert ["small", "0.46", "secret 0.40, master secret 0.02, key 0.04"] in rows
    assert ["dedicated", "45.60", "secret 0.40, master secret 0.40, key 1.00, capacity 43.80"] in rows

    desk.path.write_text(GOOD + shared + "warm_slots = 10\n")
    done = CliRunner().invoke(cli, ["catalogue", "check", str(desk.path), "--json"])
    said = "plans.small: an idle tenant costs about 0.64 a month, expected at most 0.50 of a shared one"
    assert done.stderr == f"warning: {desk.path}: {said}\n"
    found = json.loads(done.stdout)
    assert found["warnings"] == [said]
    assert found["idle_monthly_usd"]["small"]["total"] == 0.64
    assert found["idle_monthly_usd"]["small"]["available"] == 0.1828
