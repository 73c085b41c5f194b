"""A secret is nowhere but in Secrets Manager and in process memory (I9).

The canaries are the real thing: every password that the workers made for tenants, the masters' and the
keys that the processes were given. They are looked for in every file of the run (logs, Terraform's work
folders, PostgreSQL's files and logs), in Terraform's states, in every table of the registry, in every
key of both Redis, and in the command lines of every process.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from controlplane.localcloud.demo.processes import DemoProcesses
from tests.acceptance import drift
from tests.acceptance.customers import Customers

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def canaries(harness: DemoProcesses, customers: Customers) -> dict[str, bytes]:
    """What it is → the secret. One tenant at least has been provisioned."""
    subscription = customers.subscribe("golf", "starter_monthly")
    customers.wait_for_page("golf", timeout=420)
    customers.wait_until_reconciled(subscription, timeout=120)
    secrets = drift.account(harness).client("secretsmanager")
    found: dict[str, bytes] = {}
    for page in secrets.get_paginator("list_secrets").paginate():
        for secret in page["SecretList"]:
            value = json.loads(secrets.get_secret_value(SecretId=secret["ARN"])["SecretString"])
            found[secret["Name"]] = value["password"].encode()
    environment = harness.environment()
    for name in ("CONTROLPLANE_STRIPE_API_KEY", "CONTROLPLANE_CLOUDFLARE_API_TOKEN"):
        found[name] = environment[name].encode()
    for number, key in enumerate(environment["CONTROLPLANE_STRIPE_WEBHOOK_SECRETS"].split(",")):
        found[f"webhook secret {number}"] = key.encode()
    found["signing key"] = environment["CONTROLPLANE_CONFIG_SIGNING_KEYS"].split(":", 1)[1].encode()
    assert any(name.startswith("placements/") for name in found)
    return found


def _holders(canaries: dict[str, bytes], where: str, content: bytes) -> list[str]:
    return [f"{name} in {where}" for name, secret in canaries.items() if secret in content]


def test_in_no_file_of_the_run(harness: DemoProcesses, canaries: dict[str, bytes]) -> None:
    leaks: list[str] = []
    read = 0
    for path in sorted(harness.cloud.data_dir.rglob("*")):
        if path.is_file() and not path.is_symlink() and "plugin-cache" not in path.parts:
            read += 1
            leaks += _holders(canaries, str(path), path.read_bytes())
    assert read > 100
    assert [leak for leak in leaks if not _fake_servers_own(leak)] == []


def _fake_servers_own(leak: str) -> bool:
    """The fake servers play Stripe and Cloudflare, whose business it is to know their customers' keys."""
    return "/stripe/" in leak or "/cloudflare/" in leak


def test_in_no_terraform_state(harness: DemoProcesses, canaries: dict[str, bytes]) -> None:
    states = drift.account(harness).state_files()
    assert states
    leaks = [leak for key, body in states.items() for leak in _holders(canaries, key, body)]
    assert leaks == []


def test_in_no_table_of_the_registry(harness: DemoProcesses, canaries: dict[str, bytes]) -> None:
    with harness.registry.connection() as conn:
        tables = [
            row["table_name"]
            for row in conn.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            ).fetchall()
        ]
        assert "stripe_event" in tables
        leaks = []
        for table in tables:
            rows = conn.execute(f'SELECT t::text AS row FROM "{table}" t').fetchall()
            content = "\n".join(row["row"] for row in rows).encode()
            bodies = b""
            if table == "stripe_event":
                bodies = b"".join(
                    bytes(r["body"]) for r in conn.execute("SELECT body FROM stripe_event").fetchall()
                )
            leaks += _holders(canaries, table, content + bodies)
    assert leaks == []


@pytest.mark.parametrize("which", ["broker", "cache"])
def test_in_no_key_of_redis(harness: DemoProcesses, canaries: dict[str, bytes], which: str) -> None:
    client = redis.Redis.from_url(getattr(harness.cloud, which).url)
    content = b""
    for key in client.scan_iter():
        content += key + (client.dump(key) or b"")
    client.close()
    assert _holders(canaries, which, content) == []


def test_in_no_command_line(canaries: dict[str, bytes]) -> None:
    leaks = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                leaks += _holders(canaries, folder.name, (folder / "cmdline").read_bytes())
            except OSError:
                continue
    assert leaks == []
