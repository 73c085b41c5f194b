"""All of it at once, given to the product by its own variables."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import psycopg
import pytest
import redis
import stripe
from cloudflare import Cloudflare

from controlplane.localcloud.cloud import LocalCloud
from controlplane.localcloud.servers.process import ServiceError, make_data_root
from tests.localcloud.test_process import wait_for
from tests.processes import is_running

WEBHOOK = "http://127.0.0.1:9/webhooks/stripe"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    """One of this module's own: it counts webhook endpoints."""
    with LocalCloud() as running:
        yield running


@pytest.fixture
def root() -> Iterator[Path]:
    folder = make_data_root("localcloud-tests-")
    yield folder
    shutil.rmtree(folder)


def test_every_variable_leads_somewhere(cloud: LocalCloud) -> None:
    assert "CONTROLPLANE_STRIPE_WEBHOOK_SECRETS" not in cloud.environment()
    secret = cloud.deliver_webhooks_to(WEBHOOK)
    variables = cloud.environment()
    assert variables["CONTROLPLANE_STRIPE_WEBHOOK_SECRETS"] == secret

    with psycopg.connect(variables["CONTROLPLANE_REGISTRY_URL"]) as connection:
        shown = connection.execute(
            "SELECT rolsuper, pg_get_userbyid(datdba) = current_user FROM pg_roles, pg_database "
            "WHERE rolname = current_user AND datname = current_database()"
        ).fetchone()
        assert shown == (False, True)
    for variable, policy in (
        ("CONTROLPLANE_BROKER_URL", "noeviction"),
        ("CONTROLPLANE_CACHE_URL", "allkeys-lru"),
    ):
        with redis.Redis.from_url(variables[variable], decode_responses=True) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": policy}

    billing = stripe.StripeClient(
        variables["CONTROLPLANE_STRIPE_API_KEY"],
        base_addresses={"api": variables["CONTROLPLANE_STRIPE_API_BASE"]},
    )
    assert [endpoint.url for endpoint in billing.v1.webhook_endpoints.list()] == [WEBHOOK]
    with Cloudflare(
        api_token=variables["CONTROLPLANE_CLOUDFLARE_API_TOKEN"],
        base_url=variables["CONTROLPLANE_CLOUDFLARE_API_BASE"],
    ) as edge:
        zone = variables["CONTROLPLANE_CLOUDFLARE_ZONE_ID"]
        assert list(edge.custom_hostnames.list(zone_id=zone)) == []

    key_id, _, key = variables["CONTROLPLANE_CONFIG_SIGNING_KEYS"].partition(":")
    assert key_id == "k1"
    assert len(base64.b64decode(key, validate=True)) == 32
    assert variables["DATAPLANE_CONFIG_KEYS"] == variables["CONTROLPLANE_CONFIG_SIGNING_KEYS"]
    assert json.loads(Path(variables["CONTROLPLANE_DATABASE_ENDPOINT_MAP"]).read_text()) == {}
    assert Path(variables["TF_CLI_CONFIG_FILE"]).is_file()


def test_the_account_is_furnished(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = cloud.environment()
    for name, value in variables.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    bucket = variables["CONTROLPLANE_TERRAFORM_STATE_BUCKET"]
    assert boto3.client("s3").get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"

    iam = boto3.client("iam")
    boundary = iam.get_policy(PolicyArn=variables["CONTROLPLANE_PERMISSIONS_BOUNDARY_ARN"])["Policy"]
    assert boundary["PolicyName"] == "tenant-boundary"
    role = variables["CONTROLPLANE_APP_ROLE_ARN"].rpartition("/")[2]
    assert iam.get_role(RoleName=role)["Role"]["Arn"] == variables["CONTROLPLANE_APP_ROLE_ARN"]

    ec2 = boto3.client("ec2")
    subnets = ec2.describe_subnets(SubnetIds=variables["CONTROLPLANE_SUBNET_IDS"].split(","))["Subnets"]
    assert {subnet["VpcId"] for subnet in subnets} == {variables["CONTROLPLANE_VPC_ID"]}
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) >= 2
    groups = ec2.describe_security_groups(GroupIds=[variables["CONTROLPLANE_APP_SECURITY_GROUP_IDS"]])
    assert groups["SecurityGroups"][0]["VpcId"] == variables["CONTROLPLANE_VPC_ID"]


def test_secrets_are_new_each_time_and_in_no_representation(cloud: LocalCloud) -> None:
    secret = cloud.credentials.operator_token
    assert secret in cloud.environment()["CONTROLPLANE_API_TOKENS"]
    assert secret not in repr(cloud.credentials)
    other = LocalCloud(aws=False, stripe=False, cloudflare=False)
    assert other.credentials.operator_token != secret
    other.close()


def test_what_is_left_out_has_no_variables(root: Path) -> None:
    with LocalCloud(root / "world", aws=False, stripe=False, cloudflare=False, zone="example.test") as cloud:
        variables = cloud.environment()
        assert variables["CONTROLPLANE_PLATFORM_ZONE"] == "example.test"
        assert not [name for name in variables if "STRIPE" in name or "CLOUDFLARE" in name or "AWS" in name]
        with pytest.raises(ServiceError, match="stripe: left out"):
            cloud.deliver_webhooks_to(WEBHOOK)


def test_a_folder_of_an_earlier_run_is_cleared_and_no_other(root: Path) -> None:
    world = root / "world"
    for _ in range(2):
        with LocalCloud(world, aws=False, stripe=False, cloudflare=False) as cloud:
            with psycopg.connect(cloud.environment()["CONTROLPLANE_REGISTRY_URL"]) as connection:
                connection.execute("CREATE TABLE only_once (x int)")
            with pytest.raises(ServiceError, match="data_dir: another local cloud uses"):
                LocalCloud(world)
    (root / "thesis.txt").write_text("do not delete")
    with pytest.raises(ServiceError, match="data_dir: expected"):
        LocalCloud(root)
    assert (root / "thesis.txt").exists()


def test_a_failed_start_leaves_nothing_running(root: Path) -> None:
    cloud = LocalCloud(root / "world", stripe=False, cloudflare_arguments=["--quota", "-1"])
    with pytest.raises(ServiceError, match="cloudflare: ended with status"):
        cloud.start()
    running = [cloud.registry, cloud.broker, cloud.cache, cloud.aws, cloud.cloudflare]
    assert not any(service and service.running for service in running)


def descendants(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, fresh = set(), {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh}
        found |= fresh
    return found


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_command_leaves_no_process(root: Path, ending: signal.Signals) -> None:
    variables = root / "local.env"
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "controlplane.localcloud",
            "--data-dir",
            root / "world",
            "--env-file",
            variables,
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as command:
        try:
            assert command.stdout is not None
            lines: list[str] = []
            while not lines or not lines[-1].startswith("ready"):
                lines.append(command.stdout.readline())
                assert lines[-1], "it ended before it was ready"
            assert wait_for(variables.exists)
            started = descendants(command.pid)
            command.send_signal(ending)
            status = command.wait(timeout=30)
        finally:
            command.kill()
    names = [line.split()[0] for line in lines]
    assert names == ["registry", "broker", "cache", "aws", "stripe", "cloudflare", "data", "ready"]
    assert variables.stat().st_mode & 0o777 == 0o600
    assert len(started) >= 6
    assert wait_for(lambda: not any(map(is_running, started)))
    assert status == (-signal.SIGKILL if ending is signal.SIGKILL else 0)
