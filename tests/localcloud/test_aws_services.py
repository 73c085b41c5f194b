"""Secrets Manager and autoscaling as the emulator has them.

Each test fails on moto as it is; `controlplane.localcloud.aws.fidelity` says why.
"""

from __future__ import annotations

import uuid

import pytest

from tests.localcloud.conftest import EmulatedAws, refused


@pytest.fixture
def secret(account: EmulatedAws) -> str:
    """A secret with the value "one"; its name."""
    name = f"placements/{uuid.uuid4().hex}/app"
    account.secrets.create_secret(Name=name, SecretString="one")
    return name


def test_a_name_stays_taken_through_the_deletion_window(account: EmulatedAws, secret: str) -> None:
    account.secrets.delete_secret(SecretId=secret, RecoveryWindowInDays=7)
    with refused("InvalidRequestException", "scheduled for deletion"):
        account.secrets.create_secret(Name=secret, SecretString="two")
    with refused("InvalidRequestException"):
        account.secrets.put_secret_value(SecretId=secret, SecretString="two")
    account.secrets.restore_secret(SecretId=secret)
    assert account.secrets.get_secret_value(SecretId=secret)["SecretString"] == "one"


def test_an_existing_name_is_refused_otherwise(account: EmulatedAws, secret: str) -> None:
    with refused("ResourceExistsException"):
        account.secrets.create_secret(Name=secret, SecretString="two")


def test_the_current_version_is_the_labelled_one(account: EmulatedAws, secret: str) -> None:
    first = account.secrets.get_secret_value(SecretId=secret)["VersionId"]
    second = account.secrets.put_secret_value(
        SecretId=secret, SecretString="two", VersionStages=["AWSPENDING"]
    )["VersionId"]
    assert account.secrets.get_secret_value(SecretId=secret)["SecretString"] == "one"
    account.secrets.update_secret_version_stage(
        SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=second, RemoveFromVersionId=first
    )
    assert account.secrets.get_secret_value(SecretId=secret)["SecretString"] == "two"
    account.secrets.put_secret_value(SecretId=secret, SecretString="three")
    previous = account.secrets.get_secret_value(SecretId=secret, VersionStage="AWSPREVIOUS")
    assert previous["SecretString"] == "two"


def test_scalable_targets_keep_their_tags(account: EmulatedAws) -> None:
    autoscaling = account.client("application-autoscaling")
    ecs = account.client("ecs")
    ecs.create_cluster(clusterName="platform")
    arn = autoscaling.register_scalable_target(
        ServiceNamespace="dynamodb",
        ResourceId="table/any",
        ScalableDimension="dynamodb:table:ReadCapacityUnits",
        MinCapacity=1,
        MaxCapacity=4,
        Tags={"environment": "local"},
    )["ScalableTargetARN"]
    autoscaling.tag_resource(ResourceARN=arn, Tags={"owner": "platform"})
    assert autoscaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {
        "environment": "local",
        "owner": "platform",
    }
    autoscaling.untag_resource(ResourceARN=arn, TagKeys=["owner"])
    assert autoscaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"environment": "local"}
