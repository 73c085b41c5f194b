"""What an AWS account holds before the control plane comes to it.

In production the operator's own Terraform makes these and the settings name them; an emulated account
is empty, so they are made here, by the same API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

STATE_BUCKET = "controlplane-terraform-state"
COPY_BUCKET = "controlplane-copies"
PARAMETER_GROUP = "controlplane-logical"

# As docs/access.md gives them to the operator.
BOUNDARY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "ReadWhatBearsTheSessionsTag",
            "Effect": "Allow",
            "Action": ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"],
            "Resource": "arn:aws:secretsmanager:*:*:secret:placements/*",
            "Condition": {
                "StringEquals": {"secretsmanager:ResourceTag/placement": "${aws:PrincipalTag/placement}"}
            },
        },
        {
            "Sid": "DecryptThroughSecretsManager",
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Resource": "*",
            "Condition": {"StringLike": {"kms:ViaService": "secretsmanager.*"}},
        },
    ],
}
ASSUME_CLUSTER_ROLES = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "AssumeClusterRoles",
            "Effect": "Allow",
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Resource": "arn:aws:iam::123456789012:role/c-*",
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Account:
    """Names and ids of what is there."""

    state_bucket: str
    copy_bucket: str
    permissions_boundary_arn: str
    app_role_arn: str
    cluster_parameter_group: str
    vpc_id: str
    subnet_ids: tuple[str, ...]
    app_security_group_id: str


def furnish(environ: Mapping[str, str]) -> Account:
    """Make everything in the empty account that `AwsEmulator.environ()` leads to."""
    for bucket in (STATE_BUCKET, COPY_BUCKET):
        _make_bucket(_client("s3", environ), bucket, environ["AWS_REGION"])
    iam, ec2 = _client("iam", environ), _client("ec2", environ)
    vpc_id = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc_id]}])["Subnets"]
    group = ec2.create_security_group(
        GroupName="app", Description="The application and the control plane", VpcId=vpc_id
    )
    return Account(
        state_bucket=STATE_BUCKET,
        copy_bucket=COPY_BUCKET,
        permissions_boundary_arn=_make_boundary(iam),
        app_role_arn=_make_app_role(iam),
        cluster_parameter_group=_make_parameter_group(_client("rds", environ)),
        vpc_id=vpc_id,
        subnet_ids=tuple(sorted(subnet["SubnetId"] for subnet in subnets)),
        app_security_group_id=group["GroupId"],
    )


def _make_bucket(s3: Any, name: str, region: str) -> None:
    """Versioned, so that what was overwritten or deleted can be had back."""
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration=dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        ),
    )


def _make_boundary(iam: Any) -> str:
    """The most that any cluster's role may ever do."""
    policy = iam.create_policy(PolicyName="tenant-boundary", PolicyDocument=json.dumps(BOUNDARY))
    arn: str = policy["Policy"]["Arn"]
    return arn


def _make_app_role(iam: Any) -> str:
    """The role of the application's tasks; each cluster's role trusts it."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "ecs-tasks.amazonaws.com"},
            }
        ],
    }
    role = iam.create_role(RoleName="app-task", AssumeRolePolicyDocument=json.dumps(trust))
    policy = json.dumps(ASSUME_CLUSTER_ROLES)
    iam.put_role_policy(RoleName="app-task", PolicyName="assume-cluster-roles", PolicyDocument=policy)
    arn: str = role["Role"]["Arn"]
    return arn


def session_of(role_arn: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that runs as this role, as ECS would give its task's. The emulator never
    ends the session."""
    granted = _client("sts", environ).assume_role(RoleArn=role_arn, RoleSessionName="task")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": granted["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": granted["SecretAccessKey"],
        "AWS_SESSION_TOKEN": granted["SessionToken"],
    }


def _client(service: str, environ: Mapping[str, str]) -> Any:
    return boto3.client(  # type: ignore[call-overload]  # the stubs know literal names only
        service,
        region_name=environ["AWS_REGION"],
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 3}),
    )


def _make_parameter_group(rds: Any) -> str:
    """With a log that a move can follow; a cluster without it has Aurora's default, which keeps none."""
    rds.create_db_cluster_parameter_group(
        DBClusterParameterGroupName=PARAMETER_GROUP,
        DBParameterGroupFamily="aurora-postgresql17",
        Description="Clusters of the control plane",
    )
    parameter = {
        "ParameterName": "rds.logical_replication",
        "ParameterValue": "1",
        "ApplyMethod": "pending-reboot",
    }
    rds.modify_db_cluster_parameter_group(DBClusterParameterGroupName=PARAMETER_GROUP, Parameters=[parameter])
    return PARAMETER_GROUP
