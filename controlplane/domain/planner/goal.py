"""What a tenant or a cluster should be, as far as the planner decides by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.domain.catalogue import Isolation
from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.move import MoveGoal, MovePhase
from controlplane.domain.tenant import Lifecycle


@dataclass(frozen=True, slots=True)
class ClusterGoal:
    """`key`: a snapshot of it is kept, which can't be read without its key."""

    lifecycle: ClusterLifecycle
    stack_digest: str
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
class LastMove:
    """The tenant's newest one, over or not. `plan`: the one that it was made for; `by_hand`: for a person
    instead; `declined`: a person gave it up."""

    phase: MovePhase
    plan: str
    by_hand: bool
    declined: bool


@dataclass(frozen=True, slots=True)
class ResidenceGoal:
    """Which kind of cluster an active tenant's plan asks for, and which it lives on."""

    plan: str
    wanted: Isolation
    home: Isolation
    last: LastMove | None


@dataclass(frozen=True, slots=True)
class TenantGoal:
    """`routes`: what each host of the tenant should serve once all is well, without epochs.
    `announcement`: the same while it is being prepared. `domains`: custom domains asked for.
    `release`: the least that its database is brought to. A database that is ahead of it is left
    alone: a rollout has been there, and every release serves under the one before and behind it.
    `access_proof`: the digest that `verify_access` leaves behind when placement, credential and release were
    shown to work together; None while one of them is not known yet. `rotate_after`: the age in seconds at
    which a login gets a new password; None for never. `placed`, `copied`: False for a clone that has no
    placement or not the rows of its source yet. `move`: one that is not over; `secondary`: what the placement
    that it goes to should be. `purge`: what was approved to be deleted."""

    lifecycle: Lifecycle
    stack_digest: str
    release: str | None
    access_proof: str | None
    routes: Mapping[str, Mapping[str, Any]]
    announcement: Mapping[str, Mapping[str, Any]]
    domains: tuple[str, ...]
    withdrawn: tuple[str, ...]
    rotate_after: float | None = None
    placed: bool = True
    copied: bool = True
    purge: PurgeGoal | None = None
    retention: RetentionGoal | None = None
    residence: ResidenceGoal | None = None
    move: MoveGoal | None = None
    secondary: TenantGoal | None = None
