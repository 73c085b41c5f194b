"""Aurora clusters as RDS describes them. Terraform makes and changes them; this only looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from controlplane.workers.providers import aws
from controlplane.workers.providers.ports import Activity, ClusterDescription, ClusterEndpoint

RECENT = timedelta(seconds=240)
"""One point a minute arrives a minute or two late; a cluster pauses after 300 seconds at the earliest."""


class AwsClusters:
    """`ports.Clusters` on Amazon RDS."""

    def __init__(self, *, region: str) -> None:
        self._client = aws.client("rds", region=region)
        self._metrics = aws.client("cloudwatch", region=region)

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

    def activity(self, cluster_id: str) -> Activity | None:
        """RDS calls a paused cluster "available"; its metrics tell (Aurora User Guide, "Amazon CloudWatch
        metrics for Amazon Aurora"). Needs `cloudwatch:GetMetricData`."""
        now = datetime.now(UTC)
        with aws.errors(f"reading the metrics of cluster {cluster_id}"):
            try:
                found = self._metrics.get_metric_data(
                    MetricDataQueries=[
                        _newest("acu", "ServerlessDatabaseCapacity", cluster_id),
                        _newest("connections", "DatabaseConnections", cluster_id),
                    ],
                    StartTime=now - RECENT,
                    EndTime=now,
                    ScanBy="TimestampDescending",
                )["MetricDataResults"]
            except ClientError as error:
                if aws.code(error).startswith("AccessDenied"):
                    return None
                raise
        newest = {series["Id"]: float(series["Values"][0]) for series in found if series["Values"]}
        return Activity(newest["acu"], newest.get("connections", 0.0)) if "acu" in newest else None

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


def _newest(name: str, metric: str, cluster_id: str) -> dict[str, Any]:
    dimensions = [{"Name": "DBClusterIdentifier", "Value": cluster_id}]
    what = {"Namespace": "AWS/RDS", "MetricName": metric, "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": what, "Period": 60, "Stat": "Average"}}


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
