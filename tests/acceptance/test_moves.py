"""A customer is promoted on real parts: real Terraform, the account's emulator, Redis, the data plane."""

from __future__ import annotations

import pytest

from controlplane.actions.action import run
from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.domain.transfer import TransferPhase
from controlplane.localcloud.demo.processes import DemoProcesses
from controlplane.store import placement, transfer
from tests.acceptance import drift
from tests.acceptance.customers import Customers, wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.soak, pytest.mark.timeout(1500)]

MADE_WITHIN = 600
MOVED_WITHIN = 600


def _placed(harness: DemoProcesses, tenant_id: str) -> Placement:
    with harness.registry.connection() as conn:
        found = placement.current(conn, tenant_id)
    assert found is not None
    return found


def test_a_customer_is_promoted_and_the_source_deleted(harness: DemoProcesses, customers: Customers) -> None:
    subscription = customers.subscribe("comet", "starter_monthly")
    tenant_id = tenant_id_for(subscription)
    before = customers.wait_for_page("comet", timeout=MADE_WITHIN)
    customers.write("comet", "written on the shared cluster")
    source = _placed(harness, tenant_id)
    with harness.registry.connection() as conn:
        run(conn, "move", tenant_id, to="dedicated", actor="acceptance", reason="it grows")
    customers.wait_until_reconciled(subscription, timeout=MOVED_WITHIN)
    target = _placed(harness, tenant_id)
    with harness.registry.connection() as conn:
        found = transfer.latest(conn, tenant_id)
    assert found is not None
    assert (found.phase, found.differing) == (TransferPhase.REVERSIBLE, [])
    assert target.cluster_id != source.cluster_id
    print(f"\nno write was taken for {found.pause_seconds} s")
    page = customers.wait_for_page("comet", timeout=60)
    assert page["database"] != before["database"]
    customers.write("comet", "written on its own")
    text = customers.page("comet").text
    assert "written on the shared cluster" in text
    assert "written on its own" in text
    with harness.registry.connection() as conn:
        run(conn, "confirm-transfer", tenant_id, actor="acceptance", reason="it is good")
    customers.wait_until_reconciled(subscription, timeout=MOVED_WITHIN)
    with harness.registry.connection() as conn:
        over = transfer.latest(conn, tenant_id)
    assert over is not None
    assert (over.phase, over.finished_at is not None) == (TransferPhase.CONFIRMED, True)
    assert "written on its own" in customers.page("comet").text
    secrets = drift.account(harness).client("secretsmanager")
    wait_for(  # for the operation of its former cluster
        lambda: "DeletedDate" in secrets.describe_secret(SecretId=source.app_secret) or None,
        timeout=MOVED_WITHIN,
        what=lambda: customers.state("comet"),
    )
    assert drift.violations(harness) == []
    assert "DeletedDate" not in secrets.describe_secret(SecretId=target.app_secret)
