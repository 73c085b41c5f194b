"""Real Terraform and the AWS provider against the emulated account, and the fakes, under one face."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import boto3

from controlplane.localcloud.aws.account import ASSUME_CLUSTER_ROLES, BOUNDARY
from controlplane.localcloud.aws.emulator import REGION
from controlplane.localcloud.fakes.aws import FakeAccount, FakeInventory
from controlplane.localcloud.fakes.terraform import FakeTerraform
from controlplane.localcloud.fakes.world import World
from controlplane.localcloud.terraform_mirror import terraform_environment
from controlplane.workers.providers.aws_inventory import AwsInventory
from controlplane.workers.providers.ports import Inventory, PriorRun, ResourceEvent, StackRun, Terraform
from controlplane.workers.providers.terraform import TerraformRunner, archive
from controlplane.workers.providers.terraform.inventory import PlacementsInventory
from controlplane.workers.providers.terraform.state import PREFIXES, StateBucket

ROOT = Path(__file__).parents[2] / "terraform"
BUCKET = "terraform-states"


class Fixture(Protocol):
    terraform: Terraform

    def platform(self) -> dict[str, Any]:
        """The variables that the platform gives: network, application's role, boundary."""
        ...

    def lose_state(self, run: StackRun) -> None: ...

    def plant_lock(self, run: StackRun, *, lock_id: str, who: str, created: datetime) -> None: ...

    def lock_id(self, run: StackRun) -> str | None: ...

    def plant_stranger(self, run: StackRun) -> None:
        """Somebody else's secret under the name of the first placement's."""
        ...

    def doom(self, run: StackRun) -> None:
        """The placements' secrets wait for their deletion, and the state does not know."""
        ...

    def newer(self) -> Terraform:
        """A worker that carries a release of its own: in it the applications' secrets say something new."""
        ...

    def inventory(self) -> Inventory: ...

    def damage(self, release: str, *, lose: bool) -> None:
        """Write over the archive of this release, or delete it. No worker has unpacked it yet."""
        ...


def new_id(prefix: str) -> str:
    return prefix + base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]


def placements_run(
    fixture: Fixture, count: int = 1, cluster_id: str | None = None, **changes: Any
) -> StackRun:
    """The secrets of `count` placements that are drawn, or of those that `changes` name."""
    cluster_id = cluster_id or new_id("c-")
    variables = {
        "cluster_id": cluster_id,
        "placements": [new_id("p-") for _ in range(count)],
        "recovery_window_days": 7,
        "operation_id": "first",
        "environment": "test",
    }
    return StackRun("placements", cluster_id, published(fixture), variables | changes)


def secrets_of(run: StackRun) -> list[str]:
    """Names, one for each placement."""
    return [f"placements/{placement}/app" for placement in run.variables["placements"]]


def cluster_run(fixture: Fixture, cluster_id: str | None = None, **changes: Any) -> StackRun:
    cluster_id = cluster_id or new_id("c-")
    platform = fixture.platform()
    variables = {
        "cluster_id": cluster_id,
        "engine_version": "17.5",
        "min_acu": 0,
        "max_acu": 4,
        "seconds_until_auto_pause": 600,
        "backup_retention_days": 7,
        "instance_count": 1,
        "vpc_id": platform["vpc_id"],
        "subnet_ids": platform["subnet_ids"],
        "allowed_security_group_ids": platform["allowed_security_group_ids"],
        "final_snapshot_identifier": f"{cluster_id}-g1",
        "deletion_protection": True,
        "operation_id": "first",
        "isolation": "dedicated",
        "environment": "test",
        "app_role_arn": platform["app_role_arn"],
        "permissions_boundary_arn": platform["permissions_boundary_arn"],
    }
    return StackRun("cluster", cluster_id, published(fixture), variables | changes)


def published(fixture: Fixture) -> str:
    """The release that the fixture's Terraform carries, in its bucket."""
    return fixture.terraform.publish().digest


def again(
    run: StackRun, *, prior: PriorRun | None = None, approved: frozenset[str] = frozenset(), **changes: Any
) -> StackRun:
    """The same stack for a later operation."""
    variables = {**run.variables, "operation_id": "second", **changes}
    prior_runs = () if prior is None else (prior,)
    return replace(run, variables=variables, prior_runs=prior_runs, approved=approved)


class Events(list[ResourceEvent]):
    def __call__(self, event: ResourceEvent) -> None:
        self.append(event)

    def of(self, kind: str) -> list[tuple[str, str]]:
        """(address, action) of resource events; the phases of a run have no address."""
        return [(e.address, e.action) for e in self if e.kind == kind and e.address]

    def phases(self) -> dict[str, float]:
        """Seconds by command: plan, show, apply, …"""
        return {e.action: e.seconds or 0.0 for e in self if e.kind == "done" and not e.address}


def never() -> bool:
    return False


class FakeFixture:
    def __init__(self, crash: Callable[[str], None] | None = None) -> None:
        self.world = World(crash=crash)
        self.fake = FakeTerraform(self.world)
        self.terraform: Terraform = self.fake

    def platform(self) -> dict[str, Any]:
        return {
            "app_role_arn": "arn:aws:iam::123456789012:role/app",
            "permissions_boundary_arn": "arn:aws:iam::123456789012:policy/boundary",
            "vpc_id": "vpc-1",
            "subnet_ids": ["subnet-1", "subnet-2"],
            "allowed_security_group_ids": ["sg-1"],
        }

    def lose_state(self, run: StackRun) -> None:
        self.fake.lose_state(run)

    def plant_lock(self, run: StackRun, *, lock_id: str, who: str, created: datetime) -> None:
        self.fake.lock(run, lock_id=lock_id, who=who, created=created)

    def lock_id(self, run: StackRun) -> str | None:
        lock = self.world.get("terraform-lock", f"{run.stack}/{run.workspace}")
        return None if lock is None else lock["id"]

    def plant_stranger(self, run: StackRun) -> None:
        self.world.put("aws-secret", secrets_of(run)[0], {"environment": "somebody-else", "deleting": False})

    def doom(self, run: StackRun) -> None:
        for name in secrets_of(run):
            FakeAccount(self.world).change("secret", name, deleting=True)

    def newer(self) -> Terraform:
        return FakeTerraform(self.world, module={PlacementsInventory.APP: {"about": new_id("")}})

    def inventory(self) -> Inventory:
        return FakeInventory(self.world)

    def damage(self, release: str, *, lose: bool) -> None:
        self.fake.damage(release, lose=lose)


