"""The ledger of an acceptance run: what the registry says there is against what AWS has (I2, I5)."""

from __future__ import annotations

import json
from typing import Any

import boto3

from controlplane.cli.demo.house import DemoHouse
from controlplane.domain.placement import Placement


def violations(house: DemoHouse) -> list[str]:
    """In words; empty where every resource has its row and every row its resources."""
    environment = house.environment()
    with house.registry.connection() as conn:
        placements = [
            Placement(row["tenant_id"], row["number"], row["cluster_id"])
            for row in conn.execute("SELECT tenant_id, number, cluster_id FROM placement").fetchall()
        ]
        clusters = {row["id"] for row in conn.execute("SELECT id FROM cluster").fetchall()}
    aws = _Account(environment)
    expected = {
        "cluster": clusters,
        "instance": {f"{cluster}-1" for cluster in clusters},
        "role": {p.iam_role for p in placements},
        "secret": {name for p in placements for name in (p.app_secret, p.migrator_secret)},
        "state": {p.workspace for p in placements} | clusters,
        "key": clusters,
    }
    found: list[str] = []
    for kind, names in expected.items():
        there = getattr(aws, f"{kind}s")()
        found += [f"{kind} {name} is missing" for name in sorted(names - set(there))]
        found += [f"{kind} {name} is an orphan" for name in sorted(set(there) - names)]
        found += [
            f"{kind} {name} exists {there.count(name)} times" for name in set(there) if there.count(name) > 1
        ]
    return found + [f"lock {key} is still held" for key in aws.locks()]


class _Account:
    """Names of what is in the emulated account that looks like ours."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._session = boto3.Session(
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_REGION"],
        )
        self._endpoint = environment["AWS_ENDPOINT_URL"]
        self._bucket = environment["CONTROLPLANE_TERRAFORM_STATE_BUCKET"]

    def clusters(self) -> list[str]:
        return [c["DBClusterIdentifier"] for c in self._all("rds", "describe_db_clusters", "DBClusters")]

    def instances(self) -> list[str]:
        return [i["DBInstanceIdentifier"] for i in self._all("rds", "describe_db_instances", "DBInstances")]

    def roles(self) -> list[str]:
        names = [role["RoleName"] for role in self._all("iam", "list_roles", "Roles")]
        return [name for name in names if name.startswith("t-")]

    def secrets(self) -> list[str]:
        names = [secret["Name"] for secret in self._all("secretsmanager", "list_secrets", "SecretList")]
        return [name for name in names if name.startswith("tenants/")]

    def keys(self) -> list[str]:
        """The cluster that each of our live KMS keys is tagged with."""
        kms = self.client("kms")
        tagged = []
        for key in self._all("kms", "list_keys", "Keys"):
            described = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
            tags = {t["TagKey"]: t["TagValue"] for t in kms.list_resource_tags(KeyId=key["KeyId"])["Tags"]}
            if "cluster" in tags and described["KeyState"] == "Enabled":
                tagged.append(tags["cluster"])
        return tagged

    def states(self) -> list[str]:
        """The workspaces that have a state with resources in it."""
        return [key.split("/")[1] for key, body in self._objects(".tfstate") if json.loads(body)["resources"]]

    def locks(self) -> list[str]:
        return [key for key, _ in self._objects(".tflock")]

    def state_files(self) -> dict[str, bytes]:
        return dict(self._objects(""))

    def _objects(self, ending: str) -> list[tuple[str, bytes]]:
        s3 = self.client("s3")
        keys = [o["Key"] for o in self._all("s3", "list_objects_v2", "Contents", Bucket=self._bucket)]
        return [
            (key, s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())
            for key in keys
            if key.endswith(ending)
        ]

    def _all(self, service: str, operation: str, field: str, **arguments: Any) -> list[dict[str, Any]]:
        pages = self.client(service).get_paginator(operation).paginate(**arguments)
        return [item for page in pages for item in page.get(field, [])]

    def client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self._endpoint)


def account(house: DemoHouse) -> _Account:
    return _Account(house.environment())
