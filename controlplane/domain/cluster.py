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


@dataclass(frozen=True, slots=True)
class ClusterDesired:
    """Capacities are in ACU; `seconds_until_auto_pause` is None where the cluster never pauses."""

    lifecycle: ClusterLifecycle
    isolation: Isolation
    engine_version: str
    min_acu: float
    max_acu: float
    seconds_until_auto_pause: int | None
    backup_retention_days: int
    instance_count: int

    @classmethod
    def for_plan(cls, plan: Plan, *, engine_version: str) -> ClusterDesired:
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

    def closed(self) -> ClusterDesired:
        return replace(self, lifecycle=ClusterLifecycle.CLOSED)

    @property
    def fit(self) -> str:
        """Which clusters may serve the same plans: equal for equal isolation, capacity and retention."""
        parts = [self.isolation.value, self.min_acu, self.max_acu, self.seconds_until_auto_pause]
        parts += [self.backup_retention_days, self.instance_count]
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
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClusterDesired:
        return cls(
            **{**data, "lifecycle": ClusterLifecycle(data["lifecycle"])}
            | {"isolation": Isolation(data["isolation"])}
        )
