"""Snapshots of the simulated account's clusters: begun at one look, available at a later one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.errors import ControlPlaneError, NeedsHuman
from controlplane.localcloud.fakes import past
from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.ports import SnapshotDescription

SNAPSHOT = "snapshot"


class FakeSnapshots:
    """`ports.Snapshots`. `polls`: how many a snapshot is "creating" for. `fail` makes `ensure` raise."""

    def __init__(self, world: World, *, polls: int = 1) -> None:
        self._world = world
        self._account = FakeAccount(world)
        self.polls = polls
        self._error: ControlPlaneError | None = None

    def fail(self, error: ControlPlaneError | None) -> None:
        self._error = error

    def describe(self, name: str) -> SnapshotDescription | None:
        with self._world.call("snapshots.describe"):
            observed = self._account.get(SNAPSHOT, name)
        if observed is None:
            return None
        status = "creating" if observed.get("polls") else "available"
        taken_at = datetime.fromisoformat(observed["taken_at"])
        return SnapshotDescription(name, observed["cluster"], status, taken_at)

    def ensure(self, cluster_id: str, name: str, *, tags: Mapping[str, str]) -> str:
        with self._world.call("snapshots.ensure"):
            if self._error is not None:
                raise self._error
            observed: dict[str, Any] | None = self._account.get(SNAPSHOT, name)
            if observed is None:
                if self._account.get("cluster", cluster_id) is None:
                    raise NeedsHuman(f"there is no cluster {cluster_id}", runbook="aws-request")
                observed = self._account.make(
                    SNAPSHOT,
                    name,
                    cluster=cluster_id,
                    tags=dict(tags),
                    polls=self.polls,
                    taken_at=datetime.now(UTC).isoformat(),
                    server=past.server_of(self._world, cluster_id),
                )
                return "creating" if self.polls else "available"
            if observed["cluster"] != cluster_id or observed["tags"].get("cluster") != cluster_id:
                raise NeedsHuman(f"snapshot {name} exists but is not ours", runbook="foreign-resource")
            left = max(observed["polls"] - 1, 0)
            self._account.change(SNAPSHOT, name, polls=left)
            return "creating" if left else "available"

    def delete(self, name: str) -> None:
        with self._world.call("snapshots.delete"):
            observed = self._account.get(SNAPSHOT, name)
            if observed is not None and not observed["tags"]:
                raise NeedsHuman(f"snapshot {name} exists but is not ours", runbook="foreign-resource")
            self._account.delete(SNAPSHOT, name)
