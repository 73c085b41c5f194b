"""A real PostgreSQL follows what happens to an RDS cluster.

AWS runs a database; moto only says that it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any

from moto.rds.exceptions import RDSClientError
from moto.rds.models import DBCluster, DBInstanceClustered, RDSBackend

from controlplane.localcloud.aws.databases import ClusterDatabases
from controlplane.localcloud.aws.fidelity.patch import around
from controlplane.localcloud.aws.fidelity.rds_parameters import logical_replication
from controlplane.localcloud.aws.fidelity.rds_passwords import master_login
from controlplane.localcloud.servers.process import ServiceError

ENGINES = {"aurora-postgresql", "postgres"}


def repair(databases: ClusterDatabases) -> None:
    _compute(databases)
    _changes(databases)
    _snapshots(databases)


def _endpoints(cluster: Any) -> Iterator[str]:
    yield f"{cluster.endpoint}:{cluster.port}"
    yield f"{cluster.reader_endpoint}:{cluster.port}"
    for instance in cluster.members:
        yield f"{instance.address}:{cluster.port}"


def _compute(databases: ClusterDatabases) -> None:
    """A cluster's server runs while the cluster has an instance and is not stopped."""

    def wake(cluster: Any) -> None:
        databases.open(
            cluster.db_cluster_resource_id,
            master_login(cluster),
            database=cluster.database_name,
            endpoints=_endpoints(cluster),
            logical=logical_replication(cluster),
        )

    @around(RDSBackend, "create_db_instance")
    def first_instance_starts(create: Callable[..., Any], self: Any, db_kwargs: Any) -> Any:
        instance = create(self, db_kwargs)
        if isinstance(instance, DBInstanceClustered) and instance.engine in ENGINES:
            try:
                wake(instance.cluster)
            except Exception:
                del self.databases[instance.db_instance_identifier]  # so that the caller may try again
                raise
        return instance

    @around(RDSBackend, "delete_db_instance")
    def last_instance_stops(delete: Callable[..., Any], self: Any, *arguments: Any, **options: Any) -> Any:
        instance = delete(self, *arguments, **options)
        if isinstance(instance, DBInstanceClustered):
            resource_id = instance.cluster.db_cluster_resource_id
            databases.map(resource_id, _endpoints(instance.cluster))
            if not instance.cluster.members:
                databases.sleep(resource_id)
        return instance

    @around(RDSBackend, "stop_db_cluster")
    def stops(stop: Callable[..., Any], self: Any, cluster_identifier: str) -> Any:
        answer = stop(self, cluster_identifier)
        databases.sleep(self.clusters[cluster_identifier].db_cluster_resource_id)
        return answer

    @around(RDSBackend, "start_db_cluster")
    def starts(start: Callable[..., Any], self: Any, cluster_identifier: str) -> Any:
        answer = start(self, cluster_identifier)
        cluster = self.clusters[cluster_identifier]
        if cluster.engine in ENGINES and cluster.members:
            wake(cluster)
        return answer

    @around(RDSBackend, "reboot_db_instance")
    def restarts(reboot: Callable[..., Any], self: Any, db_instance_identifier: str) -> Any:
        """Which is when static parameters take effect."""
        instance = reboot(self, db_instance_identifier)
        if isinstance(instance, DBInstanceClustered) and instance.engine in ENGINES:
            databases.sleep(instance.cluster.db_cluster_resource_id)
            wake(instance.cluster)
        return instance

    @around(RDSBackend, "delete_db_cluster")
    def goes_with_its_cluster(delete: Callable[..., Any], self: Any, *arguments: Any, **options: Any) -> Any:
        cluster = delete(self, *arguments, **options)
        databases.drop(cluster.db_cluster_resource_id)
        return cluster


def _changes(databases: ClusterDatabases) -> None:
    @around(RDSBackend, "modify_db_cluster")
    def follows(modify: Callable[..., DBCluster], self: Any, kwargs: Any) -> DBCluster:
        """Another master password, or another identifier and with it other endpoints."""
        cluster = self.clusters[kwargs["db_cluster_identifier"]]
        before = master_login(cluster), list(_endpoints(cluster))
        answer = modify(self, kwargs)
        login, endpoints = master_login(cluster), list(_endpoints(cluster))
        if login != before[0]:
            databases.set_master_password(cluster.db_cluster_resource_id, login)
        if endpoints != before[1]:
            databases.map(cluster.db_cluster_resource_id, endpoints)
        return answer


def _snapshots(databases: ClusterDatabases) -> None:
    """The data of a snapshot is a folder, its attribute `data`, which copies of it share."""

    @around(RDSBackend, "create_db_cluster_snapshot")
    def takes_the_data(create: Callable[..., Any], self: Any, *arguments: Any, **options: Any) -> Any:
        snapshot = create(self, *arguments, **options)
        snapshot.data = databases.snapshot(snapshot.cluster.db_cluster_resource_id)
        return snapshot

    @around(RDSBackend, "copy_db_cluster_snapshot")
    def shares_the_data(copy: Callable[..., Any], self: Any, **options: Any) -> Any:
        snapshot = copy(self, **options)
        source = self.get_db_cluster_snapshot(options["source_db_cluster_snapshot_identifier"])
        snapshot.data = source.data
        return snapshot

    @around(RDSBackend, "delete_db_cluster_snapshot")
    def forgets_the_data(delete: Callable[..., Any], self: Any, db_snapshot_identifier: str) -> Any:
        snapshot = delete(self, db_snapshot_identifier)
        shared = any(snapshot.data == other.data for other in self.cluster_snapshots.values())
        if snapshot.data is not None and not shared:
            databases.delete_snapshot(snapshot.data)
        return snapshot

    @around(RDSBackend, "restore_db_cluster_from_snapshot")
    def brings_the_data(restore: Callable[..., Any], self: Any, from_snapshot_id: str, overrides: Any) -> Any:
        cluster = restore(self, from_snapshot_id, overrides)
        snapshot = self.get_db_cluster_snapshot(from_snapshot_id)
        if snapshot.data is not None:
            databases.restore(snapshot.data, cluster.db_cluster_resource_id)
        return cluster

    @around(RDSBackend, "restore_db_cluster_to_point_in_time")
    def has_the_data_of_then(restore: Callable[..., Any], self: Any, **options: Any) -> Any:
        """What the server's log does not hold any more is refused: a cluster with other data than was
        asked for would be worse than none."""
        cluster = restore(self, **options)
        source = self.clusters[options["source_db_cluster_identifier"]]
        ids, at = (
            (source.db_cluster_resource_id, cluster.db_cluster_resource_id),
            options.get("restore_to_time"),
        )
        if at is None:
            databases.clone(*ids)
            return cluster
        try:
            databases.restore_to(ids[0], at if at.tzinfo else at.replace(tzinfo=UTC), ids[1])
        except ServiceError as error:
            del self.clusters[cluster.db_cluster_identifier]
            raise RDSClientError("InvalidRestoreFault", str(error)) from error
        return cluster
