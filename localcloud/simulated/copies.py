"""`ports.Copies` without a bucket: dumps and snapshots as rows of the `World`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from controlplane.domain.errors import LeaseLost
from localcloud.simulated.aws import FakeAccount
from localcloud.simulated.databases import FakeDatabases
from localcloud.simulated.world import World
from workers.providers.ports import ClusterEndpoint, Credential, Dump

DUMP, SNAPSHOT = "dump", "snapshot"


class FakeCopies:
    """`looks`: how often a snapshot is asked for until it is available."""

    def __init__(self, world: World, databases: FakeDatabases, *, looks: int = 2) -> None:
        self._world = world
        self._databases = databases
        self._account = FakeAccount(world)
        self._looks = looks

    def dump(
        self, at: ClusterEndpoint, credential: Credential, *, name: str, stopped: Callable[[], bool]
    ) -> Dump:
        with self._world.call("copies.dump"):
            if stopped():
                raise LeaseLost
            content = json.dumps(self._databases.content(at, credential), sort_keys=True)
            self._world.put(DUMP, name, content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return Dump(name, digest, len(content), {}, "simulated")

    def snapshot(self, cluster_id: str, *, name: str) -> str:
        with self._world.call("copies.snapshot"):
            found = self._account.get(SNAPSHOT, name)
            if found is None:
                self._account.make(SNAPSHOT, name, cluster=cluster_id, looks=1)
                return "creating"
            self._account.change(SNAPSHOT, name, looks=found["looks"] + 1)
            return "available" if found["looks"] + 1 >= self._looks else "creating"

    def delete(self, kind: str, name: str) -> None:
        with self._world.call(f"copies.delete.{kind}"):
            if kind == SNAPSHOT:
                self._account.delete(SNAPSHOT, name)
            else:
                self._world.drop(DUMP, name)

    def exists(self, kind: str, name: str) -> bool:
        with self._world.call("copies.exists"):
            if kind == SNAPSHOT:
                return self._account.get(SNAPSHOT, name) is not None
            return self._world.get(DUMP, name) is not None
