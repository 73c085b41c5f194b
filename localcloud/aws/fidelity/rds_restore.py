"""Restored clusters, as far as the account sees them; their data is `rds_databases`' job."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.rds.exceptions import InvalidParameterValue
from moto.rds.models import DBCluster, RDSBackend

from controlplane.localcloud.aws.fidelity.patch import around


def repair() -> None:
    """AWS: a restored cluster keeps the master user and the password that are in the data, managed
    by nobody until ModifyDBCluster says so (the restore calls have no such parameter), and has no
    deletion protection unless asked for (API Reference, RestoreDBClusterFromSnapshot).
    moto: fails with a KeyError (500) if the password was managed, and copies the protection."""

    @around(DBCluster, "get_cfg")
    def leaves_the_password_out(get_cfg: Callable[..., dict[str, Any]], self: Any) -> dict[str, Any]:
        source = copy.copy(self)
        source._master_user_password = secrets.token_urlsafe(24)
        return get_cfg(source) | _unprotected()

    @around(RDSBackend, "restore_db_cluster_from_snapshot")
    def from_snapshot(restore: Callable[..., Any], self: Any, from_snapshot_id: str, overrides: Any) -> Any:
        return _with_unknown_password(restore(self, from_snapshot_id, {**overrides, **_encrypted(overrides)}))

    @around(RDSBackend, "restore_db_cluster_to_point_in_time")
    def to_point_in_time(restore: Callable[..., Any], self: Any, **options: Any) -> Any:
        _require_restorable(self, options)
        placeholder = secrets.token_urlsafe(24)
        defaults = _unprotected() | {"master_user_password": placeholder} | _encrypted(options)
        return _with_unknown_password(restore(self, **(defaults | options)))


def _require_restorable(backend: Any, options: dict[str, Any]) -> None:
    """AWS: a moment before the source's EarliestRestorableTime or after its LatestRestorableTime is refused
    (API Reference, RestoreDBClusterToPointInTime). moto: takes any."""
    at = options.get("restore_to_time")
    source = backend.clusters.get(options["source_db_cluster_identifier"])
    if at is None or source is None:
        return
    earliest, latest, moment = map(
        _naive, (source.earliest_restorable_time, source.latest_restorable_time, at)
    )
    if not earliest <= moment <= latest:
        raise InvalidParameterValue(
            f"The specified restore time {at} is not within the restorable window of the source cluster."
        )


def _naive(at: datetime) -> datetime:
    return at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)


def _unprotected() -> dict[str, Any]:
    return {"manage_master_user_password": False, "deletion_protection": False}


def _encrypted(options: dict[str, Any]) -> dict[str, Any]:
    """AWS: with a KMS key the restored cluster is encrypted, also where its source is not (API Reference,
    RestoreDBClusterFromSnapshot, KmsKeyId). moto: copies the source's."""
    return {"storage_encrypted": True} if options.get("kms_key_id") else {}


def _with_unknown_password(cluster: Any) -> Any:
    cluster._master_user_password = None
    return cluster
