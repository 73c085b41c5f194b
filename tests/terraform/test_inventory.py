"""What exists under our names, found at the emulated AWS; and the keys that nothing uses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import httpx
import pytest

from controlplane.domain.errors import NeedsHuman, Pending
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.workers.providers.ports import PriorRun, StackRun
from controlplane.workers.providers.terraform import strays
from controlplane.workers.providers.terraform.inventory import (
    AwsAccount,
    ClusterInventory,
    PlacementsInventory,
    inventory_of,
)
from tests.harness.terraform import (
    Events,
    FakeFixture,
    again,
    cluster_run,
    new_id,
    placements_run,
)

pytestmark = pytest.mark.usefixtures("aws")


@pytest.fixture
def account() -> AwsAccount:
    return AwsAccount(REGION)


@pytest.fixture
def run() -> StackRun:
    vpc = boto3.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    return cluster_run(FakeFixture(), vpc_id=vpc)


def tags(run: StackRun, **changes: str) -> list[dict[str, str]]:
    owner = {"managed_by": "tenant-controlplane", "environment": "test", "cluster": run.workspace}
    return [{"Key": key, "Value": value} for key, value in (owner | changes).items()]


def make_key(run: StackRun) -> str:
    pairs = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tags(run)]
    return str(boto3.client("kms").create_key(Tags=pairs)["KeyMetadata"]["KeyId"])


def make_cluster(run: StackRun, key: str, **changes: str) -> None:
    rds = boto3.client("rds")
    rds.create_db_cluster(
        DBClusterIdentifier=run.workspace,
        Engine="aurora-postgresql",
        MasterUsername="platform_master",
        ManageMasterUserPassword=True,
        StorageEncrypted=True,
        KmsKeyId=key,
        Tags=tags(run, **changes),
    )
    rds.describe_db_clusters(DBClusterIdentifier=run.workspace)  # the emulator says "creating" once


def test_nothing_is_found_where_nothing_is(account: AwsAccount, run: StackRun) -> None:
    for which in (run, placements_run(FakeFixture())):
        inventory = inventory_of(which.stack, account, which.variables)
        assert inventory.find(inventory.addresses()) == {}


def test_each_part_of_a_cluster_is_found_by_its_name(account: AwsAccount, run: StackRun) -> None:
    name, key = run.workspace, make_key(run)
    ec2, rds, logs = boto3.client("ec2"), boto3.client("rds"), boto3.client("logs")
    boto3.client("kms").create_alias(AliasName=f"alias/{name}", TargetKeyId=key)
    group = ec2.create_security_group(
        GroupName=name,
        Description="x",
        VpcId=run.variables["vpc_id"],
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags(run)}],
    )["GroupId"]
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
    rds.create_db_subnet_group(
        DBSubnetGroupName=name, DBSubnetGroupDescription="x", SubnetIds=subnets, Tags=tags(run)
    )
    log_group = f"/aws/rds/cluster/{name}/postgresql"
    logs.create_log_group(logGroupName=log_group)  # untagged, as RDS makes it
    make_cluster(run, key)
    rds.create_db_instance(
        DBInstanceIdentifier=f"{name}-1",
        DBClusterIdentifier=name,
        Engine="aurora-postgresql",
        DBInstanceClass="db.serverless",
        Tags=tags(run),
    )
    rds.describe_db_instances(DBInstanceIdentifier=f"{name}-1")
    iam = boto3.client("iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}", Tags=tags(run))
    denial = {"Effect": "Deny", "Action": "*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [denial]})
    iam.put_role_policy(RoleName=name, PolicyName="read-own-secret", PolicyDocument=document)
    inventory = ClusterInventory(account, run.variables)
    assert inventory.find(inventory.addresses()) == {
        inventory.key: key,
        inventory.alias: f"alias/{name}",
        inventory.security_group: group,
        inventory.subnet_group: name,
        inventory.log_group: log_group,
        inventory.cluster: name,
        inventory.instance(1): f"{name}-1",
        inventory.role: name,
        inventory.policy: f"{name}:read-own-secret",
    }
    assert inventory.find([inventory.alias]) == {inventory.alias: f"alias/{name}"}


def test_a_shared_subnet_group_is_no_part_of_the_cluster(account: AwsAccount, run: StackRun) -> None:
    shared = {**run.variables, "db_subnet_group_name": "platform-databases"}
    own, without = ClusterInventory(account, run.variables), ClusterInventory(account, shared)
    assert set(own.addresses()) - set(without.addresses()) == {own.subnet_group}
    assert set(own.foundation) - set(without.foundation) == {own.subnet_group}


def test_a_key_is_found_by_its_tags_alone(account: AwsAccount, run: StackRun) -> None:
    key = make_key(run)
    inventory = ClusterInventory(account, run.variables)
    assert inventory.find([inventory.key]) == {inventory.key: key}
    boto3.client("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert ClusterInventory(account, run.variables).find([inventory.key]) == {}


def test_the_clusters_own_key_goes_before_all_others(account: AwsAccount, run: StackRun) -> None:
    make_key(run)
    own, aliased = make_key(run), make_key(run)
    boto3.client("kms").create_alias(AliasName=f"alias/{run.workspace}", TargetKeyId=aliased)
    make_cluster(run, own)
    inventory = ClusterInventory(account, run.variables)
    assert inventory.find([inventory.key]) == {inventory.key: own}


@pytest.mark.parametrize("wrong", ["cluster", "environment", "managed_by"])
def test_a_cluster_with_other_tags_is_not_ours(account: AwsAccount, run: StackRun, wrong: str) -> None:
    make_cluster(run, make_key(run), **{wrong: "other"})
    inventory = ClusterInventory(account, run.variables)
    with pytest.raises(NeedsHuman, match=f"tag {wrong} differs") as foreign:
        inventory.find([inventory.cluster])
    assert foreign.value.runbook == "foreign-resource"


def test_a_cluster_whose_key_is_doomed_is_a_persons_matter(account: AwsAccount, run: StackRun) -> None:
    key = make_key(run)
    make_cluster(run, key)
    boto3.client("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    inventory = ClusterInventory(account, run.variables)
    with pytest.raises(NeedsHuman, match="not enabled"):
        inventory.find([inventory.key])


def test_what_aws_is_still_making_is_waited_for(
    aws: AwsEmulator, account: AwsAccount, run: StackRun, request: pytest.FixtureRequest
) -> None:
    settings = f"{aws.url}/_localcloud/settings"
    request.addfinalizer(lambda: httpx.post(settings, json={"rds_create_seconds": 0}).raise_for_status())
    httpx.post(settings, json={"rds_create_seconds": 60}).raise_for_status()
    boto3.client("rds").create_db_cluster(
        DBClusterIdentifier=run.workspace,
        Engine="aurora-postgresql",
        MasterUsername="platform_master",
        ManageMasterUserPassword=True,
        Tags=tags(run),
    )
    inventory = ClusterInventory(account, run.variables)
    with pytest.raises(Pending, match="creating"):
        inventory.find([inventory.cluster])


def test_a_role_with_other_tags_is_not_ours(account: AwsAccount, run: StackRun) -> None:
    boto3.client("iam").create_role(RoleName=run.workspace, AssumeRolePolicyDocument="{}")
    inventory = ClusterInventory(account, run.variables)
    with pytest.raises(NeedsHuman, match=f"role {run.workspace} exists but is not ours") as foreign:
        inventory.find([inventory.role])
    assert foreign.value.runbook == "foreign-resource"


def make_secret(run: StackRun, name: str, **changes: str) -> str:
    return str(boto3.client("secretsmanager").create_secret(Name=name, Tags=tags(run, **changes))["ARN"])


def doom(name: str) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId=name, RecoveryWindowInDays=7)


def doomed(name: str) -> bool:
    return "DeletedDate" in boto3.client("secretsmanager").describe_secret(SecretId=name)


def test_secrets_of_many_placements_are_found_by_name(account: AwsAccount) -> None:
    run = placements_run(FakeFixture(), 12)
    placements = run.variables["placements"]
    made = {
        PlacementsInventory.app_secret(p): make_secret(run, f"placements/{p}/app", placement=p)
        for p in placements[:9]
    }
    inventory = PlacementsInventory(account, run.variables)
    assert len(inventory.addresses()) == 12
    assert inventory.find(inventory.addresses()) == made
    some = PlacementsInventory.app_secret(placements[3])
    assert inventory.find([some]) == {some: made[some]}
    assert inventory.find([]) == inventory.find(["module.placements.nothing_of_ours.this"]) == {}


def test_a_placement_that_left_the_variables_is_found_where_it_is_asked_for(account: AwsAccount) -> None:
    run = placements_run(FakeFixture(), 2)
    left, gone = run.variables["placements"]
    arn = make_secret(run, f"placements/{left}/app", placement=left)
    inventory = PlacementsInventory(account, {**run.variables, "placements": []})
    assert inventory.addresses() == ()
    assert inventory.find(inventory.addresses_of([left, gone])) == {inventory.app_secret(left): arn}


def test_a_secret_in_its_deletion_window_counts_as_gone_until_restored(account: AwsAccount) -> None:
    run = placements_run(FakeFixture(), 2)
    placed, other = run.variables["placements"]
    names = [f"placements/{p}/app" for p in (placed, other)]
    arns = [make_secret(run, name, placement=p) for name, p in zip(names, (placed, other), strict=True)]
    for name in names:
        doom(name)
    inventory = PlacementsInventory(account, run.variables)
    assert inventory.find(inventory.addresses()) == {}
    app = inventory.app_secret(placed)
    assert inventory.find([app], restore=True) == {app: arns[0]}
    assert [doomed(name) for name in names] == [False, True]


@pytest.mark.parametrize("wrong", ["placement", "cluster", "environment", "managed_by"])
def test_a_strangers_secret_is_not_ours_and_nothing_is_restored_beside_it(
    account: AwsAccount, wrong: str
) -> None:
    run = placements_run(FakeFixture(), 2)
    first, second = sorted(run.variables["placements"])
    ours, theirs = (f"placements/{placement}/app" for placement in (first, second))
    make_secret(run, ours, placement=first)
    make_secret(run, theirs, **{"placement": second, wrong: new_id("x-")})
    for name in (ours, theirs):
        doom(name)
    inventory = PlacementsInventory(account, run.variables)
    with pytest.raises(NeedsHuman, match=f"{theirs} exists but is not ours: tag {wrong} differs") as foreign:
        inventory.find(inventory.addresses(), restore=True)
    assert foreign.value.runbook == "foreign-resource"
    assert doomed(ours)
    assert doomed(theirs)


def test_an_unknown_stack_has_no_inventory(account: AwsAccount) -> None:
    with pytest.raises(NeedsHuman, match="'nope'"):
        inventory_of("nope", account, {})


# ------------------------------------------------------------------------------------- stray keys


def state_of(key: str) -> Any:
    return boto3.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"]


@pytest.fixture
def with_cluster(run: StackRun) -> StackRun:
    key = make_key(run)
    boto3.client("kms").create_alias(AliasName=f"alias/{run.workspace}", TargetKeyId=key)
    make_cluster(run, key)
    return run


def after(run: StackRun, started: timedelta) -> StackRun:
    return again(run, prior=PriorRun("us@here", datetime.now(UTC) + started, None))


def test_a_key_of_a_dead_run_that_nothing_uses_is_scheduled_for_deletion(
    account: AwsAccount, with_cluster: StackRun
) -> None:
    stray, events = make_key(with_cluster), Events()
    strays.clear(after(with_cluster, -timedelta(minutes=1)), account, events)
    assert [(e.kind, e.action) for e in events] == [("recovered", "schedule-deletion")]
    assert stray in events[0].message
    assert state_of(stray) == "PendingDeletion"
    strays.clear(after(with_cluster, -timedelta(minutes=1)), account, events)
    assert len(events) == 1  # the second look finds the cluster's own key alone


def test_a_key_older_than_every_dead_run_is_only_reported(
    account: AwsAccount, with_cluster: StackRun
) -> None:
    stray, events = make_key(with_cluster), Events()
    strays.clear(after(with_cluster, timedelta(minutes=1)), account, events)
    assert [(e.kind, e.action) for e in events] == [("recovered", "report")]
    assert state_of(stray) == "Enabled"


def test_a_key_that_the_alias_leads_to_is_only_reported(account: AwsAccount, with_cluster: StackRun) -> None:
    stray, events = make_key(with_cluster), Events()
    boto3.client("kms").update_alias(AliasName=f"alias/{with_cluster.workspace}", TargetKeyId=stray)
    strays.clear(after(with_cluster, -timedelta(minutes=1)), account, events)
    assert [e.action for e in events] == ["report"]
    assert state_of(stray) == "Enabled"


def test_without_a_cluster_nothing_is_judged(account: AwsAccount, run: StackRun) -> None:
    key, events = make_key(run), Events()
    strays.clear(after(run, -timedelta(minutes=1)), account, events)
    assert events == []
    assert state_of(key) == "Enabled"
