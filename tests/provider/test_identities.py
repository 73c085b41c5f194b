"""`ports.Identities`: IAM and its fake."""

from __future__ import annotations

import json

import boto3
import pytest

from controlplane.domain.errors import Invalid, NotFound
from controlplane.localcloud.aws.emulator import REGION
from controlplane.localcloud.fakes.aws import FakeAccount, FakeIdentities
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_identities import AwsIdentities
from tests.harness.terraform import new_id


@pytest.mark.parametrize("kind", ["fake", "real"])
def test_a_role_is_there_or_not(kind: str, request: pytest.FixtureRequest) -> None:
    name = new_id("t-") + "-1"
    if kind == "fake":
        world = World()
        identities = FakeIdentities(world)
        assert not identities.role_exists(name)
        FakeAccount(world).make("role", name)
        assert identities.role_exists(name)
        return
    request.getfixturevalue("aws")
    real = AwsIdentities(region=REGION)
    assert not real.role_exists(name)
    boto3.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    assert real.role_exists(name)


def test_what_a_role_may_read_is_simulated(aws: object) -> None:
    name, prefix = new_id("t-") + "-1", f"arn:aws:secretsmanager:{REGION}:123456789012:secret:tenants"
    own, other = f"{prefix}/{name}/1/app-AbCdEf", f"{prefix}/other/1/app-AbCdEf"
    iam = boto3.client("iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    identities = AwsIdentities(region=REGION)
    assert identities.readable(name, [own, other]) == []
    for resource, expected in ((own, [own]), (f"{prefix}/*", [own, other])):
        allow = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": resource}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        iam.put_role_policy(RoleName=name, PolicyName="read", PolicyDocument=document)
        assert identities.readable(name, [own, other]) == expected
    with pytest.raises(NotFound):
        identities.readable("t-nobody-1", [own])
    with pytest.raises(Invalid, match="1 to 50"):
        identities.readable(name, [])
