"""Manual snapshots of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SnapshotDescription:
    """`cluster_id`: of the cluster that it is of, which may be gone; `taken_at` None until it is known."""

    name: str
    cluster_id: str
    status: str
    taken_at: datetime | None


class Snapshots(Protocol):
    """Manual snapshots of clusters. The caller has recorded a name before it is used here."""

    def describe(self, name: str) -> SnapshotDescription | None:
        """Any cluster's, manual or automated; None where there is none of this name."""
        ...

    def ensure(self, cluster_id: str, name: str, *, tags: Mapping[str, str]) -> str:
        """The status of the snapshot as RDS names it ("creating", "available", …); begun where there is
        none, adopted where it is this cluster's and ours. Never waits. `tags`: beside `managed_by`;
        `cluster` must be among them.

        Raises Retryable, NeedsHuman("foreign-resource" | "aws-quota" | "aws-request")."""
        ...

    def delete(self, name: str) -> None:
        """Gone already is success. Raises NeedsHuman("foreign-resource") where it is not ours."""
        ...
