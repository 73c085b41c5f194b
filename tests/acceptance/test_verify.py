"""`controlplane verify` on the local cloud: five inconsistencies planted by hand, found and named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.localcloud.demo.processes import DemoProcesses
from controlplane.store import cluster, placement
from controlplane.workers.providers.endpoint_map import EndpointMap
from dataplane.tenant_config import cache_key
from tests.acceptance import drift
from tests.acceptance.customers import Customers

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

NOBODY, NOWHERE = "p-zzzzzzzzzzzz", "c-zzzzzzzzzzzz"


@pytest.fixture(scope="module")
def placed(harness: DemoProcesses, customers: Customers) -> Placement:
    subscription = customers.subscribe("hotel", "starter_monthly")
    customers.wait_for_page("hotel", timeout=420)
    customers.wait_until_reconciled(subscription, timeout=120)
    with harness.registry.connection() as conn:
        found = placement.current(conn, tenant_id_for(subscription))
    assert found is not None
    return found


@contextmanager
def _master(harness: DemoProcesses, placed: Placement) -> Iterator[psycopg.Connection[Any]]:
    """Somebody with the master's password, at work by hand."""
    with harness.registry.connection() as conn:
        at = cluster.get(conn, placed.cluster_id).endpoint
    assert at is not None
    secrets = drift.account(harness).client("secretsmanager")
    login = json.loads(secrets.get_secret_value(SecretId=at["master_secret_arn"])["SecretString"])
    where = EndpointMap(Path(harness.environment()["CONTROLPLANE_DATABASE_ENDPOINT_MAP"]))
    with psycopg.connect(
        host=at["host"],
        dbname="postgres",
        user=login["username"],
        password=login["password"],
        autocommit=True,
        **where.resolve(at["host"], at["port"]),
    ) as conn:
        yield conn


def test_another_terminal_has_all_that_it_needs_from_one_file(harness: DemoProcesses) -> None:
    """As the demo and the README say: support's commands, and those of whoever runs it."""
    path = harness.write_environment()
    assert path.stat().st_mode & 0o777 == 0o600
    sourced = ["sh", "-c", 'set -a; . "$0"; set +a; exec "$@"', path]
    for command in (["tenants", "list"], ["doctor"]):
        done = subprocess.run(
            [*sourced, sys.executable, "-m", "controlplane.cli.main", *command],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    path.unlink()  # it holds secrets, and other tests look for any in this folder


def test_a_run_in_order_has_no_findings(harness: DemoProcesses, placed: Placement) -> None:
    status, found = drift.verify(harness, "--tenant", "hotel")
    assert (status, found["findings"], found["unread"]) == (0, [], [])
    assert found["isolation_probe"]["tried"] >= 2
    assert found["isolation_probe"]["untried"] == []


def test_what_was_planted_is_found_and_what_may_be_is_mended(
    harness: DemoProcesses, customers: Customers, placed: Placement
) -> None:
    account = drift.account(harness)
    secrets, iam, s3 = (account.client(name) for name in ("secretsmanager", "iam", "s3"))
    role = sql.Identifier(placed.app_roles[0])
    orphan, state = f"placements/{NOBODY}/app", f"placements/{NOWHERE}/terraform.tfstate"
    secrets.create_secret(Name=orphan)
    iam.create_role(RoleName=NOWHERE, AssumeRolePolicyDocument='{"Version": "2012-10-17", "Statement": []}')
    s3.put_object(Bucket=account.bucket, Key=state, Body=b"{}")
    with redis.Redis.from_url(harness.environment()["CONTROLPLANE_CACHE_URL"]) as cache:
        cache.delete(cache_key(customers.host("hotel")))
    with _master(harness, placed) as conn:
        conn.execute(sql.SQL("GRANT CONNECT ON DATABASE postgres TO {}").format(role))
    try:
        status, found = drift.verify(harness, "--repair", "--grace", "0", "--probes", "100")
    finally:
        with _master(harness, placed) as conn:
            conn.execute(sql.SQL("REVOKE CONNECT ON DATABASE postgres FROM {}").format(role))
        secrets.delete_secret(SecretId=orphan, ForceDeleteWithoutRecovery=True)
        iam.delete_role(RoleName=NOWHERE)
        s3.delete_object(Bucket=account.bucket, Key=state)
    assert status == 1
    assert {(f["system"], f["fault"], f["name"]) for f in found["findings"]} == {
        ("PostgreSQL", "breach", f"{placed.app_roles[0]} → postgres"),
        ("Secrets Manager", "orphan", orphan),
        ("IAM", "orphan", NOWHERE),
        ("Terraform", "orphan", NOWHERE),
        ("Cache", "missing", customers.host("hotel")),
    }
    assert found["estimated_monthly_usd"] == 0.4
    assert [(done["repair"], done["outcome"]) for done in found["repairs"]] == [("republish", "published")]
    assert drift.violations(harness) == []
