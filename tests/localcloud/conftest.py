"""An emulated account for the tests of the emulator itself, which turn its quotas and its clock."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import psycopg
import pytest
from botocore.exceptions import ClientError

from controlplane.localcloud.aws.emulator import REGION, AwsEmulator

POSTGRES = "aurora-postgresql"


@dataclass(frozen=True)
class EmulatedAws:
    emulator: AwsEmulator
    rds: Any
    secrets: Any

    def client(self, service: str, **credentials: str) -> Any:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"} | credentials
        return boto3.client(service, region_name=REGION, endpoint_url=self.emulator.url, **keys)

    def settings(self, **values: float) -> dict[str, Any]:
        request = Request(
            f"{self.emulator.url}/_localcloud/settings",
            data=json.dumps(values).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=10) as answer:
            changed: dict[str, Any] = json.load(answer)
            return changed

    @property
    def endpoints(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.emulator.endpoint_map.read_text())
        return found

    def create_cluster(self, name: str, **options: Any) -> dict[str, Any]:
        usual: dict[str, Any] = {"Engine": POSTGRES, "MasterUsername": "platform"}
        if "MasterUserPassword" not in options:
            usual["ManageMasterUserPassword"] = True
        made = self.rds.create_db_cluster(DBClusterIdentifier=name, **(usual | options))
        cluster: dict[str, Any] = made["DBCluster"]
        return cluster

    def create_instance(self, cluster: str, number: int = 1) -> dict[str, Any]:
        made = self.rds.create_db_instance(
            DBInstanceIdentifier=f"{cluster}-{number}",
            DBClusterIdentifier=cluster,
            DBInstanceClass="db.serverless",
            Engine=POSTGRES,
        )
        instance: dict[str, Any] = made["DBInstance"]
        return instance

    def describe(self, cluster: str) -> dict[str, Any]:
        found: dict[str, Any] = self.rds.describe_db_clusters(DBClusterIdentifier=cluster)["DBClusters"][0]
        return found

    def delete(self, cluster: str, final_snapshot: str | None = None) -> None:
        """The instances first, as Terraform does."""
        for member in self.describe(cluster)["DBClusterMembers"]:
            self.rds.delete_db_instance(DBInstanceIdentifier=member["DBInstanceIdentifier"])
        last = (
            {"FinalDBSnapshotIdentifier": final_snapshot} if final_snapshot else {"SkipFinalSnapshot": True}
        )
        self.rds.delete_db_cluster(DBClusterIdentifier=cluster, **last)

    def master(self, cluster: str, **version: str) -> dict[str, str]:
        """What the managed master secret says."""
        arn = self.describe(cluster)["MasterUserSecret"]["SecretArn"]
        value: dict[str, str] = json.loads(
            self.secrets.get_secret_value(SecretId=arn, **version)["SecretString"]
        )
        return value

    def connect(self, cluster: str, login: dict[str, str] | None = None, dbname: str = "postgres") -> Any:
        """Through the endpoint map, by the endpoint's name, as the product does."""
        seen, login = self.describe(cluster), login or self.master(cluster)
        address, port = self.endpoints[f"{seen['Endpoint']}:{seen['Port']}"].split(":")
        return psycopg.connect(
            host=seen["Endpoint"],
            hostaddr=address,
            port=port,
            user=login["username"],
            password=login["password"],
            dbname=dbname,
            autocommit=True,
        )


@pytest.fixture(scope="module")
def account(data_root: Path) -> Iterator[EmulatedAws]:
    with AwsEmulator(data_root / f"aws-{uuid.uuid4().hex}") as emulator:
        aws = EmulatedAws(emulator, None, None)
        yield EmulatedAws(emulator, aws.client("rds"), aws.client("secretsmanager"))


@pytest.fixture
def name(account: EmulatedAws) -> Iterator[str]:
    """A cluster identifier of the test's own; all clusters and snapshots are deleted afterwards."""
    name = f"c-{uuid.uuid4().hex[:12]}"
    yield name
    account.settings(
        rds_create_seconds=0,
        rds_rotation_seconds=0,
        rds_cluster_quota=40,
        rds_instance_quota=40,
        rds_snapshot_quota=100,
    )
    for cluster in account.rds.describe_db_clusters()["DBClusters"]:
        account.rds.modify_db_cluster(
            DBClusterIdentifier=cluster["DBClusterIdentifier"], DeletionProtection=False
        )
        account.delete(cluster["DBClusterIdentifier"])
    for snapshot in account.rds.describe_db_cluster_snapshots()["DBClusterSnapshots"]:
        account.rds.delete_db_cluster_snapshot(
            DBClusterSnapshotIdentifier=snapshot["DBClusterSnapshotIdentifier"]
        )


@contextmanager
def refused(code: str, message: str = "") -> Iterator[None]:
    """The call inside is refused with this very code."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    assert message in error["Message"]
