"""CloudWatch: what RDS measures of a cluster, the only place that tells whether it is paused, and how many
secrets there are, which nothing else counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend, MetricDatum
from moto.core.utils import utcnow
from moto.rds.models import rds_backends
from moto.secretsmanager.models import secretsmanager_backends

from controlplane.localcloud.aws.databases import ClusterDatabases
from controlplane.localcloud.aws.fidelity.patch import around
from controlplane.localcloud.aws.fidelity.rds_parameters import logical_replication
from controlplane.localcloud.aws.settings import EmulatorSettings

SECRETS = "AWS/SecretsManager"
NAMESPACE, CLUSTER = "AWS/RDS", "DBClusterIdentifier"
LATE = timedelta(seconds=60)
LEAST_AT_WORK = 0.5
DEFAULT_PAUSE = 300


def repair(settings: EmulatorSettings, databases: ClusterDatabases) -> None:
    @around(CloudWatchBackend, "get_metric_data")
    def rds_measures(
        get: Callable[..., Any], self: Any, queries: Any, *arguments: Any, **options: Any
    ) -> Any:
        """AWS: ServerlessDatabaseCapacity is 0 while a cluster is paused, and DatabaseConnections leaves out
        AWS's own (Aurora User Guide, "Amazon CloudWatch metrics for Amazon Aurora"). A cluster with
        `MinCapacity` 0 pauses when no client was connected for its time; it doesn't with logical replication
        ("Scaling to Zero ACUs with automatic pause and resume"). ResourceCount is the number of secrets,
        those that wait for their deletion too, as of the last hour; here as of now. moto: neither measures
        anything. A login that is refused wakes nobody here, since PostgreSQL counts sessions, not tries."""
        if any(_metric(query).get("Namespace") == SECRETS for query in queries):
            self.metric_data = [found for found in self.metric_data if found.namespace != SECRETS]
            count = len(secretsmanager_backends[self.account_id][self.region_name].secrets)
            self.metric_data.append(MetricDatum(SECRETS, "ResourceCount", count, [], utcnow() - LATE))
        clusters = rds_backends[self.account_id][self.region_name].clusters
        for name in _asked_for(queries):
            self.metric_data = [found for found in self.metric_data if not _is_of(found, name)]
            if name in clusters:
                self.metric_data += _measured(clusters[name], settings, databases)
        return get(self, queries, *arguments, **options)


def _metric(query: dict[str, Any]) -> dict[str, Any]:
    metric: dict[str, Any] = query.get("MetricStat", {}).get("Metric", {})
    return metric


def _asked_for(queries: Iterable[dict[str, Any]]) -> set[str]:
    metrics = [_metric(query) for query in queries]
    found = [metric.get("Dimensions", []) for metric in metrics if metric.get("Namespace") == NAMESPACE]
    return {each["Value"] for dimensions in found for each in dimensions if each["Name"] == CLUSTER}


def _is_of(found: Any, cluster: str) -> bool:
    return found.namespace == NAMESPACE and [each.value for each in found.dimensions] == [cluster]


def _measured(cluster: Any, settings: EmulatorSettings, databases: ClusterDatabases) -> list[MetricDatum]:
    activity = databases.activity(cluster.db_cluster_resource_id)
    scaling = cluster.serverless_v2_scaling_configuration
    if activity is None or not scaling:
        return []
    connections, idle = activity
    least = float(scaling["MinCapacity"])
    pause = settings.rds_pause_seconds or int(scaling.get("SecondsUntilAutoPause") or DEFAULT_PAUSE)
    paused = least == 0 and not connections and idle >= pause and not logical_replication(cluster)
    values = {
        "ServerlessDatabaseCapacity": 0.0 if paused else max(least, LEAST_AT_WORK),
        "DatabaseConnections": float(connections),
    }
    dimensions = [{"Name": CLUSTER, "Value": cluster.db_cluster_identifier}]
    return [
        MetricDatum(NAMESPACE, name, value, dimensions, utcnow() - LATE) for name, value in values.items()
    ]
