"""RDS as the emulator has it: what AWS refuses is refused, what AWS keeps is kept.

Each test fails on moto as it is; `controlplane.localcloud.aws.fidelity.rds_*` says why.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.conftest import EmulatedAws, refused


def test_a_duplicate_is_refused_and_the_first_one_stays(account: EmulatedAws, name: str) -> None:
    first = account.create_cluster(name)
    with refused("DBClusterAlreadyExistsFault"):
        account.create_cluster(name)
    assert account.describe(name)["DbClusterResourceId"] == first["DbClusterResourceId"]


def test_of_many_creations_at_once_one_wins(account: EmulatedAws, name: str) -> None:
    def create(_: int) -> str:
        try:
            return str(account.create_cluster(name)["DbClusterResourceId"])
        except ClientError as error:
            return str(error.response["Error"]["Code"])

    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(create, range(8)))
    assert answers.count("DBClusterAlreadyExistsFault") == 7


@pytest.mark.parametrize(
    "identifier", ["1-begins-with-a-digit", "two--hyphens", "ends-", "under_score", "x" * 64]
)
def test_invalid_identifiers_are_refused(account: EmulatedAws, identifier: str) -> None:
    with refused("InvalidParameterValue", "DBClusterIdentifier is not a valid identifier"):
        account.create_cluster(identifier)


def test_the_cluster_quota_is_enforced(account: EmulatedAws, name: str) -> None:
    account.settings(rds_cluster_quota=1)
    account.create_cluster(name)
    with refused("DBClusterQuotaExceededFault"):
        account.create_cluster(f"{name}-2")
    account.settings(rds_cluster_quota=2)
    account.create_cluster(f"{name}-2")


def test_the_instance_quota_is_enforced(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.settings(rds_instance_quota=1)
    account.create_instance(name)
    with refused("InstanceQuotaExceeded"):
        account.create_instance(name, 2)


def test_creation_takes_the_time_it_is_told_to(account: EmulatedAws, name: str) -> None:
    account.settings(rds_create_seconds=1.5)
    began = time.monotonic()
    assert account.create_cluster(name)["Status"] == "creating"
    while (status := account.describe(name)["Status"]) == "creating":
        time.sleep(0.05)
    assert status == "available"
    assert time.monotonic() - began >= 1.4

    assert account.create_instance(name)["DBInstanceStatus"] == "creating"
    instances = account.rds.describe_db_instances(DBInstanceIdentifier=f"{name}-1")["DBInstances"]
    assert instances[0]["DBInstanceStatus"] == "creating"


def test_without_delay_the_next_look_finds_it_available(account: EmulatedAws, name: str) -> None:
    assert account.create_cluster(name)["Status"] == "creating"
    assert account.describe(name)["Status"] == "available"


def test_nothing_drifts_that_nobody_changed(account: EmulatedAws, name: str) -> None:
    account.create_cluster(
        name,
        EnableHttpEndpoint=True,
        ServerlessV2ScalingConfiguration={"MinCapacity": 0, "MaxCapacity": 2, "SecondsUntilAutoPause": 600},
    )
    seen = account.describe(name)
    assert seen["HttpEndpointEnabled"] is True
    assert "ScalingConfigurationInfo" not in seen
    assert seen["ServerlessV2ScalingConfiguration"]["MaxCapacity"] == 2


def test_instances_have_resource_ids_of_their_own(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    ids = {account.create_instance(name, number)["DbiResourceId"] for number in (1, 2)}
    assert len(ids) == 2


def test_an_unknown_cluster_cannot_be_modified(account: EmulatedAws) -> None:
    with refused("DBClusterNotFoundFault"):
        account.rds.modify_db_cluster(DBClusterIdentifier="nobody", BackupRetentionPeriod=3)


def test_a_refused_change_leaves_the_cluster(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    with refused("InvalidParameterCombination"):
        account.rds.modify_db_cluster(DBClusterIdentifier=name, RotateMasterUserPassword=True)
    assert account.describe(name)["Status"] == "available"


def test_a_cluster_is_there_while_it_is_modified(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)

    def change(days: int) -> None:
        account.rds.modify_db_cluster(DBClusterIdentifier=name, BackupRetentionPeriod=days)

    with ThreadPoolExecutor(max_workers=4) as pool:
        changes = [pool.submit(change, days % 30 + 1) for days in range(60)]
        while not all(done.done() for done in changes):
            account.describe(name)
        for done in changes:
            done.result()


def test_deletion_asks_for_a_snapshot(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    with refused("InvalidParameterCombination", "FinalDBSnapshotIdentifier is required"):
        account.rds.delete_db_cluster(DBClusterIdentifier=name)
    with refused("InvalidParameterCombination"):
        account.rds.delete_db_cluster(
            DBClusterIdentifier=name, SkipFinalSnapshot=True, FinalDBSnapshotIdentifier=f"{name}-final"
        )
    with refused("InvalidParameterValue"):
        account.rds.delete_db_cluster(DBClusterIdentifier=name, FinalDBSnapshotIdentifier="two--hyphens")
    assert account.describe(name)


def test_a_taken_snapshot_name_stops_the_deletion_before_anything_is_lost(
    account: EmulatedAws, name: str
) -> None:
    account.create_cluster(name)
    snapshot = {"DBClusterIdentifier": name, "DBClusterSnapshotIdentifier": f"{name}-final"}
    account.rds.create_db_cluster_snapshot(**snapshot)
    with refused("DBClusterSnapshotAlreadyExistsFault"):
        account.delete(name, final_snapshot=f"{name}-final")
    assert account.master(name)["username"] == "platform"


def test_a_cluster_can_be_made_anew_within_the_minute(account: EmulatedAws, name: str) -> None:
    first = account.create_cluster(name)
    account.delete(name)
    assert account.create_cluster(name)["DbClusterResourceId"] != first["DbClusterResourceId"]


def test_the_snapshot_quota_counts_manual_ones(account: EmulatedAws, name: str) -> None:
    account.settings(rds_snapshot_quota=1)
    for cluster in (name, f"{name}-2"):
        account.create_cluster(cluster)  # each with an automated snapshot
    snapshot = {"DBClusterIdentifier": name, "DBClusterSnapshotIdentifier": f"{name}-manual"}
    account.rds.create_db_cluster_snapshot(**snapshot)
    with refused("SnapshotQuotaExceeded"):
        account.rds.create_db_cluster_snapshot(
            DBClusterIdentifier=name, DBClusterSnapshotIdentifier=f"{name}-second"
        )
    with refused("SnapshotQuotaExceeded"):
        account.delete(name, final_snapshot=f"{name}-final")
    assert account.master(name)["username"] == "platform"


def test_snapshot_names_are_checked(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    with refused("InvalidParameterValue"):
        account.rds.create_db_cluster_snapshot(
            DBClusterIdentifier=name, DBClusterSnapshotIdentifier="two--hyphens"
        )


def test_settings_are_checked(account: EmulatedAws) -> None:
    for values in ({"rds_cluster_quota": -1}, {"rds_cluster_quota": "many"}, {"other": 1}):
        with pytest.raises(OSError, match="400"):
            account.settings(**values)  # type: ignore[arg-type]
