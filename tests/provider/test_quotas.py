"""`ports.Quotas`: what RDS, IAM and CloudWatch count, and the fake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from botocore.stub import Stubber

from controlplane.domain.errors import Retryable
from controlplane.domain.pool import Quota
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.localcloud.fakes.aws import FakeAccount, FakeQuotas
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_quotas import AwsQuotas
from tests.harness.terraform import new_id


@dataclass
class QuotasFixture:
    """`limit`: the account's quotas, by the names of `Quota`; `make`: one more of each."""

    quotas: Any
    limit: Callable[..., None]
    make: dict[str, Callable[[], Any]]


@pytest.fixture(params=["fake", "real"])
def fixture(request: pytest.FixtureRequest) -> Iterator[QuotasFixture]:
    if request.param == "fake":
        world = World()
        quotas, account = FakeQuotas(world), FakeAccount(world)
        quotas.set(**dict.fromkeys(FakeQuotas.KINDS, 100))
        make = {
            name: partial(lambda kind: account.make(kind, new_id("c-")), kind)
            for name, kind in FakeQuotas.KINDS.items()
        }
        yield QuotasFixture(quotas, lambda **most: quotas.set(**dict.fromkeys(make, 100) | most), make)
        return
    emulator: AwsEmulator = request.getfixturevalue("aws")

    def limit(**most: int) -> None:
        values = {SETTINGS[name]: value for name, value in most.items()}
        httpx.post(f"{emulator.url}/_localcloud/settings", json=values).raise_for_status()

    yield QuotasFixture(AwsQuotas(region=REGION), limit, _making())
    limit(clusters=40, instances=40, subnet_groups=50, snapshots=100, roles=1000)


SETTINGS = {
    "clusters": "rds_cluster_quota",
    "instances": "rds_instance_quota",
    "subnet_groups": "rds_subnet_group_quota",
    "snapshots": "rds_snapshot_quota",
    "roles": "iam_role_quota",
}


def _making() -> dict[str, Callable[[], Any]]:
    rds, ec2 = boto3.client("rds"), boto3.client("ec2")

    def cluster() -> str:
        made = rds.create_db_cluster(
            DBClusterIdentifier=new_id("c-"),
            Engine="aurora-postgresql",
            MasterUsername="m",
            MasterUserPassword="x" * 9,
        )
        return str(made["DBCluster"]["DBClusterIdentifier"])

    def subnets() -> list[str]:
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        zones = {"a": "10.9.1.0/24", "b": "10.9.2.0/24"}
        made = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=f"{REGION}{zone}")
            for zone, block in zones.items()
        ]
        return [each["Subnet"]["SubnetId"] for each in made]

    home, ids = cluster(), subnets()
    return {
        "clusters": cluster,
        "instances": lambda: rds.create_db_instance(
            DBInstanceIdentifier=new_id("i-"),
            DBClusterIdentifier=home,
            Engine="aurora-postgresql",
            DBInstanceClass="db.serverless",
        ),
        "subnet_groups": lambda: rds.create_db_subnet_group(
            DBSubnetGroupName=new_id("g-"), DBSubnetGroupDescription="-", SubnetIds=ids
        ),
        "snapshots": lambda: rds.create_db_cluster_snapshot(
            DBClusterIdentifier=home, DBClusterSnapshotIdentifier=new_id("s-")
        ),
        "roles": lambda: boto3.client("iam").create_role(
            RoleName=new_id("r-"),
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}),
        ),
        "secrets": lambda: boto3.client("secretsmanager").create_secret(
            Name=f"placements/{new_id('p-')}/app", SecretString="x"
        ),
    }


@pytest.mark.parametrize("name", ["clusters", "instances", "subnet_groups", "snapshots", "roles", "secrets"])
def test_what_is_left_of_each_falls_by_one_with_each(fixture: QuotasFixture, name: str) -> None:
    before = asdict(fixture.quotas.left())
    assert None not in before.values()
    fixture.make[name]()
    after = asdict(fixture.quotas.left())
    assert after == before | {name: before[name] - 1}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_it_follows_the_quota_and_may_be_below_zero(fixture: QuotasFixture, name: str) -> None:
    fixture.make[name]()
    fixture.limit(**{name: 0})
    if isinstance(fixture.quotas, AwsQuotas):
        with pytest.raises(ClientError, match="uota"):
            fixture.make[name]()
    left = fixture.quotas.left()
    assert getattr(left, name) < 0
    assert left.lacks(**{name: 1}) == f"the account's quota of {name.replace('_', ' ')} leaves 0, needed: 1"
    fixture.limit(**{name: 1000})
    assert fixture.quotas.left().lacks(**{name: 1}) is None


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AwsQuotas, Stubber]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    quotas = AwsQuotas(region=REGION)
    with Stubber(quotas._rds) as stub, Stubber(quotas._iam) as iam, Stubber(quotas._metrics) as metrics:
        for _ in range(2):
            iam.add_client_error("get_account_summary", "AccessDenied", http_status_code=403)
            metrics.add_client_error("get_metric_data", "AccessDenied", http_status_code=403)
        yield quotas, stub


def test_an_old_answer_will_do_where_the_caller_says_so(stubbed: tuple[AwsQuotas, Stubber]) -> None:
    quotas, stub = stubbed
    answer = {"AccountQuotas": [{"AccountQuotaName": "DBClusters", "Used": 3, "Max": 40}]}
    stub.add_response("describe_account_attributes", answer)
    assert quotas.left() == Quota(clusters=37, instances=None)
    assert quotas.left(max_age=60) == Quota(clusters=37, instances=None)
    stub.add_response("describe_account_attributes", {"AccountQuotas": []})
    assert quotas.left() == Quota(clusters=None, instances=None)


def test_an_account_that_may_not_ask_does_not_know(stubbed: tuple[AwsQuotas, Stubber]) -> None:
    quotas, stub = stubbed
    stub.add_client_error("describe_account_attributes", "AccessDenied", http_status_code=403)
    assert quotas.left() == Quota(clusters=None, instances=None)


def test_a_throttled_question_is_asked_again_later(stubbed: tuple[AwsQuotas, Stubber]) -> None:
    quotas, stub = stubbed
    stub.add_client_error("describe_account_attributes", "Throttling", http_status_code=400)
    with pytest.raises(Retryable):
        quotas.left()


def test_an_answer_that_is_not_aws_s_is_asked_for_again(
    stubbed: tuple[AwsQuotas, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas, _ = stubbed

    def answers(**_: Any) -> None:
        raise ResponseParserError("<!doctype html>")

    monkeypatch.setattr(quotas._rds, "describe_account_attributes", answers)
    with pytest.raises(Retryable, match="can't be read"):
        quotas.left()
