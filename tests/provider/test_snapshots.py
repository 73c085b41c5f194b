"""`ports.Snapshots`: RDS and its fake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
import httpx
import pytest

from controlplane.domain.errors import NeedsHuman
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.localcloud.fakes.snapshots import SNAPSHOT, FakeSnapshots
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_snapshots import AwsSnapshots
from controlplane.workers.providers.ports import Snapshots
from tests.harness.terraform import new_id


@dataclass
class Fixture:
    snapshots: Snapshots
    make_cluster: Callable[[str], object]
    plant_stranger: Callable[[str, str], object]
    """(cluster, name): a snapshot of that name which carries no tags of ours."""
    names: Callable[[str], list[str]]


@pytest.fixture(params=["fake", "real"])
def fixture(request: pytest.FixtureRequest) -> Fixture:
    if request.param == "fake":
        world = World()
        account = FakeAccount(world)
        return Fixture(
            FakeSnapshots(world),
            make_cluster=lambda cluster: account.make("cluster", cluster, status="available"),
            plant_stranger=lambda cluster, name: account.make(
                SNAPSHOT,
                name,
                cluster=cluster,
                tags={},
                polls=0,
                taken_at=datetime.now(UTC).isoformat(),
            ),
            names=lambda _: account.names(SNAPSHOT),
        )
    request.getfixturevalue("aws")
    rds: Any = boto3.client("rds")

    def names(cluster: str) -> list[str]:
        found = rds.describe_db_cluster_snapshots(DBClusterIdentifier=cluster, SnapshotType="manual")
        return [snapshot["DBClusterSnapshotIdentifier"] for snapshot in found["DBClusterSnapshots"]]

    return Fixture(
        AwsSnapshots(region=REGION),
        make_cluster=lambda cluster: rds.create_db_cluster(
            DBClusterIdentifier=cluster,
            Engine="aurora-postgresql",
            MasterUsername="platform_master",
            ManageMasterUserPassword=True,
        ),
        plant_stranger=lambda cluster, name: rds.create_db_cluster_snapshot(
            DBClusterIdentifier=cluster, DBClusterSnapshotIdentifier=name
        ),
        names=names,
    )


def ensure(fixture: Fixture, cluster: str, name: str) -> str:
    return fixture.snapshots.ensure(cluster, name, tags={"cluster": cluster, "rollout": "7"})


def test_a_snapshot_is_begun_once_and_becomes_available(fixture: Fixture) -> None:
    cluster = new_id("c-")
    fixture.make_cluster(cluster)
    assert ensure(fixture, cluster, f"{cluster}-rollout-7-1") in {"creating", "available"}
    assert ensure(fixture, cluster, f"{cluster}-rollout-7-1") == "available"
    assert fixture.names(cluster) == [f"{cluster}-rollout-7-1"]


def test_it_is_deleted_and_gone_already_is_success(fixture: Fixture) -> None:
    cluster = new_id("c-")
    fixture.make_cluster(cluster)
    name = f"{cluster}-rollout-7-1"
    ensure(fixture, cluster, name)
    fixture.snapshots.delete(name)
    assert fixture.names(cluster) == []
    fixture.snapshots.delete(name)


def test_somebody_elses_of_that_name_is_neither_taken_nor_deleted(fixture: Fixture) -> None:
    cluster = new_id("c-")
    fixture.make_cluster(cluster)
    name = f"{cluster}-rollout-7-1"
    fixture.plant_stranger(cluster, name)
    with pytest.raises(NeedsHuman) as caught:
        ensure(fixture, cluster, name)
    assert caught.value.runbook == "foreign-resource"
    with pytest.raises(NeedsHuman):
        fixture.snapshots.delete(name)
    assert fixture.names(cluster) == [name]


def test_another_clusters_is_not_taken(fixture: Fixture) -> None:
    one, two = new_id("c-"), new_id("c-")
    fixture.make_cluster(one)
    fixture.make_cluster(two)
    ensure(fixture, one, f"{one}-rollout-7-1")
    with pytest.raises(NeedsHuman, match="not ours"):
        ensure(fixture, two, f"{one}-rollout-7-1")


def test_a_cluster_that_is_not_there_has_none(fixture: Fixture) -> None:
    with pytest.raises(NeedsHuman):
        ensure(fixture, new_id("c-"), f"{new_id('c-')}-rollout-7-1")


def test_a_quota_that_is_used_up_says_so(aws: AwsEmulator) -> None:
    cluster = new_id("c-")
    boto3.client("rds").create_db_cluster(
        DBClusterIdentifier=cluster,
        Engine="aurora-postgresql",
        MasterUsername="platform_master",
        ManageMasterUserPassword=True,
    )
    settings = f"{aws.url}/_localcloud/settings"
    httpx.post(settings, json={"rds_snapshot_quota": 0}).raise_for_status()
    try:
        with pytest.raises(NeedsHuman) as caught:
            AwsSnapshots(region=REGION).ensure(cluster, f"{cluster}-rollout-7-1", tags={"cluster": cluster})
    finally:
        httpx.post(settings, json={"rds_snapshot_quota": 100}).raise_for_status()
    assert caught.value.runbook == "aws-quota"


def test_any_snapshot_is_described_ours_or_not(fixture: Fixture) -> None:
    cluster = new_id("c-")
    fixture.make_cluster(cluster)
    assert fixture.snapshots.describe(f"{cluster}-none") is None
    ensure(fixture, cluster, f"{cluster}-ours")
    ensure(fixture, cluster, f"{cluster}-ours")
    fixture.plant_stranger(cluster, f"{cluster}-by-hand")
    for name in (f"{cluster}-ours", f"{cluster}-by-hand"):
        seen = fixture.snapshots.describe(name)
        assert seen is not None
        assert (seen.name, seen.cluster_id, seen.status) == (name, cluster, "available")
        assert seen.taken_at is not None
        assert abs((datetime.now(UTC) - seen.taken_at).total_seconds()) < 120
