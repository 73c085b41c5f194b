"""Keys that a killed run made and nothing uses.

A KMS key has no name, so a run that dies between making the key and its alias may leave one behind
that the next run does not find at once (tags reach the tagging API with a delay). Such a stray costs
money and is named; it is scheduled for deletion only if all of this is certain: it carries this
cluster's tags, it was made while one of the recorded, dead runs was at work, and neither the cluster,
its instances, its master's secret, any of its snapshots nor the alias uses it. The deletion takes 30
days, in which anyone can cancel it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.workers.providers import aws
from controlplane.workers.providers.ports import ResourceEvent, StackRun
from controlplane.workers.providers.terraform.inventory import AwsAccount, ClusterInventory
from controlplane.workers.providers.terraform.locks import SKEW

_WINDOW_DAYS = 30


def clear(run: StackRun, account: AwsAccount, on_event: Callable[[ResourceEvent], None]) -> None:
    """Report this cluster's stray keys, schedule the deletion of those that are certainly unused."""
    inventory = ClusterInventory(account, run.variables)
    cluster = inventory.described
    if cluster is None:
        return
    strays = [key for key in inventory.tagged_keys() if key != _id(cluster["KmsKeyId"])]
    if not strays:
        return
    used = _used(account, run.variables["cluster_id"], cluster)
    for key in strays:
        certain = key not in used and _made_by_a_dead_run(account, key, run)
        if certain:
            with aws.errors(f"scheduling the deletion of key {key}"):
                account.client("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=_WINDOW_DAYS)
        on_event(
            ResourceEvent(
                kind="recovered",
                address=inventory.key,
                action="schedule-deletion" if certain else "report",
                seconds=None,
                message=f"key {key} carries the cluster's tags and is not its key",
            )
        )


def _used(account: AwsAccount, cluster_id: str, cluster: dict[str, Any]) -> set[str]:
    rds, kms = account.client("rds"), account.client("kms")
    with aws.errors(f"looking for what uses the keys of cluster {cluster_id}"):
        of_cluster = [{"Name": "db-cluster-id", "Values": [cluster_id]}]
        instances = rds.describe_db_instances(Filters=of_cluster)["DBInstances"]
        pages = rds.get_paginator("describe_db_cluster_snapshots").paginate(DBClusterIdentifier=cluster_id)
        snapshots = [snapshot for page in pages for snapshot in page["DBClusterSnapshots"]]
        alias = kms.describe_key(KeyId=f"alias/{cluster_id}")["KeyMetadata"]["KeyId"]
    keys = [
        cluster["KmsKeyId"],
        (cluster.get("MasterUserSecret") or {}).get("KmsKeyId"),
        alias,
        *(snapshot.get("KmsKeyId") for snapshot in snapshots),
        *(
            instance.get(name)
            for instance in instances
            for name in ("KmsKeyId", "PerformanceInsightsKMSKeyId")
        ),
    ]
    return {_id(key) for key in keys if key}


def _made_by_a_dead_run(account: AwsAccount, key: str, run: StackRun) -> bool:
    with aws.errors(f"describing key {key}"):
        made = account.client("kms").describe_key(KeyId=key)["KeyMetadata"]["CreationDate"]
    return any(made >= prior.started_at - SKEW for prior in run.prior_runs)


def _id(key: str) -> str:
    return key.rsplit("/", 1)[-1]
