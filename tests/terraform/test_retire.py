"""The end of a warm cluster with the real Terraform: what an approved close leaves behind is nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from controlplane.domain.catalogue import Isolation
from controlplane.domain.cluster import ClusterLifecycle, ClusterSpec
from controlplane.localcloud.aws.emulator import AwsEmulator
from controlplane.store.cluster import ClusterRow
from controlplane.workers.engine.context import Platform
from controlplane.workers.engine.stacks import cluster_addresses, cluster_variables
from controlplane.workers.providers.ports import StackRun
from tests.harness.terraform import (
    Events,
    RealFixture,
    cluster_run,
    never,
    published,
)

SPEC = ClusterSpec(ClusterLifecycle.ACTIVE, Isolation.DEDICATED, "17.5", 0.0, 4.0, 600, 7, 1)


@pytest.fixture
def fixture(aws: AwsEmulator, tmp_path: Path) -> RealFixture:
    return RealFixture(tmp_path)


def row(cluster_id: str) -> ClusterRow:
    unknown: dict[str, Any] = dict.fromkeys(
        (
            *("status", "observed_at", "hardened_at", "endpoint", "needs_attention", "runbook"),
            *("destroyed_at", "release", "upgraded_from", "declares"),
        )
    )
    now = datetime.now(UTC)
    return ClusterRow(
        id=cluster_id,
        cluster_class=SPEC.cluster_class,
        slots=1,
        used=0,
        ever_used=False,
        spec=SPEC,
        generation=1,
        observed_generation=0,
        ready_at=now,
        created_at=now,
        keeps_key=False,
        **unknown,
    )


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_a_warm_cluster_is_destroyed_whole_without_a_snapshot(fixture: RealFixture) -> None:
    given = fixture.platform()
    platform = Platform(
        environment="test",
        zone="tenants.example",
        livemode=False,
        vpc_id=given["vpc_id"],
        subnet_ids=tuple(given["subnet_ids"]),
        app_security_group_ids=tuple(given["allowed_security_group_ids"]),
        app_role_arn=given["app_role_arn"],
        permissions_boundary_arn=given["permissions_boundary_arn"],
    )
    name = cluster_run(fixture).workspace
    made = row(name)

    def run(of: ClusterRow, **more: Any) -> StackRun:
        variables = cluster_variables(platform, of) | {"operation_id": "1"}
        return StackRun("cluster", name, published(fixture), variables, **more)

    fixture.terraform.apply(run(made), on_event=Events(), stopped=never)
    rds = boto3.client("rds")
    assert rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"]

    closed = replace(made, spec=SPEC.closed(), generation=2)
    events = Events()
    ending = run(closed, approved=cluster_addresses(closed))
    fixture.terraform.destroy(ending, on_event=events, stopped=never)

    deleted = {address for address, action in events.of("done") if action == "delete"}
    assert deleted == cluster_addresses(closed)
    with pytest.raises(ClientError, match="DBClusterNotFoundFault"):
        rds.describe_db_clusters(DBClusterIdentifier=name)
    snapshots = rds.describe_db_cluster_snapshots(DBClusterIdentifier=name)["DBClusterSnapshots"]
    assert snapshots == []
    fixture.terraform.destroy(ending, on_event=Events(), stopped=never)  # nothing left is success
