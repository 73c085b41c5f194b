"""Aurora clusters, observed from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ClusterEndpoint:
    """How to reach a cluster's writer, and where its managed master password is kept."""

    host: str
    port: int
    master_secret_arn: str
    resource_id: str


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """`status` as RDS names it ("creating", "available", …); `endpoint` None until it is known. `earliest_…`,
    `latest_restorable`: the times between which it can be restored, None while there are none."""

    status: str
    writer_status: str | None
    endpoint: ClusterEndpoint | None
    earliest_restorable: datetime | None = None
    latest_restorable: datetime | None = None


@dataclass(frozen=True, slots=True)
class Activity:
    """Of the last minutes. `acu`: Aurora capacity units, the mean over the cluster's instances; 0 while all
    of them are paused. `connections`: of clients, AWS's own not among them."""

    acu: float
    connections: float


class Clusters(Protocol):
    def describe(self, cluster_id: str) -> ClusterDescription | None: ...

    def activity(self, cluster_id: str) -> Activity | None:
        """Without connecting, so that one that is paused stays so. What was connected when this was measured
        still keeps the cluster awake: the answer is younger than the shortest time after which one pauses
        (300 seconds). None where AWS does not tell: the cluster is new, or we may not ask. Raises
        Retryable."""
        ...
