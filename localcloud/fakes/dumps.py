"""`ports.Dumps` without a bucket: dumps as rows of the `World`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from controlplane.domain.errors import LeaseLost
from controlplane.domain.placement import Placement
from controlplane.localcloud.fakes.databases import FakeDatabases
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.ports import ClusterEndpoint, Dump

DUMP = "dump"


class FakeDumps:
    """`ports.Dumps`."""

    def __init__(self, world: World, databases: FakeDatabases) -> None:
        self._world = world
        self._databases = databases

    def make(
        self, at: ClusterEndpoint, placement: Placement, *, name: str, stopped: Callable[[], bool]
    ) -> Dump:
        with self._world.call("dumps.make"):
            if stopped():
                raise LeaseLost
            content = json.dumps(self._databases.dump(at, placement), sort_keys=True)
            self._world.put(DUMP, name, content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return Dump(name, digest, len(content), {}, "simulated")

    def delete(self, name: str) -> None:
        with self._world.call("dumps.delete"):
            self._world.drop(DUMP, name)

    def exists(self, name: str) -> bool:
        with self._world.call("dumps.exists"):
            return self._world.get(DUMP, name) is not None
