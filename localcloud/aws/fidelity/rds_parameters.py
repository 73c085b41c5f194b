"""DB cluster parameter groups: who has one, and the one parameter that the servers here follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.rds.exceptions import DBClusterParameterGroupNotFoundError
from moto.rds.models import RDSBackend

from controlplane.localcloud.aws.fidelity.patch import around


def logical_replication(cluster: Any) -> bool:
    """AWS: `rds.logical_replication` is 0 unless the cluster's group says 1, and `wal_level` follows it when
    the writer starts (Aurora User Guide, "Setting up logical replication for your Aurora PostgreSQL DB
    cluster"). moto: keeps a group's parameters and does nothing with them."""
    group = cluster.backend.db_cluster_parameter_groups.get(cluster.parameter_group)
    return group is not None and group.parameters["rds.logical_replication"].get("ParameterValue") == "1"


def repair() -> None:
    @around(RDSBackend, "create_db_cluster")
    def needs_its_group(create: Callable[..., Any], self: Any, kwargs: Any) -> Any:
        _require(self, kwargs.get("db_cluster_parameter_group_name"))
        return create(self, kwargs)

    @around(RDSBackend, "modify_db_cluster")
    def changes_to_one_that_is_there(modify: Callable[..., Any], self: Any, kwargs: Any) -> Any:
        _require(self, kwargs.get("db_cluster_parameter_group_name"))
        return modify(self, kwargs)


def _require(backend: Any, name: str | None) -> None:
    """AWS: DBClusterParameterGroupNotFound (API Reference, CreateDBCluster, ModifyDBCluster, Errors).
    moto: takes any name."""
    if name and not name.startswith("default.") and name not in backend.db_cluster_parameter_groups:
        raise DBClusterParameterGroupNotFoundError(name)
