"""`ports.Quotas`: RDS's account attributes and their fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import httpx
import pytest
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
    quotas: Any
    limit: Callable[[int, int], None]  # clusters, instances
    make_cluster: Callable[[], Any]


@pytest.fixture(params=["fake", "real"])
def fixture(request: pytest.FixtureRequest) -> Iterator[QuotasFixture]:
    if request.param == "fake":
        world = World()
        quotas = FakeQuotas(world)
        yield QuotasFixture(
            quotas,
            limit=lambda clusters, instances: quotas.set(clusters=clusters, instances=instances),
            make_cluster=lambda: FakeAccount(world).make("cluster", new_id("c-")),
        )
        return
    emulator: AwsEmulator = request.getfixturevalue("aws")
    rds = boto3.client("rds")

    def limit(clusters: int, instances: int) -> None:
        values = {"rds_cluster_quota": clusters, "rds_instance_quota": instances}
        httpx.post(f"{emulator.url}/_localcloud/settings", json=values).raise_for_status()

    yield QuotasFixture(
        AwsQuotas(region=REGION),
        limit,
        make_cluster=lambda: rds.create_db_cluster(
            DBClusterIdentifier=new_id("c-"),
            Engine="aurora-postgresql",
            MasterUsername="platform_master",
            ManageMasterUserPassword=True,
        ),
    )
    limit(40, 40)


def test_what_is_left_falls_with_each_cluster(fixture: QuotasFixture) -> None:
    fixture.limit(100, 100)
    before = fixture.quotas.left()
    fixture.make_cluster()
    after = fixture.quotas.left()
    assert after.clusters == before.clusters - 1
    assert after.instances == before.instances


def test_it_follows_the_quota_and_may_be_below_zero(fixture: QuotasFixture) -> None:
    fixture.make_cluster()
    fixture.limit(0, 7)
    room = fixture.quotas.left()
    assert room.clusters < 0
    assert room.instances <= 7


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AwsQuotas, Stubber]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    quotas = AwsQuotas(region=REGION)
    with Stubber(quotas._client) as stub:
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

    monkeypatch.setattr(quotas._client, "describe_account_attributes", answers)
    with pytest.raises(Retryable, match="can't be read"):
        quotas.left()
