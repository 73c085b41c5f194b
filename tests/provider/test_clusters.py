"""`ports.Clusters`: RDS and its fake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
import pytest

from controlplane.domain.errors import Retryable
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.localcloud.fakes.aws import (
    FakeAccount,
    FakeClusters,
    FakeSecrets,
)
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_clusters import AwsClusters
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from tests.harness.terraform import new_id


@dataclass
class ClustersFixture:
    clusters: Any
    secrets: Any
    make_cluster: Callable[[str], None]
    make_instance: Callable[[str], None]


@pytest.fixture(params=["fake", "real"])
def fixture(request: pytest.FixtureRequest) -> ClustersFixture:
    if request.param == "fake":
        return _fake()
    request.getfixturevalue("aws")
    return _real()


def _real() -> ClustersFixture:
    rds = boto3.client("rds")
    return ClustersFixture(
        AwsClusters(region=REGION),
        AwsSecrets(region=REGION),
        make_cluster=lambda cluster_id: rds.create_db_cluster(
            DBClusterIdentifier=cluster_id,
            Engine="aurora-postgresql",
            MasterUsername="platform_master",
            ManageMasterUserPassword=True,
        ),
        make_instance=lambda cluster_id: rds.create_db_instance(
            DBInstanceIdentifier=f"{cluster_id}-1",
            DBClusterIdentifier=cluster_id,
            Engine="aurora-postgresql",
            DBInstanceClass="db.serverless",
        ),
    )


def _fake() -> ClustersFixture:
    from controlplane.localcloud.fakes.terraform import FakeTerraform

    world = World()
    account, terraform = FakeAccount(world), FakeTerraform(world)

    def make_cluster(cluster_id: str) -> None:
        terraform.make_master(cluster_id)
        account.make("cluster", cluster_id, status="available")

    return ClustersFixture(
        FakeClusters(world),
        FakeSecrets(world),
        make_cluster=make_cluster,
        make_instance=lambda cluster_id: account.make("instance", f"{cluster_id}-1", status="available"),
    )


def test_a_cluster_that_is_not_there(fixture: ClustersFixture) -> None:
    assert fixture.clusters.describe(new_id("c-")) is None


def test_a_cluster_without_an_instance_has_no_writer(fixture: ClustersFixture) -> None:
    cluster_id = new_id("c-")
    fixture.make_cluster(cluster_id)
    assert fixture.clusters.describe(cluster_id).writer_status is None


def test_a_ready_cluster_says_where_it_is_and_who_its_master_is(fixture: ClustersFixture) -> None:
    cluster_id = new_id("c-")
    fixture.make_cluster(cluster_id)
    fixture.make_instance(cluster_id)
    fixture.clusters.describe(cluster_id)  # the emulator answers "creating" once
    seen = fixture.clusters.describe(cluster_id)
    assert (seen.status, seen.writer_status) == ("available", "available")
    assert seen.endpoint.host.startswith(f"{cluster_id}.cluster-")
    assert seen.endpoint.port == 5432
    assert seen.endpoint.resource_id.startswith("cluster-")
    assert fixture.secrets.read(seen.endpoint.master_secret_arn).username == "platform_master"


def test_rds_says_between_which_times_a_cluster_can_be_restored(aws: AwsEmulator) -> None:
    cluster_id = new_id("c-")
    boto3.client("rds").create_db_cluster(
        DBClusterIdentifier=cluster_id,
        Engine="aurora-postgresql",
        MasterUsername="platform_master",
        ManageMasterUserPassword=True,
    )
    seen = AwsClusters(region=REGION).describe(cluster_id)
    assert seen is not None
    assert seen.earliest_restorable is not None
    assert seen.latest_restorable is not None
    assert seen.earliest_restorable.tzinfo is not None
    assert seen.earliest_restorable <= seen.latest_restorable


def test_a_rotation_under_way_is_waited_for(aws: AwsEmulator) -> None:
    """The server has the new password, AWSCURRENT not yet."""
    cluster_id, rds = new_id("c-"), boto3.client("rds")
    fixture = _real()
    fixture.make_cluster(cluster_id)
    fixture.make_instance(cluster_id)
    at = fixture.clusters.describe(cluster_id).endpoint
    databases = PostgresDatabases(fixture.secrets, EndpointMap(aws.endpoint_map), sslmode="prefer")
    assert "postgres" in databases.names(at)
    settings = f"{aws.url}/_localcloud/settings"
    httpx.post(settings, json={"rds_rotation_seconds": 3600}).raise_for_status()
    try:
        rds.modify_db_cluster(
            DBClusterIdentifier=cluster_id, RotateMasterUserPassword=True, ApplyImmediately=True
        )
        with pytest.raises(Retryable, match="may be rotating") as caught:
            databases.names(at)
        assert caught.value.runbook == "master-credential"
    finally:
        httpx.post(settings, json={"rds_rotation_seconds": 0}).raise_for_status()
    assert "postgres" in databases.names(at)
