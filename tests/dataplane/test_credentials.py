"""Logins from Secrets Manager: an emulated one over HTTP, and faults of a fake client."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from controlplane.localcloud.aws.emulator import AwsEmulator
from dataplane.credentials import Credential, SecretsManagerCredentials, parse_secret
from dataplane.errors import CredentialUnavailable
from dataplane.tenant_config import DatabaseAddress, TenantConfig
from tests.dataplane.tenants import new_tenant_id
from tests.dataplane.tiers import ROLE, Clock, config
from tests.harness.access import as_app, cluster_role, placement_of, tenant_secret

PREFIX = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:"
CLUSTER = "c-" + new_tenant_id().removeprefix("t-")


def tenant(tenant_id: str = "t-abcdefghijkl", secret: str | None = None, **changes: Any) -> TenantConfig:
    arn = PREFIX + f"placements/{placement_of(tenant_id)}/app-AbCdEf" if secret is None else secret
    fields: dict[str, Any] = {"tenant_id": tenant_id, "placement": placement_of(tenant_id)}
    fields["database"] = DatabaseAddress("db.example", 5432, "t_1", arn, changes.pop("role", ROLE))
    return config("acme.example", **fields | changes)


def secret(username: str = "app_a", password: str = "pw", **changes: Any) -> str:
    fields = {"username": username, "password": password, "host": "db.example", "port": 5432, "dbname": "t_1"}
    return json.dumps({name: value for name, value in (fields | changes).items() if value is not None})


class FakeSession:
    """boto3 with one secret, counting what is asked. `ended`: sessions that AWS refuses by now."""

    def __init__(self) -> None:
        self.value = secret()
        self.failure: Exception | None = None
        self.assuming: Exception | None = None
        self.ended: set[str] = set()
        self.calls: list[tuple[str, Any]] = []
        self.delay = 0.0
        self.credentials: Any = None

    def __call__(self, *, botocore_session: Any = None) -> FakeSession:
        if botocore_session is not None:
            self.credentials = botocore_session.get_credentials()
        return self

    def client(self, service: str, **options: Any) -> FakeSession:
        self.calls.append(("client", service))
        return self

    def assume_role(self, **request: Any) -> dict[str, Any]:
        self.calls.append(("assume_role", request))
        if self.assuming is not None:
            raise self.assuming
        token = f"{request['RoleArn']} {request['Tags'][0]['Value']} {self.assumed}"
        return {"Credentials": {"AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": token}}

    def get_secret_value(self, **request: Any) -> dict[str, Any]:
        token = self.credentials.get_frozen_credentials().token
        self.calls.append(("get", request | {"as": token}))
        time.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        if token in self.ended:
            raise refusal("ExpiredTokenException")
        return {"SecretString": self.value}

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)

    @property
    def fetched(self) -> int:
        return self.count("get")

    @property
    def assumed(self) -> int:
        return self.count("assume_role")


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, "any")


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(session: FakeSession, clock: Clock) -> SecretsManagerCredentials:
    return SecretsManagerCredentials(session=session, clock=clock, chance=lambda: 1.0)


@pytest.fixture(scope="module")
def role(aws_emulator: AwsEmulator) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_emulator.environ().items():
            patch.setenv(name, value)
        return cluster_role(CLUSTER)


def test_from_the_real_service_of_the_emulator(aws: AwsEmulator, role: str) -> None:
    tenant_id = new_tenant_id()
    client = boto3.client("secretsmanager")
    arn = tenant_secret(tenant_id, CLUSTER, secret())
    of = tenant(tenant_id, arn, role=role)
    credentials = SecretsManagerCredentials(session=as_app(), pause=0)
    first = credentials.get(of)
    assert first == Credential("app_a", "pw")
    client.put_secret_value(SecretId=arn, SecretString=secret("app_b"))
    assert credentials.get(of) == first, "kept until it is refused or announced"
    assert credentials.refresh(of, first).username == "app_b"
    client.put_secret_value(SecretId=arn, SecretString=secret("app_a"))
    credentials.forget(tenant_id)
    assert credentials.get(of).username == "app_a"


def test_code_that_mixes_tenants_is_refused_by_aws(aws: AwsEmulator, role: str) -> None:
    """What the parser would refuse, as if it were not there."""
    mine, other = new_tenant_id(), new_tenant_id()
    arns = {name: tenant_secret(name, CLUSTER, secret()) for name in (mine, other)}
    credentials = SecretsManagerCredentials(session=as_app())
    for wrong in (
        tenant(mine, arns[other], role=role),
        tenant(mine, arns[mine], role=role, placement=f"{other}-1"),
        tenant(mine, arns[mine], role=role, placement=f"{mine}-2"),
    ):
        with pytest.raises(CredentialUnavailable, match="AccessDeniedException"):
            SecretsManagerCredentials(session=as_app()).get(wrong)
    assert credentials.get(tenant(mine, arns[mine], role=role)).username == "app_a"


def test_the_process_itself_reads_nothing(aws: AwsEmulator, role: str) -> None:
    tenant_id = new_tenant_id()
    arn = tenant_secret(tenant_id, CLUSTER, secret())
    own = as_app()().client("secretsmanager")
    with pytest.raises(ClientError, match="AccessDenied"):
        own.get_secret_value(SecretId=arn)
    credentials = SecretsManagerCredentials(session=as_app())
    assert credentials.get(tenant(tenant_id, arn, role=role)).username == "app_a"
    with pytest.raises(RuntimeError, match="no session's credentials"):
        credentials._clients().secrets.get_secret_value(SecretId=arn)


def test_many_threads_share_a_client_and_no_session(aws: AwsEmulator, role: str) -> None:
    tenants = {f"t{number}": new_tenant_id() for number in range(24)}
    of = {
        name: tenant(tenant_id, tenant_secret(tenant_id, CLUSTER, secret(name)), role=role)
        for name, tenant_id in tenants.items()
    }
    credentials = SecretsManagerCredentials(session=as_app())
    with ThreadPoolExecutor(12) as threads:
        found = dict(zip(of, threads.map(credentials.get, of.values()), strict=True))
    assert {name: login.username for name, login in found.items()} == {name: name for name in of}


def test_a_session_is_tagged_with_the_placement_and_nothing_else(
    session: FakeSession, credentials: SecretsManagerCredentials
) -> None:
    credentials.get(tenant())
    (asked,) = [request for name, request in session.calls if name == "assume_role"]
    assert asked == {
        "RoleArn": ROLE,
        "RoleSessionName": "p-abcdefghijkl",
        "Tags": [{"Key": "placement", "Value": "p-abcdefghijkl"}],
        "DurationSeconds": 900,
    }
    with pytest.raises(CredentialUnavailable, match="expected a database"):
        credentials.get(tenant("t-bbbbbbbbbbbb", placement=None))


def test_clients_are_made_once(session: FakeSession, credentials: SecretsManagerCredentials) -> None:
    for number in range(5):
        credentials.get(tenant(f"t-{number}"))
    assert sorted(service for name, service in session.calls if name == "client") == ["secretsmanager", "sts"]


def test_a_session_is_used_again_until_shortly_before_its_end(
    session: FakeSession, credentials: SecretsManagerCredentials, clock: Clock
) -> None:
    login = credentials.get(tenant())
    for _ in range(3):
        clock.pass_by(200)
        credentials.refresh(tenant(), login)
    assert (session.assumed, session.fetched) == (1, 4)
    clock.pass_by(240)  # 840 of 900
    credentials.refresh(tenant(), login)
    assert (session.assumed, session.fetched) == (2, 5)


def test_a_session_that_aws_has_ended_is_begun_anew(
    session: FakeSession, credentials: SecretsManagerCredentials, clock: Clock
) -> None:
    login = credentials.get(tenant())
    (first,) = {request["as"] for name, request in session.calls if name == "get"}
    session.ended.add(first)
    session.value = secret("app_b")
    clock.pass_by(1)
    assert credentials.refresh(tenant(), login).username == "app_b"
    assert (session.assumed, session.fetched) == (2, 3)


def test_sessions_that_are_kept_are_bounded(
    session: FakeSession, credentials: SecretsManagerCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataplane.credentials.SESSIONS", 3)
    for number in range(10):
        credentials.get(tenant(f"t-{number}"))
    assert [placement for _, placement in credentials._sessions] == ["p-7", "p-8", "p-9"]


@pytest.mark.parametrize("code", ["Throttling", "ThrottlingException", "RequestLimitExceeded"])
def test_where_aws_throttles_nobody_asks_for_a_while(
    session: FakeSession, credentials: SecretsManagerCredentials, clock: Clock, code: str
) -> None:
    known = credentials.get(tenant())
    session.assuming = refusal(code)
    asked = []
    for wait in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        with pytest.raises(CredentialUnavailable) as caught:
            credentials.get(tenant(f"t-{wait}-{clock.now}"))
        asked.append(session.assumed)
        assert caught.value.retry_after == wait
        with pytest.raises(CredentialUnavailable, match="throttles") as caught:
            credentials.get(tenant(f"t-other-{clock.now}"))
        assert caught.value.retry_after == wait, "of any tenant"
        assert session.assumed == asked[-1], "and AWS is left alone"
        clock.pass_by(wait)
    assert asked == [2, 3, 4, 5, 6, 7, 8]
    assert credentials.get(tenant()) == known
    session.assuming = None
    assert credentials.get(tenant("t-bbbbbbbbbbbb")).username == "app_a"
    assert credentials.get(tenant("t-cccccccccccc")).username == "app_a", "all are let through again"


def test_processes_do_not_come_back_together(session: FakeSession, clock: Clock) -> None:
    session.assuming = refusal("Throttling")
    waits = []
    for chance in (0.0, 0.5, 1.0):
        credentials = SecretsManagerCredentials(session=session, clock=clock, chance=partial(float, chance))
        with pytest.raises(CredentialUnavailable) as caught:
            credentials.get(tenant())
        waits.append(caught.value.retry_after)
    assert waits == [0.5, 0.75, 1.0]


def test_one_fetch_however_many_ask(session: FakeSession, credentials: SecretsManagerCredentials) -> None:
    session.delay = 0.1
    start = threading.Barrier(20)

    def ask(_: int) -> Credential:
        start.wait()
        return credentials.get(tenant())

    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(ask, range(20)))) == 1
    assert session.fetched == 1
    name, asked = session.calls[-1]
    assert (name, asked["SecretId"]) == ("get", PREFIX + "placements/p-abcdefghijkl/app-AbCdEf")
    assert asked["VersionStage"] == "AWSCURRENT"


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
    second = PREFIX + "placements/p-bcdefghijklm/app-AbCdEf"
    moved = tenant(secret=second, placement="p-bcdefghijklm")
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
