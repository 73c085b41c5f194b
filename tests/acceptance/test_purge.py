"""Two customers leave for good, on real Terraform, PostgreSQL and an emulated account: nothing is left."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from controlplane.certificate import CertificateKey, fault
from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.localcloud.demo.processes import DemoProcesses
from controlplane.localcloud.servers.postgres_install import program
from controlplane.store import placement, tenant
from tests.acceptance import drift
from tests.acceptance.customers import Customers, wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


def _placed(harness: DemoProcesses, subscription: str) -> Placement:
    with harness.registry.connection() as conn:
        found = placement.current(conn, tenant_id_for(subscription))
    assert found is not None
    return found


def _cancel(customers: Customers, subscription: str) -> None:
    customers.stripe.v1.subscriptions.cancel(subscription)

    def closed() -> bool | None:
        with customers.harness.registry.connection() as conn:
            row = tenant.get(conn, tenant_id_for(subscription))
        return True if row.phase.value == "closed" else None

    wait_for(closed, timeout=120, what=lambda: customers.state(subscription))


def _purge(harness: DemoProcesses, customers: Customers, subscription: str) -> dict[str, Any]:
    """Asked for by one, approved by another; the certificate."""
    keys, path = harness.cloud.credentials, f"{harness.web_url}/v1/tenants/{tenant_id_for(subscription)}"

    def post(url: str, token: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    asked = post(f"{path}/purge", keys.operator_token, {"reason": "art. 17", "early": True}).json()
    word = {"digest": asked["purge"]["digest"], "reason": "the customer's letter"}
    assert post(f"{path}/approve-purge", keys.operator_token, word).status_code == 409
    post(f"{path}/approve-purge", keys.second_operator_token, word).raise_for_status()

    def certificate() -> dict[str, Any] | None:
        answer = httpx.get(
            f"{path}/certificate", headers={"Authorization": f"Bearer {keys.viewer_token}"}, timeout=30
        )
        return answer.json() if answer.status_code == 200 else None

    return wait_for(certificate, timeout=420, what=lambda: customers.state(subscription), every=0.5)


def test_a_shared_tenant_leaves_a_dump_and_nothing_else(
    harness: DemoProcesses, customers: Customers, tmp_path: Path
) -> None:
    subscription = customers.subscribe("kilo", "starter_monthly")
    customers.wait_for_page("kilo", timeout=420)
    customers.write("kilo", "what was written before the end")
    placed = _placed(harness, subscription)
    _cancel(customers, subscription)
    envelope = _purge(harness, customers, subscription)

    seed = base64.b64decode(harness.cloud.credentials.certificate_key.partition(":")[2])
    assert fault(envelope, CertificateKey("c1", seed).public_key) is None
    [kept, backups] = envelope["certificate"]["kept"]
    assert (backups["kind"], backups["name"]) == ("automatic backups", placed.cluster_id)
    bucket = harness.environment()["CONTROLPLANE_COPY_BUCKET"]
    body = drift.account(harness).client("s3").get_object(Bucket=bucket, Key=kept["name"])["Body"].read()
    assert hashlib.sha256(body).hexdigest() == kept["sha256"]
    (tmp_path / "kilo.dump").write_bytes(body)
    url = harness.cloud.registry.create_database("kilo_restored")
    restore = [program("pg_restore"), "--no-owner", "--dbname", url, tmp_path / "kilo.dump"]
    subprocess.run(restore, check=True, timeout=60)
    with psycopg.connect(url) as conn:
        rows = conn.execute("SELECT body FROM app.note").fetchall()
    assert rows == [("what was written before the end",)]
    assert kept["rows"]["app.note"] == 1

    assert customers.page("kilo").status_code == 404
    status, found = drift.verify(harness, "--tenant", placed.tenant_id)
    assert (status, found["findings"], found["unread"]) == (0, [], [])


@pytest.mark.soak
def test_a_dedicated_tenant_takes_its_cluster_along(harness: DemoProcesses, customers: Customers) -> None:
    subscription = customers.subscribe("lima", "team_monthly")
    customers.wait_for_page("lima", timeout=420)
    placed = _placed(harness, subscription)
    _cancel(customers, subscription)
    envelope = _purge(harness, customers, subscription)
    [kept] = envelope["certificate"]["kept"]
    account = drift.account(harness)
    rds = account.client("rds")
    clusters = {c["DBClusterIdentifier"] for c in rds.describe_db_clusters()["DBClusters"]}
    assert placed.cluster_id not in clusters
    [snapshot] = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=kept["name"])[
        "DBClusterSnapshots"
    ]
    assert snapshot["Status"] == "available"
    assert placed.cluster_id in set(account.keys())
    assert drift.violations(harness) == []
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", "tenants", "certificate", "lima", "--json"],
        env=harness.environment()
        | {
            "CONTROLPLANE_API_URL": harness.web_url,
            "CONTROLPLANE_API_TOKEN": harness.cloud.credentials.viewer_token,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == envelope
