"""What is written in each of the systems that the drift report reads, as it was read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.domain.placement import Placement
from controlplane.domain.tenant import Lifecycle


@dataclass(frozen=True, slots=True)
class TenantEntry:
    """`made`: it has been ready once, so everything of it was there. `contracts`: those that are for it.
    `internal`: nobody need pay for it."""

    id: str
    lifecycle: Lifecycle
    made: bool
    contracts: tuple[str, ...]
    internal: bool = False

    @property
    def complete(self) -> bool:
        """Everything of it must be there."""
        return self.made and self.lifecycle is not Lifecycle.CLOSED


@dataclass(frozen=True, slots=True)
class ClusterEntry:
    """`keeps_key`: it is destroyed, and its key and with it its state are kept for a snapshot's sake.
    `restored`: rows are read from it and nobody lives there; `restored_for`: whose restore that is;
    `left_over`: which does not need it any more. `drift`: addresses that Terraform would have changed at the
    last look."""

    id: str
    made: bool
    destroyed: bool
    keeps_key: bool = False
    restored: bool = False
    restored_for: str | None = None
    left_over: bool = False
    drift: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostnameEntry:
    """`registered`: Cloudflare has confirmed it."""

    host: str
    tenant_id: str
    registered: bool


@dataclass(frozen=True, slots=True)
class Registry:
    """`current`: the placements that tenants live on, by tenant id; `placements`: all that have not been
    purged. `routes`: payloads with their epoch, by host. `busy`: ids of tenants, clusters,
    contracts and customers that something is or was just being done about."""

    tenants: Mapping[str, TenantEntry]
    current: Mapping[str, Placement]
    placements: Collection[Placement]
    clusters: Mapping[str, ClusterEntry]
    hostnames: Mapping[str, HostnameEntry]
    routes: Mapping[str, Mapping[str, Any]]
    busy: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TaggedThing:
    arn: str
    tenant: str | None
    placement: str | None
    cluster: str | None


@dataclass(frozen=True, slots=True)
class StateEntry:
    """`stack`: "cluster" or "placements". `locked`: somebody holds, or left, its lock."""

    stack: str
    workspace: str
    present: bool
    locked: bool


@dataclass(frozen=True, slots=True)
class CustomHostname:
    id: str
    host: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """`in_step`: the registry holds what Stripe says. `customer`: whose it is, where that can be read."""

    id: str
    status: str
    in_step: bool
    customer: str | None


@dataclass(frozen=True, slots=True)
class Systems:
    """What was read; None for a system that was not. `secrets`: name → waits for its deletion.
    `cache`: host → payload, None for an entry that our keys did not sign. `databases`: names by cluster,
    of those that could be asked."""

    registry: Registry
    tagged: Collection[TaggedThing] | None = None
    states: Collection[StateEntry] | None = None
    secrets: Mapping[str, bool] | None = None
    roles: Collection[str] | None = None
    hostnames: Collection[CustomHostname] | None = None
    cache: Mapping[str, Mapping[str, Any] | None] | None = None
    subscriptions: Mapping[str, Subscription] | None = None
    databases: Mapping[str, Collection[str]] = field(default_factory=dict)
