"""A cluster's role and its placements' secrets in the emulated account, without Terraform's seconds.

`tests/terraform/test_access.py` holds both documents to what `modules/cluster` makes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3

from controlplane.localcloud.aws.account import ASSUME_CLUSTER_ROLES, BOUNDARY

APP_ROLE = "access-app-task"
BOUNDARY_NAME = "access-boundary"


def trust(app_role_arn: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Principal": {"AWS": app_role_arn},
                "Condition": {
                    "StringLike": {"aws:RequestTag/placement": "?*"},
                    "ForAllValues:StringEquals": {"aws:TagKeys": ["placement"]},
                },
            }
        ],
    }


def policy(cluster_id: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ReadOwnSecret",
                "Effect": "Allow",
                "Action": ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"],
                "Resource": "arn:aws:secretsmanager:*:*:secret:placements/*/app-??????",
                "Condition": {
                    "StringEquals": {
                        "secretsmanager:ResourceTag/cluster": cluster_id,
                        "secretsmanager:ResourceTag/placement": "${aws:PrincipalTag/placement}",
                    }
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


def app_role() -> str:
    """The application's task role in this account, made at the first call: its ARN."""
    iam = boto3.client("iam")
    if APP_ROLE not in {role["RoleName"] for role in iam.list_roles()["Roles"]}:
        ecs = {"Service": "ecs-tasks.amazonaws.com"}
        allow = {"Effect": "Allow", "Principal": ecs, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        iam.create_role(RoleName=APP_ROLE, AssumeRolePolicyDocument=document)
        iam.put_role_policy(
            RoleName=APP_ROLE, PolicyName="assume", PolicyDocument=json.dumps(ASSUME_CLUSTER_ROLES)
        )
        iam.create_policy(PolicyName=BOUNDARY_NAME, PolicyDocument=json.dumps(BOUNDARY))
    return str(iam.get_role(RoleName=APP_ROLE)["Role"]["Arn"])


def cluster_role(cluster_id: str) -> str:
    """The cluster's role, trusted by `app_role`, made at the first call: its ARN."""
    iam, app = boto3.client("iam"), app_role()
    arn = app.replace(f":role/{APP_ROLE}", f":role/{cluster_id}")
    if arn in {role["Arn"] for role in iam.list_roles()["Roles"]}:
        return arn
    iam.create_role(
        RoleName=cluster_id,
        AssumeRolePolicyDocument=json.dumps(trust(app)),
        PermissionsBoundary=app.replace(f":role/{APP_ROLE}", f":policy/{BOUNDARY_NAME}"),
    )
    iam.put_role_policy(
        RoleName=cluster_id, PolicyName="read-own-secret", PolicyDocument=json.dumps(policy(cluster_id))
    )
    return arn


def placement_of(tenant_id: str) -> str:
    """The id of a tenant's placement in tests without a registry."""
    return "p-" + tenant_id.removeprefix("t-")


def tenant_secret(tenant_id: str, cluster_id: str, value: str) -> str:
    """The secret of a placement as `modules/placements` tags it: its ARN."""
    tags = {"placement": placement_of(tenant_id), "cluster": cluster_id}
    made = boto3.client("secretsmanager").create_secret(
        Name=f"placements/{placement_of(tenant_id)}/app",
        SecretString=value,
        Tags=[{"Key": key, "Value": tags[key]} for key in tags],
    )
    return str(made["ARN"])


def as_app() -> Callable[..., boto3.session.Session]:
    """`SecretsManagerCredentials(session=…)` of a process that runs as `app_role`."""
    return session_as(app_role())


def session_as(role_arn: str) -> Callable[..., boto3.session.Session]:
    """Sessions of boto3 as this role, or as whoever a `botocore_session` says."""
    keys = boto3.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="task")["Credentials"]

    def session(*, botocore_session: Any = None) -> boto3.session.Session:
        if botocore_session is not None:
            return boto3.session.Session(botocore_session=botocore_session)
        return boto3.session.Session(
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
        )

    return session
