"""Access by tag, as Terraform makes it and IAM enforces it: who opens which secret, and who does not.

The roles and secrets are the modules' own. IAM is on for everybody while a secret is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from controlplane.domain.errors import ControlPlaneError
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.ports import Credential, StackRun
from dataplane.credentials import SecretsManagerCredentials
from dataplane.errors import CredentialUnavailable
from dataplane.tenant_config import DatabaseAddress, TenantConfig
from tests.dataplane.tiers import config
from tests.harness import access
from tests.harness.terraform import Events, RealFixture, never, new_id, placements_run

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Placed:
    """A placement, with the role of its cluster. `beside_arn`: a secret that no module makes, under its name
    and with its tags."""

    placement: str
    role: str
    app_arn: str
    beside_arn: str

    def config(self, **changes: Any) -> TenantConfig:
        """Its routing entry; `changes` as of code that mixes tenants up."""
        fields = {"secret": self.app_arn, "role": self.role} | changes
        placement = fields.pop("placement", self.placement)
        database = DatabaseAddress("db.example", 5432, self.placement, **fields)
        return config("acme.example", tenant_id=new_id("t-"), placement=placement, database=database)


@pytest.fixture(scope="module")
def made(aws_emulator: AwsEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Placed]]:
    """Two placements on one cluster and one on another, made at the same time by workers that share a work
    folder nobody has initialised yet."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_emulator.environ().items():
            patch.setenv(name, value)
        work_dir = tmp_path_factory.mktemp("access")
        fixture = RealFixture(work_dir)
        clusters = [new_id("c-") for _ in range(2)]
        roles = [fixture.make_role(cluster) for cluster in clusters]
        runs = [placements_run(fixture, count, clusters[n]) for n, count in enumerate((2, 1))]
        outputs = _apply_all(fixture, work_dir / "work", runs)
        secrets = AwsSecrets(region=REGION)
        placed = []
        for n, run in enumerate(runs):
            for placement in run.variables["placements"]:
                credential = Credential(placement, "canary", dbname=placement)
                secrets.write(f"placements/{placement}/app", credential, token="x" * 32)
                app_arn = outputs[n]["app_secret_arns"][placement]
                placed.append(Placed(placement, roles[n], app_arn, _beside(app_arn, placement)))
        yield placed


def _beside(app_arn: str, placement: str) -> str:
    client = boto3.client("secretsmanager")
    app = client.get_secret_value(SecretId=app_arn)["SecretString"]
    tags = client.describe_secret(SecretId=app_arn)["Tags"]
    made = client.create_secret(Name=f"placements/{placement}/other", SecretString=app, Tags=tags)
    return str(made["ARN"])


