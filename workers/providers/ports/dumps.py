"""Dumps of a tenant's data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from controlplane.domain.placement import Placement
from controlplane.workers.providers.ports.clusters import ClusterEndpoint


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump that was read back and is what was written. `size` in bytes; `tables`: rows of each, in the
    same snapshot as the dump."""

    name: str
    sha256: str
    size: int
    tables: Mapping[str, int]
    server_version: str

    def to_manifest(self) -> dict[str, Any]:
        return {**asdict(self), "tables": dict(self.tables), "format": "pg_dump custom"}


class Dumps(Protocol):
    """Dumps of tenants' databases in a bucket. Names are given by the caller, who has recorded them."""

    def make(
        self, at: ClusterEndpoint, placement: Placement, *, name: str, stopped: Callable[[], bool]
    ) -> Dump:
        """As the migrator: a standard dump of its database into the bucket, with its checksum and
        a manifest, read back and compared. One of this name that is whole already is not made again.
        `stopped` is asked at least every second; once true LeaseLost is raised.

        Raises Retryable, NeedsHuman("copy") where no bucket is named or `pg_dump` is older than the
        server."""
        ...

    def delete(self, name: str) -> None:
        """Gone already is success."""
        ...

    def exists(self, name: str) -> bool: ...
