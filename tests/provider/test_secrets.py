"""`ports.Secrets`: AWS Secrets Manager and its fake, held to the same rules."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from controlplane.domain.errors import Invalid, NeedsHuman, NotFound, Retryable
from controlplane.localcloud.aws.emulator import REGION
from controlplane.localcloud.fakes.aws import FakeAccount, FakeSecrets
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.ports import Credential

CREDENTIAL = Credential(
    username="p_x_app_a", password="canary-7f3a", host="db.example.net", port=5433, dbname="p_x"
)
OTHER = Credential(username="p_x_app_b", password="canary-91bc", host="db.example.net", dbname="p_x")


@dataclass
class SecretsFixture:
    """`make` and `delete` are Terraform's part: the container, and the deletion window."""

    secrets: Any
    make: Callable[[str], None]
    delete: Callable[[str], None]


@pytest.fixture(params=["fake", "real"])
def fixture(request: pytest.FixtureRequest) -> SecretsFixture:
    if request.param == "fake":
        world = World()
        account = FakeAccount(world)
        return SecretsFixture(
            FakeSecrets(world),
            make=lambda name: account.make("secret", name, versions={}, current=None, deleting=False),
            delete=lambda name: account.change("secret", name, deleting=True),
        )
    request.getfixturevalue("aws")
    client = boto3.client("secretsmanager")
    return SecretsFixture(
        AwsSecrets(region=REGION),
        make=lambda name: client.create_secret(Name=name),
        delete=lambda name: client.delete_secret(SecretId=name, RecoveryWindowInDays=7),
    )


@pytest.fixture
def name(fixture: SecretsFixture) -> str:
    """A container without a value, as Terraform leaves it."""
    name = f"placements/{uuid.uuid4()}/app"
    fixture.make(name)
    return name


def token() -> str:
    return str(uuid.uuid4())


def test_an_empty_container_is_seen_but_can_not_be_read(fixture: SecretsFixture, name: str) -> None:
    seen = fixture.secrets.describe(name)
    assert (seen.name, seen.version_id, seen.deleting) == (name, None, False)
    assert fixture.secrets.describe(seen.arn) == seen
    with pytest.raises(Retryable, match="no value yet"):
        fixture.secrets.read(name)


def test_what_is_written_is_read_back_by_name_and_arn(fixture: SecretsFixture, name: str) -> None:
    version = fixture.secrets.write(name, CREDENTIAL, token=token())
    seen = fixture.secrets.describe(name)
    assert seen.version_id == version
    assert fixture.secrets.read(name) == fixture.secrets.read(seen.arn) == CREDENTIAL


def test_the_same_token_writes_once(fixture: SecretsFixture, name: str) -> None:
    first = token()
    version = fixture.secrets.write(name, CREDENTIAL, token=first)
    newer = fixture.secrets.write(name, OTHER, token=token())
    assert newer != version
    assert fixture.secrets.write(name, CREDENTIAL, token=first) == version
    assert fixture.secrets.read(name) == OTHER  # a late repeat does not bring the old value back


def test_a_token_is_not_taken_for_another_value(fixture: SecretsFixture, name: str) -> None:
    first = token()
    fixture.secrets.write(name, CREDENTIAL, token=first)
    with pytest.raises(NeedsHuman) as conflict:
        fixture.secrets.write(name, OTHER, token=first)
    assert conflict.value.runbook == "secret-conflict"
    assert "canary" not in str(conflict.value)
    assert fixture.secrets.read(name) == CREDENTIAL


def test_a_staged_version_is_used_by_nobody_until_it_is_promoted(fixture: SecretsFixture, name: str) -> None:
    first = fixture.secrets.write(name, CREDENTIAL, token=token())
    second = token()
    assert fixture.secrets.read_version(name, second) is None
    for _ in range(2):
        assert fixture.secrets.stage(name, OTHER, token=second) == second
    assert (fixture.secrets.read(name), fixture.secrets.describe(name).version_id) == (CREDENTIAL, first)
    assert fixture.secrets.read_version(name, second) == OTHER
    for _ in range(2):
        fixture.secrets.promote(name, second, replacing=first)
    assert (fixture.secrets.read(name), fixture.secrets.describe(name).version_id) == (OTHER, second)
    assert fixture.secrets.read_version(name, first) == CREDENTIAL


