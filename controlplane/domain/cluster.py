"""A cluster: one Aurora Serverless v2 cluster, a resource of its own with slots for tenants.

A dedicated plan's tenant has a cluster with one slot, so that the wall between it and everybody else
is the cluster itself; shared plans fill the slots of shared clusters. Clusters converge in the same
engine as tenants, with their own steps, which is what lets them be made ahead of demand.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from controlplane.domain.catalogue import Isolation, Plan


class ClusterLifecycle(StrEnum):
    ACTIVE = "active"
    CLOSED = "closed"


LEAST_ACU = 0.5
"""Of a cluster that never pauses."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a cluster is made from instead of nothing: `cluster_id` as it was `at` a moment (UTC, RFC 3339),
    or a `snapshot` of it."""

    cluster_id: str
    at: str | None = None
    snapshot: str | None = None

    def to_json(self) -> dict[str, str]:
        given = {"cluster_id": self.cluster_id, "at": self.at, "snapshot": self.snapshot}
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Capacities are in ACU; `seconds_until_auto_pause` is None where the cluster never pauses. `origin`:
    only of a restored one, which nobody is placed on. `subnet_group`: the shared one that it was made in,
    None for one of its own or before it is made; RDS moves no cluster to another."""

    lifecycle: ClusterLifecycle
    isolation: Isolation
    engine_version: str
    min_acu: float
    max_acu: float
    seconds_until_auto_pause: int | None
    backup_retention_days: int
    instance_count: int
    origin: Origin | None = None
    subnet_group: str | None = None

    @classmethod
    def for_plan(cls, plan: Plan, *, engine_version: str) -> ClusterSpec:
        return cls(
            lifecycle=ClusterLifecycle.ACTIVE,
            isolation=plan.isolation,
            engine_version=engine_version,
            min_acu=plan.min_acu,
            max_acu=plan.max_acu,
            seconds_until_auto_pause=plan.seconds_until_auto_pause,
            backup_retention_days=plan.backup_retention_days,
            instance_count=plan.instance_count,
        )

    def closed(self) -> ClusterSpec:
        return replace(self, lifecycle=ClusterLifecycle.CLOSED)

    def restored(self, origin: Origin) -> ClusterSpec:
        """A cluster of this kind to read rows from, for some hours: one instance, awake, hardly backed up."""
        return replace(
            self,
            lifecycle=ClusterLifecycle.ACTIVE,
            min_acu=max(self.min_acu, LEAST_ACU),
            seconds_until_auto_pause=None,
            backup_retention_days=1,
            instance_count=1,
            origin=origin,
        )

    @property
    def cluster_class(self) -> str:
        """Which clusters may serve the same plans: equal for equal isolation, capacity and retention. A
        restored one serves none."""
        parts = [self.isolation.value, self.min_acu, self.max_acu, self.seconds_until_auto_pause]
        parts += [self.backup_retention_days, self.instance_count]
        parts += [] if self.origin is None else [json.dumps(self.origin.to_json())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            "lifecycle": self.lifecycle.value,
            "isolation": self.isolation.value,
            "engine_version": self.engine_version,
            "min_acu": self.min_acu,
            "max_acu": self.max_acu,
            "seconds_until_auto_pause": self.seconds_until_auto_pause,
            "backup_retention_days": self.backup_retention_days,
            "instance_count": self.instance_count,
            **({} if self.origin is None else {"origin": self.origin.to_json()}),
            **({} if self.subnet_group is None else {"subnet_group": self.subnet_group}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClusterSpec:
        return cls(
            **{**data, "lifecycle": ClusterLifecycle(data["lifecycle"])}
            | {"isolation": Isolation(data["isolation"])}
            | {"origin": Origin(**data["origin"]) if "origin" in data else None}
        )
