"""`ports.Clusters`: RDS and its fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
import psycopg
import pytest
from botocore.stub import Stubber

from controlplane.domain.errors import Retryable
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.localcloud.fakes.aws import (
    LOGICAL_GROUP,
    FakeAccount,
    FakeClusters,
    FakeSecrets,
    endpoint_of,
)
from controlplane.localcloud.fakes.databases import FakeDatabases
from controlplane.localcloud.fakes.terraform import FakeTerraform
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_clusters import AwsClusters
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import Activity, Credential
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


@dataclass
class PausingFixture:
    """`idle`: nobody connects for as long as the cluster waits before it pauses."""

    clusters: Any
    databases: Any
    make: Callable[[float, bool], tuple[str, Any]]  # least ACU, logical replication → its id, where it is
    idle: Callable[[Any], None]
    stay: Callable[[Any], Any]  # a client connects and stays, until it is closed


@pytest.fixture(params=["fake", "real"])
def pausing(request: pytest.FixtureRequest) -> Iterator[PausingFixture]:
    if request.param == "fake":
        yield _fake_pausing()
        return
    aws: AwsEmulator = request.getfixturevalue("aws")
    rds, secrets = boto3.client("rds"), AwsSecrets(region=REGION)
    clusters, endpoints = AwsClusters(region=REGION), EndpointMap(aws.endpoint_map)
    databases = PostgresDatabases(secrets, endpoints, sslmode="prefer")

    def wait(seconds: float) -> None:
        httpx.post(f"{aws.url}/_localcloud/settings", json={"rds_pause_seconds": seconds}).raise_for_status()

    def make(least: float, logical: bool) -> tuple[str, Any]:
        cluster_id = new_id("c-")
        group = {"DBClusterParameterGroupName": _logical_group(rds)} if logical else {}
        rds.create_db_cluster(
            DBClusterIdentifier=cluster_id,
            Engine="aurora-postgresql",
            MasterUsername="platform_master",
            ManageMasterUserPassword=True,
            ServerlessV2ScalingConfiguration={"MinCapacity": least, "MaxCapacity": 4},
            **group,
        )
        rds.create_db_instance(
            DBInstanceIdentifier=f"{cluster_id}-1",
            DBClusterIdentifier=cluster_id,
            Engine="aurora-postgresql",
            DBInstanceClass="db.serverless",
        )
        return cluster_id, clusters.describe(cluster_id).endpoint

    def idle(at: Any) -> None:
        clusters.activity(at.host.partition(".")[0])  # it has seen what was connected before
        wait(0.000001)

    def stay(at: Any) -> Any:
        login = secrets.read(at.master_secret_arn)
        return psycopg.connect(
            host=at.host,
            user=login.username,
            password=login.password,
            dbname="postgres",
            application_name="billing-export",
            **endpoints.resolve(at.host, at.port),
        )

    wait(3600)
    yield PausingFixture(clusters, databases, make, idle, stay)
    wait(0)


def _logical_group(rds: Any) -> str:
    name = new_id("group-")
    rds.create_db_cluster_parameter_group(
        DBClusterParameterGroupName=name, DBParameterGroupFamily="aurora-postgresql17", Description="logical"
    )
    parameter = {"ParameterName": "rds.logical_replication", "ParameterValue": "1"}
    rds.modify_db_cluster_parameter_group(
        DBClusterParameterGroupName=name, Parameters=[parameter | {"ApplyMethod": "pending-reboot"}]
    )
    return name


def _fake_pausing() -> PausingFixture:
    world = World()
    account, secrets, terraform = FakeAccount(world), FakeSecrets(world), FakeTerraform(world)
    databases = FakeDatabases(world, secrets)
    visitor = Credential(username="t_visitor", password="x", dbname="d_visitor")

    def make(least: float, logical: bool) -> tuple[str, Any]:
        cluster_id, group = new_id("c-"), LOGICAL_GROUP if logical else None
        terraform.make_master(cluster_id)
        pause = 300 if least == 0 else None
        settings = {"min_acu": least, "auto_pause": pause, "parameter_group": group}
        account.make("cluster", cluster_id, status="available", **settings)
        return cluster_id, endpoint_of(cluster_id)

    def stay(at: Any) -> Any:
        databases.stay(at, visitor, application="billing-export")
        return closing(_Leaving(lambda: databases.leave(at, visitor)))

    return PausingFixture(FakeClusters(world), databases, make, databases.idle, stay)


@dataclass
class _Leaving:
    close: Callable[[], None]


def test_a_paused_cluster_is_told_without_waking_it(pausing: PausingFixture) -> None:
    cluster_id, at = pausing.make(0, False)
    pausing.idle(at)
    for _ in range(2):
        assert pausing.clusters.activity(cluster_id) == Activity(0.0, 0.0)
    with pausing.stay(at):
        assert pausing.clusters.activity(cluster_id).acu > 0, "a connection has woken it"


def test_who_is_connected_keeps_it_awake_and_is_named(pausing: PausingFixture) -> None:
    cluster_id, at = pausing.make(0, False)
    with pausing.stay(at):
        pausing.idle(at)
        found = pausing.clusters.activity(cluster_id)
        assert (found.acu > 0, found.connections) == (True, 1)
        (client,) = pausing.databases.clients(at)
        assert (client.application, client.sessions) == ("billing-export", 1)
        assert client.oldest >= 0


@pytest.mark.parametrize(("least", "logical"), [(1, False), (0, True)])
def test_what_does_not_pause_is_never_at_nothing(
    pausing: PausingFixture, least: float, logical: bool
) -> None:
    """Its parameter group may be why (Aurora User Guide, "Scaling to Zero ACUs")."""
    cluster_id, at = pausing.make(least, logical)
    pausing.idle(at)
    assert pausing.clusters.activity(cluster_id) == Activity(max(0.5, least), 0.0)


def test_a_cluster_that_is_not_there_has_no_activity(pausing: PausingFixture) -> None:
    assert pausing.clusters.activity(new_id("c-")) is None


def test_an_account_that_may_not_read_metrics_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    clusters = AwsClusters(region=REGION)
    with Stubber(clusters._metrics) as stub:
        stub.add_client_error("get_metric_data", "AccessDenied", http_status_code=403)
        assert clusters.activity("c-1") is None
        stub.add_client_error("get_metric_data", "Throttling", http_status_code=400)
        with pytest.raises(Retryable):
            clusters.activity("c-1")
