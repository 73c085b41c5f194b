"""Secrets Manager, IAM and autoscaling as the emulator has them.

Each test fails on moto as it is; `controlplane.localcloud.aws.fidelity` says why.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.conftest import EmulatedAws, refused


@pytest.fixture
def secret(account: EmulatedAws) -> str:
    """A secret with the value "one"; its name."""
    name = f"tenants/{uuid.uuid4().hex}/app"
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


@pytest.fixture
def enforced(account: EmulatedAws) -> Iterator[Callable[[], None]]:
    """Call it, and from then on every request is authorised."""

    def reset(after: str) -> None:
        request = Request(
            f"{account.emulator.url}/moto-api/reset-auth",
            data=after.encode(),
            headers={"Content-Type": "text/plain"},
        )
        urlopen(request, timeout=10).close()

    yield lambda: reset("0")
    reset("Infinity")


def secrets_as_role(account: EmulatedAws, *, may_read: str, boundary: str | None = None) -> Any:
    """Secrets Manager as a new role, which may read the secrets that `may_read` matches."""
    iam, role = account.client("iam"), f"t-{uuid.uuid4().hex}"
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
    options = {}
    if boundary is not None:
        policy = iam.create_policy(PolicyName=role, PolicyDocument=document(reading(boundary)))
        options["PermissionsBoundary"] = policy["Policy"]["Arn"]
    made = iam.create_role(RoleName=role, AssumeRolePolicyDocument=document(trust), **options)
    iam.put_role_policy(RoleName=role, PolicyName="read", PolicyDocument=document(reading(may_read)))
    session = account.client("sts").assume_role(RoleArn=made["Role"]["Arn"], RoleSessionName="test")
    return account.client(
        "secretsmanager",
        aws_access_key_id=session["Credentials"]["AccessKeyId"],
        aws_secret_access_key=session["Credentials"]["SecretAccessKey"],
        aws_session_token=session["Credentials"]["SessionToken"],
    )


def document(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def reading(resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": resource}


@pytest.mark.parametrize("form", ["exact", "recommended", "by prefix"])
def test_a_scoped_policy_opens_its_own_secret_and_no_other(
    account: EmulatedAws, secret: str, enforced: Callable[[], None], form: str
) -> None:
    other = f"{secret}-other"
    account.secrets.create_secret(Name=other, SecretString="other")
    arn = account.secrets.describe_secret(SecretId=secret)["ARN"]
    resource = {"exact": arn, "recommended": f"{arn[:-6]}??????", "by prefix": f"{arn[:-6]}*"}[form]
    secrets = secrets_as_role(account, may_read=resource)
    enforced()
    assert secrets.get_secret_value(SecretId=secret)["SecretString"] == "one"
    assert secrets.get_secret_value(SecretId=arn)["SecretString"] == "one"
    beyond = [other] if form != "by prefix" else []  # whose name begins with the prefix
    for refused_id in (*beyond, "tenants/unknown"):
        with pytest.raises(ClientError, match="is not authorized to perform: secretsmanager:GetSecretValue"):
            secrets.get_secret_value(SecretId=refused_id)
    with pytest.raises(ClientError, match="is not authorized to perform: secretsmanager:PutSecretValue"):
        secrets.put_secret_value(SecretId=secret, SecretString="stolen")


def test_a_boundary_limits_what_policies_allow(
    account: EmulatedAws, secret: str, enforced: Callable[[], None]
) -> None:
    inside = secrets_as_role(account, may_read="*", boundary="arn:aws:secretsmanager:*:*:secret:tenants/*")
    outside = secrets_as_role(account, may_read="*", boundary="arn:aws:secretsmanager:*:*:secret:other/*")
    enforced()
    assert inside.get_secret_value(SecretId=secret)["SecretString"] == "one"
    with pytest.raises(ClientError, match="is not authorized"):
        outside.get_secret_value(SecretId=secret)


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
