"""Logins from Secrets Manager: an emulated one over HTTP, and faults of a fake client."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from controlplane.localcloud.aws.emulator import AwsEmulator
from dataplane.credentials import Credential, SecretsManagerCredentials, parse_secret, placement_of
from dataplane.errors import CredentialUnavailable, CrossTenantDetected
from dataplane.tenant_config import DatabaseAddress, TenantConfig
from tests.dataplane.tenants import new_tenant_id
from tests.dataplane.tiers import Clock, config

PREFIX = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:"


def tenant(tenant_id: str = "t-abcdefghijkl", secret: str | None = None) -> TenantConfig:
    arn = PREFIX + f"tenants/{tenant_id}/1/app-AbCdEf" if secret is None else secret
    return config(
        "acme.example", tenant_id=tenant_id, database=DatabaseAddress("db.example", 5432, "t_1", arn)
    )


def secret(username: str = "app_a", password: str = "pw", **changes: Any) -> str:
    fields = {"username": username, "password": password, "host": "db.example", "port": 5432, "dbname": "t_1"}
    return json.dumps({name: value for name, value in (fields | changes).items() if value is not None})


class FakeSession:
    """A boto3 session with one secret, counting what is asked."""

    def __init__(self) -> None:
        self.value = secret()
        self.failure: Exception | None = None
        self.calls: list[tuple[str, Any]] = []
        self.delay = 0.0

    def __call__(self) -> FakeSession:
        return self

    def client(self, service: str, **options: Any) -> FakeSession:
        self.calls.append(("client", service))
        return self

    def assume_role(self, **request: Any) -> dict[str, Any]:
        self.calls.append(("assume_role", (request["RoleArn"], request["ExternalId"])))
        return {"Credentials": {"AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": "t"}}

    def get_secret_value(self, **request: Any) -> dict[str, Any]:
        self.calls.append(("get", request))
        time.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        return {"SecretString": self.value}

    @property
    def fetched(self) -> int:
        return sum(name == "get" for name, _ in self.calls)


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(session: FakeSession, clock: Clock) -> SecretsManagerCredentials:
    return SecretsManagerCredentials(session=session, clock=clock)


def test_from_the_real_service_of_the_emulator(aws: AwsEmulator) -> None:
    tenant_id = new_tenant_id()
    client = boto3.client("secretsmanager")
    arn = client.create_secret(Name=f"tenants/{tenant_id}/1/app", SecretString=secret())["ARN"]
    of = tenant(tenant_id, arn)
    credentials = SecretsManagerCredentials()
    first = credentials.get(of)
    assert first == Credential("app_a", "pw")
    client.put_secret_value(SecretId=arn, SecretString=secret("app_b"))
    assert credentials.get(of) == first, "kept until it is refused or announced"
    time.sleep(1.05)
    assert credentials.refresh(of, first).username == "app_b"
    client.put_secret_value(SecretId=arn, SecretString=secret("app_a"))
    credentials.forget(tenant_id)
    assert credentials.get(of).username == "app_a"


def test_as_the_tenants_own_role(aws: AwsEmulator) -> None:
    tenant_id = new_tenant_id()
    boto3.client("iam").create_role(
        RoleName=f"{tenant_id}-1",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
            }
        ),
    )
    arn = boto3.client("secretsmanager").create_secret(
        Name=f"tenants/{tenant_id}/1/app", SecretString=secret()
    )["ARN"]
    account = arn.split(":")[4]
    credentials = SecretsManagerCredentials(role=f"arn:aws:iam::{account}:role/{{placement}}")
    assert credentials.get(tenant(tenant_id, arn)).username == "app_a"


def test_the_role_is_the_placements(session: FakeSession) -> None:
    credentials = SecretsManagerCredentials(role="arn:aws:iam::1:role/{placement}", session=session)
    credentials.get(tenant())
    assert ("assume_role", ("arn:aws:iam::1:role/t-abcdefghijkl-1", "t-abcdefghijkl")) in session.calls
    with pytest.raises(ValueError, match=r"role: expected an ARN with {placement}"):
        SecretsManagerCredentials(role="arn:aws:iam::1:role/fixed")


def test_a_secret_of_another_tenant_is_not_even_asked_for(session: FakeSession) -> None:
    credentials = SecretsManagerCredentials(role="arn:aws:iam::1:role/{placement}", session=session)
    with pytest.raises(CrossTenantDetected):
        credentials.get(tenant(secret=PREFIX + "tenants/t-zzzzzzzzzzzz/1/app-AbCdEf"))
    with pytest.raises(CredentialUnavailable, match="expected an ARN of tenants"):
        credentials.get(tenant("t-bbbbbbbbbbbb", secret=PREFIX + "other/app"))
    assert session.fetched == 0
    assert placement_of(tenant()) == "t-abcdefghijkl-1"


def test_one_fetch_however_many_ask(session: FakeSession, credentials: SecretsManagerCredentials) -> None:
    session.delay = 0.1
    start = threading.Barrier(20)

    def ask(_: int) -> Credential:
        start.wait()
        return credentials.get(tenant())

    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(ask, range(20)))) == 1
    assert session.fetched == 1
    assert session.calls[-1] == ("get", {"SecretId": tenant().database.secret, "VersionStage": "AWSCURRENT"})  # type: ignore[union-attr]


def test_with_aws_away_what_is_known_goes_on_working(
    session: FakeSession, credentials: SecretsManagerCredentials, clock: Clock
) -> None:
    known = credentials.get(tenant())
    session.failure = EndpointConnectionError(endpoint_url="https://secretsmanager")
    clock.pass_by(100_000)
    assert credentials.get(tenant()) == known
    credentials.forget("t-abcdefghijkl")
    assert credentials.get(tenant()) == known, "a rotation leaves the old one valid for a while"
    assert credentials.refresh(tenant(), known) == known
    with pytest.raises(CredentialUnavailable, match="EndpointConnectionError"):
        credentials.get(tenant("t-bbbbbbbbbbbb"))


def test_a_failure_is_not_asked_for_again_at_once(
    session: FakeSession, credentials: SecretsManagerCredentials, clock: Clock
) -> None:
    session.failure = ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetSecretValue")
    for _ in range(5):
        with pytest.raises(CredentialUnavailable, match="AccessDeniedException") as caught:
            credentials.get(tenant())
        assert caught.value.retry_after == 1
    assert session.fetched == 1
    session.failure = None
    clock.pass_by(1)
    assert credentials.get(tenant()).username == "app_a"


def test_a_refused_login_is_fetched_once_for_all_who_were_refused(
    session: FakeSession, credentials: SecretsManagerCredentials, clock: Clock
) -> None:
    old = credentials.get(tenant())
    session.value = secret("app_b")
    clock.pass_by(1)
    assert [credentials.refresh(tenant(), old).username for _ in range(5)] == ["app_b"] * 5
    assert session.fetched == 2
    assert credentials.refresh(tenant(), Credential("app_b", "pw")).username == "app_b"
    assert session.fetched == 2, "asked a moment ago"


def test_a_new_placement_has_a_new_secret(
    session: FakeSession, credentials: SecretsManagerCredentials
) -> None:
    credentials.get(tenant())
    session.value = secret("moved")
    moved = tenant(secret=PREFIX + "tenants/t-abcdefghijkl/2/app-AbCdEf")
    assert credentials.get(moved).username == "moved"
    assert session.fetched == 2


def test_memory_is_bounded(session: FakeSession) -> None:
    credentials = SecretsManagerCredentials(session=session, capacity=10)
    for number in range(50):
        credentials.get(tenant(f"t-{number}"))
    assert len(credentials._kept) == 10


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("not json", "secret"),
        ("[]", "secret"),
        (secret(username=None), "secret.username"),  # type: ignore[arg-type]
        (secret(password=""), "secret.password"),
        (secret(dbname="t_2"), "secret.dbname"),
    ],
)
def test_a_secret_of_another_shape_is_refused_without_a_word_of_it(
    session: FakeSession,
    credentials: SecretsManagerCredentials,
    caplog: pytest.LogCaptureFixture,
    text: str,
    field: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    session.value = text
    with pytest.raises(CredentialUnavailable) as caught:
        credentials.get(tenant())
    assert f"{field}: " in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "pw" not in caplog.text


def test_a_secret_may_have_only_what_is_needed() -> None:
    text = json.dumps({"username": "u", "password": "canary-of-a-password"})
    credential = parse_secret(text, tenant())
    assert credential.username == "u"
    assert "canary" not in repr(credential)
