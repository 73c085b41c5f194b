"""What a simulated cluster's server held: kept for snapshots, and for the moments that a test names.

Everything of it is copied, roles with their passwords among it, so that a restored cluster is what RDS makes:
the whole server of that time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controlplane.domain.errors import NeedsHuman
from controlplane.localcloud.fakes.aws import endpoint_of
from controlplane.localcloud.fakes.databases import (
    CLUSTER,
    DATABASE,
    ROLE,
)
from controlplane.localcloud.fakes.world import World

MOMENT = "database-moment"
Past = dict[str, dict[str, Any]]


def server_of(world: World, cluster_id: str) -> Past:
    """All that it holds now."""
    prefix = _prefix(cluster_id)
    return {
        kind: {k.removeprefix(prefix): value for k, value in world.all(kind).items() if k.startswith(prefix)}
        for kind in (CLUSTER, DATABASE, ROLE)
    }


def bring_back(world: World, past: Past, cluster_id: str) -> None:
    """Its server, which is new, holds this."""
    for kind, things in past.items():
        for key, value in things.items():
            world.put(kind, _prefix(cluster_id) + key, value)


def keep_moment(world: World, cluster_id: str, at: datetime) -> None:
    """From now on it can be restored to how it is now, by this time."""
    world.put(MOMENT, f"{cluster_id}/{at.astimezone(UTC).isoformat()}", server_of(world, cluster_id))


def at_moment(world: World, cluster_id: str, at: datetime) -> Past:
    """The newest that was kept up to then. Raises NeedsHuman where none was."""
    kept = {
        datetime.fromisoformat(key.partition("/")[2]): past
        for key, past in world.all(MOMENT).items()
        if key.startswith(f"{cluster_id}/")
    }
    fitting = [moment for moment in kept if moment <= at]
    if not fitting:
        raise NeedsHuman(f"{cluster_id} is not kept as it was at {at}", runbook="terraform-configuration")
    past: Past = kept[max(fitting)]
    return past


def _prefix(cluster_id: str) -> str:
    at = endpoint_of(cluster_id)
    return f"{at.host}:{at.port}"
