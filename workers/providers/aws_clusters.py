"""Aurora clusters as RDS describes them. Terraform makes and changes them; this only looks."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from controlplane.workers.providers import aws
from controlplane.workers.providers.ports import ClusterDescription, ClusterEndpoint


class AwsClusters:
    """`ports.Clusters` on Amazon RDS."""

    def __init__(self, *, region: str) -> None:
        self._client = aws.client("rds", region=region)

    def describe(self, cluster_id: str) -> ClusterDescription | None:
        with aws.errors(f"describing cluster {cluster_id}"):
            try:
                cluster = self._client.describe_db_clusters(DBClusterIdentifier=cluster_id)["DBClusters"][0]
            except ClientError as error:
                if aws.code(error) == "DBClusterNotFoundFault":
                    return None
                raise
        return ClusterDescription(
            status=cluster["Status"],
            writer_status=self._writer_status(cluster),
            endpoint=endpoint_of(cluster),
            earliest_restorable=cluster.get("EarliestRestorableTime"),
            latest_restorable=cluster.get("LatestRestorableTime"),
        )

    def _writer_status(self, cluster: dict[str, Any]) -> str | None:
        members = cluster.get("DBClusterMembers", [])
        writer = next((m["DBInstanceIdentifier"] for m in members if m.get("IsClusterWriter")), None)
        if writer is None:
            return None
        with aws.errors(f"describing instance {writer}"):
            try:
                found = self._client.describe_db_instances(DBInstanceIdentifier=writer)["DBInstances"]
            except ClientError as error:
                if aws.code(error) in {"DBInstanceNotFound", "DBInstanceNotFoundFault"}:
                    return None
                raise
        return str(found[0]["DBInstanceStatus"])


def endpoint_of(cluster: dict[str, Any]) -> ClusterEndpoint | None:
    """None until RDS has given the cluster a host name, and a secret to its master."""
    host, secret = cluster.get("Endpoint"), (cluster.get("MasterUserSecret") or {}).get("SecretArn")
    if not host or not secret:
        return None
    return ClusterEndpoint(
        host=host,
        port=int(cluster.get("Port") or 5432),
        master_secret_arn=secret,
        resource_id=cluster.get("DbClusterResourceId", ""),
    )
