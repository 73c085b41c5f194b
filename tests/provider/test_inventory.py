"""`ports.Inventory`: an emulated account and its fake, with the same things in them."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest

from controlplane.localcloud.aws.emulator import REGION
from controlplane.localcloud.fakes.aws import FakeAccount, FakeInventory
from controlplane.localcloud.fakes.terraform import LOCK, STATE
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_inventory import AwsInventory
from controlplane.workers.providers.ports import Inventory, StateObject
from tests.harness.terraform import new_id

CLUSTER, OTHER = sorted((new_id("c-"), new_id("c-")))
PLACEMENT, LEFT = new_id("p-"), new_id("p-")
"""Drawn, because the emulated account is shared by a whole run."""
BUCKET = f"states-of-{CLUSTER}"
DELETING = {PLACEMENT: False, LEFT: True}


def _fake() -> Inventory:
    world = World()
    account = FakeAccount(world)
    account.make("cluster", CLUSTER, status="available")
    account.make("role", CLUSTER)
    account.make("secret", f"rds!{CLUSTER}", versions={}, current=None, deleting=False)
    for placement, deleting in DELETING.items():
        values = {"versions": {}, "current": None, "deleting": deleting}
        values |= {"placement": placement, "cluster": CLUSTER}
        account.make("secret", f"placements/{placement}/app", **values)
    world.put(STATE, f"cluster/{CLUSTER}", {"things": {}})
    world.put(STATE, f"placements/{CLUSTER}", {"things": {}})
    world.put(LOCK, f"placements/{CLUSTER}", {})
    world.put(LOCK, f"placements/{OTHER}", {})
    return FakeInventory(world)


def _real() -> Inventory:
    tags = {"managed_by": "tenant-controlplane", "cluster": CLUSTER}
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    boto3.client("rds").create_db_cluster(
        DBClusterIdentifier=CLUSTER,
        Engine="aurora-postgresql",
        MasterUsername="platform",
        ManageMasterUserPassword=True,
        Tags=listed,
    )
    for name in (CLUSTER, f"somebody-elses-{CLUSTER}"):
        boto3.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    secrets = boto3.client("secretsmanager")
    for placement, deleting in DELETING.items():
        name = f"placements/{placement}/app"
        secrets.create_secret(Name=name, Tags=[*listed, {"Key": "placement", "Value": placement}])
        if deleting:
            secrets.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    secrets.create_secret(Name=f"other/placements/{PLACEMENT}")
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})  # type: ignore[typeddict-item]
    for key in (
        f"clusters/{CLUSTER}/terraform.tfstate",
        f"placements/{CLUSTER}/terraform.tfstate",
        f"placements/{CLUSTER}/terraform.tfstate.tflock",
        f"placements/{OTHER}/terraform.tfstate.tflock",
        f"placements/{CLUSTER}/terraform.tfstate.unreadable-20260101T000000Z",
        f"tenants/{CLUSTER}/terraform.tfstate",
        "README",
    ):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    return AwsInventory(region=REGION, bucket=BUCKET)


@pytest.fixture(params=["fake", "real"])
def inventory(request: pytest.FixtureRequest) -> Iterator[Inventory]:
    if request.param == "fake":
        yield _fake()
        return
    request.getfixturevalue("aws")
    yield _real()


def test_what_is_there_is_listed(inventory: Inventory) -> None:
    tagged = {
        thing.arn.split(":")[2]: thing for thing in inventory.tagged() if f"cluster:{CLUSTER}" in thing.arn
    }
    assert tagged["rds"].tags["cluster"] == CLUSTER
    (app,) = [thing for thing in inventory.tagged() if f"{PLACEMENT}/app" in thing.arn]
    tags = {"placement": PLACEMENT, "cluster": CLUSTER}
    assert tags.items() <= app.tags.items()
    ours = {name: deleting for name, deleting in inventory.secrets() if any(map(name.__contains__, DELETING))}
    assert ours == {f"placements/{placement}/app": deleting for placement, deleting in DELETING.items()}
    assert [name for name in inventory.roles() if CLUSTER in name] == [CLUSTER]
    assert sorted(inventory.states(), key=lambda state: (state.workspace, state.stack)) == [
        StateObject("cluster", CLUSTER, present=True, locked=False),
        StateObject("placements", CLUSTER, present=True, locked=True),
        StateObject("placements", OTHER, present=False, locked=True),
    ]
