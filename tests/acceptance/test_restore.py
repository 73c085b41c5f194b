"""An application deletes all of a customer's rows; they come back, on real Terraform and PostgreSQL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.domain.transfer import TransferPhase, moment
from controlplane.localcloud.demo.processes import DemoProcesses
from controlplane.store import cluster, placement, transfer
from controlplane.workers.providers.endpoint_map import EndpointMap
from tests.acceptance import drift
from tests.acceptance.customers import Customers, wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


@contextmanager
def _database(
    harness: DemoProcesses, placed: Placement, secret: str | None
) -> Iterator[psycopg.Connection[Any]]:
    """By the login in this secret, or as the cluster's master."""
    with harness.registry.connection() as conn:
        at = cluster.get(conn, placed.cluster_id).endpoint
    assert at is not None
    secrets = drift.account(harness).client("secretsmanager")
    name = secret or at["master_secret_arn"]
    login = json.loads(secrets.get_secret_value(SecretId=name)["SecretString"])
    where = EndpointMap(Path(harness.environment()["CONTROLPLANE_DATABASE_ENDPOINT_MAP"]))
    with psycopg.connect(
        host=at["host"],
        dbname=placed.database,
        user=login["username"],
        password=login["password"],
        autocommit=True,
        **where.resolve(at["host"], at["port"]),
    ) as conn:
        yield conn


def _bodies(page: httpx.Response) -> list[str]:
    page.raise_for_status()
    return sorted(note["body"] for note in page.json()["notes"])


def test_rows_that_were_deleted_are_back_on_the_tenants_host_and_the_damage_is_kept(
    harness: DemoProcesses, customers: Customers
) -> None:
    subscription = customers.subscribe("mike", "starter_monthly")
    customers.wait_for_page("mike", timeout=420)
    for body in ("first", "second"):
        customers.write("mike", body)
    customers.wait_until_reconciled(subscription, timeout=120)
    tenant_id = tenant_id_for(subscription)
    with harness.registry.connection() as conn:
        before = placement.current(conn, tenant_id)
    assert before is not None
    time.sleep(2)
    at = moment(datetime.now(UTC))
    time.sleep(1.1)
    with _database(harness, before, before.app_secret) as conn:
        assert conn.execute("DELETE FROM app.note").rowcount == 2
    customers.write("mike", "where are my notes?")
    assert _bodies(customers.page("mike")) == ["where are my notes?"]

    asked = httpx.post(
        f"{harness.web_url}/v1/tenants/mike/restore",
        json={"at": at, "reason": "DELETE without WHERE"},
        headers={"Authorization": f"Bearer {harness.cloud.credentials.operator_token}"},
        timeout=30,
    )
    assert asked.status_code == 202, asked.text
    began = time.monotonic()

    def restored() -> bool | None:
        customers.page("mike")
        with harness.registry.connection() as conn:
            found = transfer.latest(conn, tenant_id)
        return True if found is not None and found.phase is TransferPhase.REVERSIBLE else None

    wait_for(restored, timeout=420, what=lambda: customers.state("mike"))
    print(f"restored after {time.monotonic() - began:.1f} s")
    assert wait_for(
        lambda: found if "first" in (found := _bodies(customers.page("mike"))) else None,
        timeout=20,
        what=lambda: customers.page("mike").text,
    ) == ["first", "second"]
    customers.write("mike", "thank you")
    customers.wait_until_reconciled(subscription, timeout=120)

    with harness.registry.connection() as conn:
        after, found = placement.current(conn, tenant_id), transfer.latest(conn, tenant_id)
    assert found is not None
    assert after is not None
    assert after.id != before.id
    assert (found.copied_rows, found.checked, found.differing) == (2, "before", [])
    print(f"no write for {found.pause_seconds} s")
    with (
        pytest.raises(psycopg.OperationalError, match="not permitted to log in"),
        _database(harness, before, before.app_secret),
    ):
        pass
    with _database(harness, before, None) as conn:
        kept = conn.execute("SELECT body FROM app.note").fetchall()
    assert kept == [("where are my notes?",)]

    def gone() -> bool | None:
        with harness.registry.connection() as conn:
            row = cluster.get(conn, str(found.restored_cluster))
        return True if row.destroyed_at is not None else None

    wait_for(gone, timeout=300, what=lambda: customers.state("mike"))
    clusters = drift.account(harness).client("rds").describe_db_clusters()["DBClusters"]
    assert found.restored_cluster not in {there["DBClusterIdentifier"] for there in clusters}
    status, system = drift.verify(harness, "--tenant", tenant_id)
    assert (status, system["findings"], system["unread"]) == (0, [], [])
    assert drift.violations(harness) == []
