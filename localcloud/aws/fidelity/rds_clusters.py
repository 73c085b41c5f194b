"""Creating, changing and deleting RDS clusters and instances: what AWS refuses, and how long it takes."""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.moto_api._internal import mock_random
from moto.rds.exceptions import (
    DBClusterNotFoundError,
    DBClusterSnapshotAlreadyExistsError,
    InvalidParameterCombination,
    InvalidParameterValue,
    RDSClientError,
    SnapshotQuotaExceededFault,
)
from moto.rds.models import DBCluster, DBInstance, RDSBackend
from moto.rds.responses import RDSResponse

from controlplane.localcloud.aws.fidelity.patch import around, put
from controlplane.localcloud.aws.settings import EmulatorSettings

IDENTIFIER = re.compile(r"(?=.{1,63}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", re.IGNORECASE)
RESOURCE_ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def repair(settings: EmulatorSettings) -> None:
    _creation(settings)
    _modification()
    _deletion()
    _instances(settings)
    _snapshots(settings)
    _duration(settings)


def _creation(settings: EmulatorSettings) -> None:
    @around(RDSBackend, "create_db_cluster")
    def refuses(create: Callable[..., DBCluster], self: Any, kwargs: Any) -> DBCluster:
        """AWS (API Reference, CreateDBCluster): an identifier is 1 to 63 letters, digits and
        hyphens, begins with a letter, has no two hyphens in a row and none at its end; an existing
        one is DBClusterAlreadyExistsFault; past the quota DBClusterQuotaExceededFault.
        moto: takes any identifier, *replaces* an existing cluster, and has no quota."""
        identifier = kwargs["db_cluster_identifier"]
        if not IDENTIFIER.fullmatch(identifier):
            raise InvalidParameterValue(
                "The parameter DBClusterIdentifier is not a valid identifier. Identifiers must begin with "
                "a letter; must contain only ASCII letters, digits, and hyphens; and must not end with a "
                "hyphen or contain two consecutive hyphens."
            )
        if identifier.lower() in self.clusters:
            raise RDSClientError("DBClusterAlreadyExistsFault", "DB Cluster already exists")
        if len(self.clusters) >= settings.rds_cluster_quota:
            raise RDSClientError(
                "DBClusterQuotaExceededFault", "You can't create more DB clusters: the quota is used up."
            )
        kwargs["db_cluster_identifier"] = identifier.lower()
        return create(self, kwargs)


def _modification() -> None:
    @around(RDSBackend, "modify_db_cluster")
    def keeps_what_it_refuses(modify: Callable[..., DBCluster], self: Any, kwargs: Any) -> DBCluster:
        """AWS: DBClusterNotFoundFault for an unknown cluster; a refused change changes nothing.
        moto: KeyError (500), and a cluster whose change is refused is gone from the account."""
        identifier = kwargs["db_cluster_identifier"]
        cluster = self.clusters.get(identifier)
        if cluster is None:
            raise DBClusterNotFoundError(identifier)
        try:
            return modify(self, kwargs)
        except RDSClientError:
            self.clusters[identifier] = cluster
            raise


def _deletion() -> None:
    @around(RDSResponse, "delete_db_cluster")
    def asks_for_a_snapshot(delete: Callable[..., Any], self: Any) -> Any:
        """AWS: needs FinalDBSnapshotIdentifier or SkipFinalSnapshot, and not both (API Reference,
        DeleteDBCluster). moto: deletes."""
        name, skip = self.params.get("FinalDBSnapshotIdentifier"), self.params.get("SkipFinalSnapshot")
        if not name and not skip:
            raise InvalidParameterCombination(
                "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified."
            )
        if name and skip:
            raise InvalidParameterCombination(
                "FinalDBSnapshotIdentifier can not be specified together with SkipFinalSnapshot."
            )
        if name:
            self.backend.validate_db_snapshot_identifier(name, parameter_name="FinalDBSnapshotIdentifier")
        return delete(self)

    @around(RDSBackend, "delete_db_cluster")
    def is_whole(
        delete: Callable[..., DBCluster],
        self: Any,
        cluster_identifier: str,
        snapshot_name: str | None = None,
    ) -> DBCluster:
        """AWS: refuses before it changes anything, and takes the automated snapshots away with the
        cluster (API Reference, DeleteDBCluster, DeleteAutomatedBackups). moto: deletes the master
        secret, then finds that the final snapshot's name is taken; and keeps automated snapshots,
        whose names then refuse a new cluster of the same name for the rest of the minute."""
        if snapshot_name and cluster_identifier in self.clusters:
            if snapshot_name in self.cluster_snapshots:
                raise DBClusterSnapshotAlreadyExistsError(snapshot_name)
            if len(self.cluster_snapshots) >= self.SNAPSHOT_QUOTA:
                raise SnapshotQuotaExceededFault
        cluster = delete(self, cluster_identifier, snapshot_name)
        for name, snapshot in list(self.cluster_snapshots.items()):
            ours = snapshot.db_cluster_identifier == cluster.resource_id
            if ours and snapshot.snapshot_type == "automated":
                del self.cluster_snapshots[name]
        return cluster


