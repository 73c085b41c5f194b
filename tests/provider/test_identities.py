"""`ports.Identities`: IAM and its fake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from controlplane.domain.errors import Invalid, NotFound
from controlplane.localcloud.aws.emulator import REGION
from controlplane.localcloud.fakes.aws import FakeAccount, FakeIdentities
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_identities import AwsIdentities
from controlplane.workers.providers.ports import Identities, Tagged
from tests.harness.terraform import new_id

ARN = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:placements"
CLUSTER = new_id("c-")
OWN = {"secretsmanager:ResourceTag/placement": "${aws:PrincipalTag/placement}"}


@dataclass(frozen=True)
class Subject:
    """`make`: the cluster's role as its module makes it; `open`: it may read everything."""

    identities: Identities
    make: Callable[[], None]
    open: Callable[[], None]


def _fake() -> Subject:
    world = World()
    account = FakeAccount(world)

    def make() -> None:
        account.make("role", CLUSTER)
        account.make("policy", CLUSTER, opens="own")

    return Subject(FakeIdentities(world), make, lambda: account.change("policy", CLUSTER, opens="all"))


def _real() -> Subject:
    iam = boto3.client("iam")

    def put(**elements: Any) -> None:
        allow = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*", **elements}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        iam.put_role_policy(RoleName=CLUSTER, PolicyName="read", PolicyDocument=document)

    def make() -> None:
        iam.create_role(RoleName=CLUSTER, AssumeRolePolicyDocument="{}")
        condition = {"StringEquals": OWN | {"secretsmanager:ResourceTag/cluster": CLUSTER}}
        put(Resource="arn:aws:secretsmanager:*:*:secret:placements/*/app-??????", Condition=condition)

    return Subject(AwsIdentities(region=REGION), make, put)


@pytest.fixture(params=["fake", "real"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        yield _fake()
        return
    request.getfixturevalue("aws")
    yield _real()
    iam = boto3.client("iam")
    iam.delete_role_policy(RoleName=CLUSTER, PolicyName="read")
    iam.delete_role(RoleName=CLUSTER)


def secret(name: str, placement: str | None, cluster: str = CLUSTER) -> Tagged:
    tags = {"cluster": cluster} | ({} if placement is None else {"placement": placement})
    return Tagged(f"{ARN}/{name}-AbCdEf", tags)


MINE, THEIRS = secret("a/1/app", "a-1"), secret("b/1/app", "b-1")
BESIDE, UNTAGGED, ELSEWHERE = (
    secret("a/1/other", "a-1"),
    secret("c/1/app", None),
    secret("a/2/app", "a-1", "c-elsewhere"),
)
ALL = [MINE, THEIRS, BESIDE, UNTAGGED, ELSEWHERE]


def test_a_role_is_there_or_not(subject: Subject) -> None:
    gone = subject.identities.role_exists(CLUSTER)
    subject.make()
    assert (gone, subject.identities.role_exists(CLUSTER)) == (False, True)


def test_what_a_session_may_read_is_simulated(subject: Subject) -> None:
    subject.make()
    assert subject.identities.readable(CLUSTER, "a-1", ALL) == [MINE.arn]
    assert subject.identities.readable(CLUSTER, "b-1", ALL) == [THEIRS.arn]
    assert subject.identities.readable(CLUSTER, "z-1", ALL) == []
    assert subject.identities.readable(CLUSTER, None, ALL) == []


def test_a_role_that_was_opened_reads_everything(subject: Subject) -> None:
    subject.make()
    subject.open()
    assert subject.identities.readable(CLUSTER, None, ALL) == [secret.arn for secret in ALL]


def test_a_role_that_is_not_there_is_none(subject: Subject) -> None:
    subject.make()
    with pytest.raises(NotFound):
        subject.identities.readable("c-nowhere", "a-1", [MINE])
    with pytest.raises(Invalid, match="1 to 50"):
        subject.identities.readable(CLUSTER, "a-1", [])
