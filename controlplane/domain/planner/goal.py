"""What a tenant or a cluster should be, as far as the planner decides by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controlplane.domain.catalogue import Isolation
from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind, TransferPhase


@dataclass(frozen=True, slots=True)
class ClusterGoal:
    """`placements`: how many its second stack is to have. `key`: a snapshot of it is kept, which can't be
    read without its key."""

    lifecycle: ClusterLifecycle
    stack_digest: str
    placements: int = 0
    placements_digest: str = ""
    key: bool = False


@dataclass(frozen=True, slots=True)
class PurgeGoal:
    """`approval`: the purge's number. `cluster_goes`: its cluster is its alone and is destroyed with it."""

    approval: int
    cluster_goes: bool


@dataclass(frozen=True, slots=True)
class RetentionGoal:
    """Of a closed tenant whose purge is neither approved nor over. `left`: seconds, 0 from its end on.
    `until`: the same as a moment. `kept_for`: why nothing of it may be deleted; None where it may. `noted`: a
    person was told of that. `requested`: one person has asked for its purge. `unasked`: its plan says that
    nobody need be asked."""

    left: float
    until: datetime | None
    kept_for: str | None
    noted: bool
    requested: bool
    unasked: bool


@dataclass(frozen=True, slots=True)
class LastTransfer:
    """The tenant's newest move, over or not. `plan`: the one that it was made for; `by_hand`: for a person
    instead; `declined`: a person aborted it."""

    phase: TransferPhase
    plan: str
    by_hand: bool
    declined: bool


@dataclass(frozen=True, slots=True)
class TransferGoal:
    """`other`: the placement that is not current, the target until the cut and the source from then on; of a
    clone the one that it is to live on; None while it has none. `overdue`: the source need not be kept
    any longer, and holds nothing that the target lacks. `pointless`: the plan that it was made for is no
    longer the tenant's. `differing`: the tables that were not the same after the cut. `unproven`:
    the source has had its time, and nobody has compared it with the target."""

    phase: TransferPhase
    other: str | None
    overdue: bool = False
    pointless: bool = False
    kind: TransferKind = TransferKind.MOVE
    differing: tuple[str, ...] = ()
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class ResidenceGoal:
    """Which kind of cluster an active tenant's plan asks for, and which it lives on."""

    plan: str
    wanted: Isolation
    home: Isolation
    last: LastTransfer | None


@dataclass(frozen=True, slots=True)
class TenantGoal:
    """`routes`: what each host of the tenant should serve once all is well, without epochs.
    `announcement`: the same while it is being prepared. `domains`: custom domains asked for.
    `release`: the least that its database is brought to. A database that is ahead of it is left
    alone: a rollout has been there, and every release serves under the one before and behind it.
    `access_proof`: the digest that `verify_access` leaves behind when placement, credential and release were
    shown to work together; None while one of them is not known yet. `rotate_after`: the age in seconds at
    which a login gets a new password; None for never. `transfer`: one that is not over; `secondary`: what
    the placement that it goes to should be. `purge`: what was approved to be deleted. `released`: of the
    hosts that are `withdrawn` those whose slug is given up with it, so that another tenant may have it."""

    lifecycle: Lifecycle
    release: str | None
    access_proof: str | None
    routes: Mapping[str, Mapping[str, Any]]
    announcement: Mapping[str, Mapping[str, Any]]
    domains: tuple[str, ...]
    withdrawn: tuple[str, ...]
    released: Mapping[str, str] = field(default_factory=dict)
    rotate_after: float | None = None
    purge: PurgeGoal | None = None
    retention: RetentionGoal | None = None
    residence: ResidenceGoal | None = None
    transfer: TransferGoal | None = None
    secondary: TenantGoal | None = None
