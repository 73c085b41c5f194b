"""Aurora clusters, seen from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ClusterEndpoint:
    """How to reach a cluster's writer, and where its managed master password is kept."""

    host: str
    port: int
    master_secret_arn: str
    resource_id: str


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """`status` as RDS names it ("creating", "available", …); `endpoint` None until it is known."""

    status: str
    writer_status: str | None
    endpoint: ClusterEndpoint | None


class Clusters(Protocol):
    def describe(self, cluster_id: str) -> ClusterSeen | None: ...
