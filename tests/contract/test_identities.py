"""`ports.Identities`: IAM and its fake."""

from __future__ import annotations

import boto3
import pytest

from localcloud.aws.emulator import REGION
from tests.fakes.aws import FakeAccount, FakeIdentities
from tests.fakes.world import World
from tests.terraform.rig import new_id
from workers.providers.aws_identities import AwsIdentities


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