class RealFixture:
    """`work_dir` may be shared by many fixtures: the stacks are initialised once for all of them."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.s3 = boto3.client("s3")
        self.terraform: Terraform = self.runner()
        self._platform = self._make_platform()

    def runner(
        self, *, work_dir: Path | None = None, bucket: str = BUCKET, carries: Path = ROOT
    ) -> TerraformRunner:
        return TerraformRunner(
            binary="terraform",
            stacks_dir=carries / "stacks",
            work_dir=work_dir or self.work_dir / "work",
            state_bucket=bucket,
            region=REGION,
            environment={**os.environ, **terraform_environment(self.work_dir)},
        )

    def platform(self) -> dict[str, Any]:
        return dict(self._platform)

    def lose_state(self, run: StackRun) -> None:
        self.s3.delete_object(Bucket=BUCKET, Key=state_key(run))

    def plant_lock(self, run: StackRun, *, lock_id: str, who: str, created: datetime) -> None:
        body = {"ID": lock_id, "Operation": "OperationTypeApply", "Info": "", "Who": who, "Version": "1.11.4"}
        body |= {"Created": created.isoformat(), "Path": f"{BUCKET}/{state_key(run)}"}
        self.s3.put_object(Bucket=BUCKET, Key=state_key(run) + ".tflock", Body=json.dumps(body))

    def lock_id(self, run: StackRun) -> str | None:
        lock = StateBucket(BUCKET, region=REGION).lock(run.stack, run.workspace)
        return None if lock is None else lock.id

    def state(self, run: StackRun) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(
            self.s3.get_object(Bucket=BUCKET, Key=state_key(run))["Body"].read()
        )
        return body

    def plant_stranger(self, run: StackRun) -> None:
        boto3.client("secretsmanager").create_secret(Name=secrets_of(run)[0])

    def make_role(self, cluster_id: str) -> str:
        """A cluster's role as its module makes it, without the minutes that the cluster takes: its ARN."""
        folder = self.work_dir / cluster_id
        shutil.copytree(ROOT / "modules" / "cluster", folder)
        variables = json.dumps(cluster_run(self, cluster_id).variables)
        (folder / "terraform.tfvars.json").write_text(variables)
        for command in (["init"], ["apply", "-auto-approve", "-target=aws_iam_role_policy.this"]):
            done = subprocess.run(
                ["terraform", *command, "-input=false", "-no-color"],
                cwd=folder,
                env={**os.environ, **terraform_environment(self.work_dir)},
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        return str(boto3.client("iam").get_role(RoleName=cluster_id)["Role"]["Arn"])

    def doom(self, run: StackRun) -> None:
        for name in secrets_of(run):
            boto3.client("secretsmanager").delete_secret(SecretId=name, RecoveryWindowInDays=7)

    def newer(self) -> Terraform:
        carries = Path(shutil.copytree(ROOT, self.work_dir / new_id("newer-")))
        module = carries / "modules" / "placements" / "main.tf"
        text = module.read_text()
        about = "The application's database login of"
        assert about in text
        module.write_text(text.replace(about, f"{about} {new_id('')}"))
        return self.runner(carries=carries)

    def inventory(self) -> Inventory:
        return AwsInventory(region=REGION, bucket=BUCKET)

    def damage(self, release: str, *, lose: bool) -> None:
        if lose:
            self.s3.delete_object(Bucket=BUCKET, Key=archive.key_of(release))
        else:
            self.s3.put_object(Bucket=BUCKET, Key=archive.key_of(release), Body=b"something else")

    def _make_platform(self) -> dict[str, Any]:
        """Once an account; a second fixture finds what the first one made."""
        ec2, iam = boto3.client("ec2"), boto3.client("iam")
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        groups = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["app"]}])
        if not groups["SecurityGroups"]:
            self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
            ec2.create_security_group(GroupName="app", Description="the application", VpcId=vpc)
            trust = {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}}
            trust |= {"Action": "sts:AssumeRole"}
            document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
            iam.create_role(RoleName="app-task", AssumeRolePolicyDocument=document)
            may = json.dumps(ASSUME_CLUSTER_ROLES)
            iam.put_role_policy(RoleName="app-task", PolicyName="assume", PolicyDocument=may)
            iam.create_policy(PolicyName="tenant-boundary", PolicyDocument=json.dumps(BOUNDARY))
            groups = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["app"]}])
        role = iam.get_role(RoleName="app-task")["Role"]["Arn"]
        return {
            "app_role_arn": role,
            "permissions_boundary_arn": role.replace(":role/app-task", ":policy/tenant-boundary"),
            "vpc_id": vpc,
            "subnet_ids": [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"]][:2],
            "allowed_security_group_ids": [groups["SecurityGroups"][0]["GroupId"]],
        }


def state_key(run: StackRun) -> str:
    return f"{PREFIXES[run.stack]}/{run.workspace}/terraform.tfstate"
