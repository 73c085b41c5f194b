"""A restored cluster with the real Terraform: its second plan is quiet, a lost state does not replace it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from controlplane.domain.transfer import moment
from controlplane.localcloud.aws.emulator import AwsEmulator
from controlplane.workers.providers.ports import PriorRun, StackRun
from tests.harness.terraform import (
    Events,
    RealFixture,
    again,
    cluster_run,
    never,
    new_id,
)


def make_source(rds: Any) -> str:
    """Beside Terraform, which needs a minute for it."""
    source = new_id("c-")
    rds.create_db_cluster(
        DBClusterIdentifier=source,
        Engine="aurora-postgresql",
        EngineVersion="17.5",
        MasterUsername="platform_master",
        ManageMasterUserPassword=True,
    )
    rds.create_db_instance(
        DBInstanceIdentifier=f"{source}-1",
        DBClusterIdentifier=source,
        Engine="aurora-postgresql",
        DBInstanceClass="db.serverless",
    )
    return source


@pytest.mark.acceptance
@pytest.mark.soak  # seven minutes each of the provider's polls; acceptance/test_restore.py restores one
@pytest.mark.timeout(900)
@pytest.mark.parametrize("of", ["snapshot", "moment"])
def test_a_restored_cluster_plans_nothing_and_is_adopted_without_being_replaced(
    aws: AwsEmulator, tmp_path: Path, of: str
) -> None:
    fixture, rds = RealFixture(tmp_path), boto3.client("rds")
    source = make_source(rds)
    origin = {"cluster_id": source}
    if of == "snapshot":
        origin["snapshot"] = f"{source}-s"
        rds.create_db_cluster_snapshot(DBClusterIdentifier=source, DBClusterSnapshotIdentifier=f"{source}-s")
    else:
        time.sleep(1.1)
        origin["at"] = moment(datetime.now(UTC))
    run = cluster_run(fixture, min_acu=0.5, seconds_until_auto_pause=None, origin=origin)
    outputs = fixture.terraform.apply(run, on_event=Events(), stopped=never)
    assert outputs["master_secret_arn"]
    [seen] = rds.describe_db_clusters(DBClusterIdentifier=run.workspace)["DBClusters"]
    assert seen["KmsKeyId"] == outputs["kms_key_arn"]
    assert seen["DeletionProtection"] is True
    assert {tag["Key"]: tag["Value"] for tag in seen["TagList"]}["cluster"] == run.workspace
    assert [group["VpcSecurityGroupId"] for group in seen["VpcSecurityGroups"]] == [
        outputs["security_group_id"]
    ]
    assert fixture.terraform.plan(again(run)) == []
    fixture.lose_state(run)
    began = PriorRun(who="worker@elsewhere", started_at=datetime.now(UTC), lock_id=None)
    events = Events()
    assert fixture.terraform.apply(again(run, prior=began), on_event=events, stopped=never) == outputs
    assert ("module.cluster.aws_rds_cluster.this", "import") in events.of("adopted")
    assert fixture.terraform.plan(again(run)) == []
    [after] = rds.describe_db_clusters(DBClusterIdentifier=run.workspace)["DBClusters"]
    assert after["DbClusterResourceId"] == seen["DbClusterResourceId"]
    closing = {"deletion_protection": False, "skip_final_snapshot": True}
    doomed = again(run, approved=frozenset(addresses(run)), **closing)
    fixture.terraform.destroy(doomed, on_event=Events(), stopped=never)
    left = {found["DBClusterIdentifier"] for found in rds.describe_db_clusters()["DBClusters"]}
    assert run.workspace not in left
    assert source in left


def addresses(run: StackRun) -> list[str]:
    names = ["kms_key.this", "kms_alias.this", "security_group.this", "db_subnet_group.this[0]"]
    names += ["cloudwatch_log_group.postgresql", "rds_cluster.this", 'rds_cluster_instance.this["1"]']
    names += ["iam_role.this", "iam_role_policy.this"]
    return [f"module.cluster.aws_{name}" for name in names]