def test_who_comes_late_promotes_nothing(fixture: SecretsFixture, name: str) -> None:
    first = fixture.secrets.write(name, CREDENTIAL, token=token())
    late, newer = token(), token()
    fixture.secrets.stage(name, CREDENTIAL, token=late)
    fixture.secrets.stage(name, OTHER, token=newer)
    fixture.secrets.promote(name, newer, replacing=first)
    with pytest.raises(Retryable, match="not its current version"):
        fixture.secrets.promote(name, late, replacing=first)
    assert fixture.secrets.read(name) == OTHER


def test_a_token_is_staged_for_one_value(fixture: SecretsFixture, name: str) -> None:
    fixture.secrets.write(name, CREDENTIAL, token=token())
    staged = token()
    fixture.secrets.stage(name, OTHER, token=staged)
    with pytest.raises(Retryable, match="somebody else"):
        fixture.secrets.stage(name, CREDENTIAL, token=staged)
    assert fixture.secrets.read_version(name, staged) == OTHER


def test_nothing_is_staged_in_an_empty_secret(fixture: SecretsFixture, name: str) -> None:
    with pytest.raises(Retryable, match="no value yet"):
        fixture.secrets.stage(name, OTHER, token=token())
    assert fixture.secrets.describe(name).version_id is None


@pytest.mark.parametrize("length", [31, 65])
def test_a_token_has_32_to_64_characters(fixture: SecretsFixture, name: str, length: int) -> None:
    with pytest.raises(Invalid, match="token"):
        fixture.secrets.write(name, CREDENTIAL, token="x" * length)


def test_a_secret_that_waits_for_its_deletion_comes_back_whole(fixture: SecretsFixture, name: str) -> None:
    fixture.secrets.write(name, CREDENTIAL, token=token())
    fixture.delete(name)
    assert fixture.secrets.describe(name).deleting
    with pytest.raises(Retryable, match="deletion"):
        fixture.secrets.read(name)
    with pytest.raises(Retryable, match="deletion"):
        fixture.secrets.write(name, OTHER, token=token())
    fixture.secrets.restore(name)
    fixture.secrets.restore(name)
    assert not fixture.secrets.describe(name).deleting
    assert fixture.secrets.read(name) == CREDENTIAL


def test_a_secret_that_is_not_there(fixture: SecretsFixture) -> None:
    assert fixture.secrets.describe("placements/nobody/app") is None
    for call in (
        lambda: fixture.secrets.read("placements/nobody/app"),
        lambda: fixture.secrets.write("placements/nobody/app", CREDENTIAL, token=token()),
        lambda: fixture.secrets.restore("placements/nobody/app"),
    ):
        with pytest.raises(NotFound, match="placements/nobody/app"):
            call()


def test_a_value_that_is_no_login_is_named_but_not_shown(aws: object) -> None:
    name = f"placements/{uuid.uuid4()}/app"
    boto3.client("secretsmanager").create_secret(Name=name, SecretString='{"password": "canary-55"}')
    with pytest.raises(NeedsHuman, match=name) as malformed:
        AwsSecrets(region=REGION).read(name)
    assert malformed.value.runbook == "secret-malformed"
    assert "canary" not in str(malformed.value)
    assert malformed.value.__cause__ is None


def test_a_credential_hides_its_password() -> None:
    assert "canary" not in repr(CREDENTIAL)


def test_an_unreachable_service_is_worth_a_retry(aws: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Retryable, match="EndpointConnectionError"):
        AwsSecrets(region=REGION).describe("placements/x/app")