def _apply_all(fixture: RealFixture, work_dir: Path, runs: list[StackRun]) -> dict[int, dict[str, Any]]:
    outputs: dict[int, dict[str, Any]] = {}
    errors: list[ControlPlaneError] = []

    def make(number: int) -> None:
        runner = fixture.runner(work_dir=work_dir)
        try:
            outputs[number] = runner.apply(runs[number], on_event=Events(), stopped=never)
        except ControlPlaneError as error:
            errors.append(error)

    threads = [threading.Thread(target=make, args=[number]) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert errors == []
    return outputs


@pytest.fixture
def as_app(made: list[Placed], aws: AwsEmulator) -> Iterator[Callable[..., boto3.session.Session]]:
    """Sessions of boto3 as the application's task role; from here on IAM is asked about everybody."""
    trusted = boto3.client("iam").get_role(RoleName="app-task")["Role"]["Arn"]
    session = access.session_as(trusted)

    def turn(body: str) -> None:
        httpx.post(f"{aws.url}/moto-api/reset-auth", content=body).raise_for_status()

    turn("0")
    yield session
    turn("Infinity")


def test_a_placement_opens_its_own_secret(
    made: list[Placed], as_app: Callable[..., boto3.session.Session]
) -> None:
    credentials = SecretsManagerCredentials(session=as_app)
    for placed in made:
        assert credentials.get(placed.config()).username == placed.placement


WRONG: dict[str, Callable[[Placed, Placed, Placed], TenantConfig]] = {
    "a foreign secret with the own tag": lambda mine, other, _: mine.config(secret=other.app_arn),
    "the own secret with a foreign tag": lambda mine, other, _: mine.config(placement=other.placement),
    "the own secret as another cluster's role": lambda mine, _, away: mine.config(role=away.role),
    "another cluster's secret with its tag": lambda mine, _, away: mine.config(
        secret=away.app_arn, placement=away.placement
    ),
    "a secret beside the application's, with its tags": lambda mine, *_: mine.config(secret=mine.beside_arn),
}


@pytest.mark.parametrize("name", WRONG)
def test_nothing_else_opens(
    made: list[Placed], as_app: Callable[..., boto3.session.Session], name: str
) -> None:
    with pytest.raises(CredentialUnavailable, match="AccessDeniedException"):
        SecretsManagerCredentials(session=as_app).get(WRONG[name](*made))


def refused(call: Callable[..., Any], **arguments: Any) -> bool:
    with pytest.raises(ClientError, match="AccessDenied"):
        call(**arguments)
    return True


def test_a_session_says_which_placement_it_is_for_and_nothing_more(
    made: list[Placed], as_app: Callable[..., boto3.session.Session]
) -> None:
    sts = as_app().client("sts")
    own = {"Key": "placement", "Value": made[0].placement}
    asked = {"RoleArn": made[0].role, "RoleSessionName": "test"}
    assert refused(sts.assume_role, **asked)
    assert refused(sts.assume_role, **asked, Tags=[own, {"Key": "team", "Value": "x"}])
    assert refused(sts.assume_role, **asked, Tags=[{"Key": "team", "Value": "x"}])
    assert sts.assume_role(**asked, Tags=[own])["Credentials"]


def test_a_session_without_a_tag_opens_nothing(made: list[Placed], aws: AwsEmulator) -> None:
    """Had by the account's owner, since the role gives none out."""
    session = access.session_as(made[0].role)
    for placed in made:
        for arn in (placed.app_arn, placed.beside_arn):
            assert refused(session().client("secretsmanager").get_secret_value, SecretId=arn)


def test_the_applications_role_itself_opens_nothing(
    made: list[Placed], as_app: Callable[..., boto3.session.Session]
) -> None:
    secrets = as_app().client("secretsmanager")
    for placed in made:
        assert refused(secrets.get_secret_value, SecretId=placed.app_arn)


def test_nobody_but_the_application_assumes_a_clusters_role(
    made: list[Placed], as_app: Callable[..., boto3.session.Session]
) -> None:
    tags = [{"Key": "placement", "Value": made[0].placement}]
    keys = as_app().client("sts").assume_role(RoleArn=made[0].role, RoleSessionName="test", Tags=tags)
    as_cluster = boto3.session.Session(
        aws_access_key_id=keys["Credentials"]["AccessKeyId"],
        aws_secret_access_key=keys["Credentials"]["SecretAccessKey"],
        aws_session_token=keys["Credentials"]["SessionToken"],
    ).client("sts")
    for role in (made[0].role, made[2].role):
        assert refused(as_cluster.assume_role, RoleArn=role, RoleSessionName="test", Tags=tags)


def test_tests_that_make_roles_by_hand_make_the_modules(made: list[Placed], aws: AwsEmulator) -> None:
    iam, cluster = boto3.client("iam"), made[0].role.rpartition("/")[2]
    role = iam.get_role(RoleName=cluster)["Role"]
    trusted = iam.get_role(RoleName="app-task")["Role"]["Arn"]
    assert role["AssumeRolePolicyDocument"] == access.trust(trusted)
    policy = iam.get_role_policy(RoleName=cluster, PolicyName="read-own-secret")["PolicyDocument"]
    assert policy == access.policy(cluster)
    assert "placement" not in {tag["Key"] for tag in role["Tags"]}
    described = boto3.client("secretsmanager").describe_secret(SecretId=made[0].app_arn)
    tags = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
    assert (tags["placement"], tags["cluster"]) == (made[0].placement, cluster)