def _instances(settings: EmulatorSettings) -> None:
    @around(RDSBackend, "create_db_instance")
    def has_a_quota_and_an_id(create: Callable[..., DBInstance], self: Any, db_kwargs: Any) -> DBInstance:
        """AWS: InstanceQuotaExceeded past the quota (API Reference, CreateDBInstance), and each
        instance has a DbiResourceId of its own. moto: has no quota, and one id for all."""
        if len(self.databases) >= settings.rds_instance_quota:
            raise RDSClientError(
                "InstanceQuotaExceeded", "You can't create more DB instances: the quota is used up."
            )
        instance = create(self, db_kwargs)
        instance.dbi_resource_id = "db-" + "".join(
            mock_random.choice(RESOURCE_ID_CHARACTERS) for _ in range(26)
        )
        return instance


def _snapshots(settings: EmulatorSettings) -> None:
    def quota(self: RDSBackend) -> int:
        """AWS: 100 *manual* cluster snapshots (Aurora User Guide, "Quotas in Amazon Aurora").
        moto: 1000, compared with the number of all; so the automated ones are added here."""
        automated = sum(snapshot.snapshot_type == "automated" for snapshot in self.cluster_snapshots.values())
        return settings.rds_snapshot_quota + automated

    put(RDSBackend, "SNAPSHOT_QUOTA", property(quota))

    @around(RDSResponse, "create_db_cluster_snapshot")
    def has_a_valid_name(create: Callable[..., Any], self: Any) -> Any:
        """AWS: InvalidParameterValue for an identifier that breaks the rules (API Reference,
        CreateDBClusterSnapshot). moto: checks it for instances' snapshots only."""
        self.backend.validate_db_snapshot_identifier(
            self.params["DBClusterSnapshotIdentifier"], parameter_name="DBClusterSnapshotIdentifier"
        )
        return create(self)


def _duration(settings: EmulatorSettings) -> None:
    """AWS: a cluster takes one to three minutes, an instance five to ten; both are "creating" until
    then. moto: a cluster is created at the second look, an instance at once. Here both take
    `rds_create_seconds`; the answer to the creation itself always says "creating", as on AWS."""

    def status(self: Any) -> str:
        if self._status in {"creating", "available"} and time.monotonic() < self.ready_at:
            return "creating"
        return "available" if self._status == "creating" else str(self._status)

    def set_status(self: Any, value: str) -> None:
        self._status = value

    for model in (DBCluster, DBInstance):
        put(model, "status", property(status, set_status))

    @around(RDSBackend, "create_db_cluster")
    @around(RDSBackend, "create_db_instance")
    def begins(create: Callable[..., Any], self: Any, kwargs: Any) -> Any:
        resource = create(self, kwargs)
        resource.ready_at = time.monotonic() + settings.rds_create_seconds
        return resource

    @around(RDSResponse, "create_db_cluster")
    @around(RDSResponse, "create_db_instance")
    @around(RDSResponse, "restore_db_cluster_from_snapshot")
    @around(RDSResponse, "restore_db_cluster_to_point_in_time")
    def answers_creating(create: Callable[..., Any], self: Any) -> ActionResult:
        answer = {}
        for name, resource in create(self).result.items():
            answer[name] = copy.copy(resource)
            answer[name].ready_at = math.inf
        return ActionResult(answer)
