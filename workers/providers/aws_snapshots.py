"""Manual snapshots of Aurora clusters, by names that the caller has recorded before.

A snapshot is begun and never waited for: it takes minutes, and whoever asks comes again. Asking for one
that is there adopts it, if it is of this cluster and carries our tags, so a worker that died behind the
call costs nothing. (Amazon RDS API Reference, "CreateDBClusterSnapshot", "DescribeDBClusterSnapshots".)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from controlplane.domain.errors import Pending
from controlplane.workers.providers import aws
from controlplane.workers.providers.ports import SnapshotDescription
from controlplane.workers.providers.terraform.inventory.account import MANAGED_BY, pairs, require


class AwsSnapshots:
    """`ports.Snapshots` on Amazon RDS."""

    def __init__(self, *, region: str) -> None:
        self._client = aws.client("rds", region=region)

    def describe(self, name: str) -> SnapshotDescription | None:
        observed = self._find(name)
        if observed is None:
            return None
        return SnapshotDescription(
            name=name,
            cluster_id=str(observed["DBClusterIdentifier"]),
            status=str(observed["Status"]),
            taken_at=observed.get("SnapshotCreateTime"),
        )

    def ensure(self, cluster_id: str, name: str, *, tags: Mapping[str, str]) -> str:
        observed = self._find(name)
        if observed is None:
            self._begin(cluster_id, name, tags)
            observed = self._find(name)
            if observed is None:
                raise Pending(f"snapshot {name} was begun and is not listed yet", after=5)
        require(
            f"snapshot {name}",
            pairs(observed.get("TagList", [])),
            {"managed_by": MANAGED_BY, "cluster": cluster_id},
        )
        return str(observed["Status"])

    def delete(self, name: str) -> None:
        observed = self._find(name)
        if observed is None or observed["Status"] == "deleting":
            return
        require(f"snapshot {name}", pairs(observed.get("TagList", [])), {"managed_by": MANAGED_BY})
        with aws.errors(f"deleting snapshot {name}"):
            try:
                self._client.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)
            except ClientError as error:
                if aws.code(error) != "DBClusterSnapshotNotFoundFault":
                    raise

    def _begin(self, cluster_id: str, name: str, tags: Mapping[str, str]) -> None:
        listed = [{"Key": key, "Value": value} for key, value in {**tags, "managed_by": MANAGED_BY}.items()]
        with aws.errors(f"beginning snapshot {name}"):
            try:
                self._client.create_db_cluster_snapshot(
                    DBClusterIdentifier=cluster_id, DBClusterSnapshotIdentifier=name, Tags=listed
                )
            except ClientError as error:
                if aws.code(error) != "DBClusterSnapshotAlreadyExistsFault":
                    raise

    def _find(self, name: str) -> dict[str, Any] | None:
        with aws.errors(f"describing snapshot {name}"):
            try:
                found = self._client.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)
            except ClientError as error:
                if aws.code(error) == "DBClusterSnapshotNotFoundFault":
                    return None
                raise
        snapshots: list[dict[str, Any]] = found["DBClusterSnapshots"]
        return snapshots[0] if snapshots else None
