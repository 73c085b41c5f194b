"""What a tenant and a cluster should be, spelled out for the planner. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.domain.catalogue import Plan
from controlplane.domain.hostname import subdomain
from controlplane.domain.move import MoveWanted
from controlplane.domain.observed import HostnameObserved, TenantObserved
from controlplane.domain.placement import Placement
from controlplane.domain.planner import ClusterWanted, PurgeWanted, TenantWanted
from controlplane.domain.rotation import rotate_after
from controlplane.domain.tenant import Lifecycle
from controlplane.store.cluster import ClusterRow
from controlplane.store.data_copy import CopyRow
from controlplane.store.move import MoveRow
from controlplane.store.purge import PurgeRow
from controlplane.store.restore import RestoreRow
from controlplane.store.tenant import TenantRow
from dataplane.contract import DatabaseAddress, Status, TenantConfig
from workers.engine.context import Platform
from workers.engine.stacks import (
    cluster_variables,
    digest,
    tenant_variables,
)
from workers.providers.ports import ClusterEndpoint, Home

_GIVEN_UP = frozenset({"moved", "pending_deletion", "deleted", "blocked", "pending_blocked"})


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """What the registry knows of a tenant at the start of a look.

    `plan` is None for a closed tenant whose plan has left the catalogue. `routed`: the hosts that were
    ever routed to it, with the status decided last. `app_secret_arn`: from the tenant stack's outputs,
    once it was applied. `move`: one that is not over; `beside`: the same of the placement that is its other
    end. `restore`: what the move restores, where it is one; `restored`: the cluster that its rows come from.
    `purge`: the one that was approved, or carried out; `copy`: what it keeps.
    """

    row: TenantRow
    plan: Plan | None
    placement: Placement | None
    cluster: ClusterRow | None
    routed: Mapping[str, str]
    app_secret_arn: str | None
    move: MoveRow | None = None
    beside: TenantFacts | None = None
    restore: RestoreRow | None = None
    restored: ClusterRow | None = None
    purge: PurgeRow | None = None
    copy: CopyRow | None = None

    @property
    def leaving(self) -> bool:
        """Is its purge approved and not over?"""
        return self.purge is not None and self.row.purged_at is None

    def ends(self) -> tuple[Home, Home] | None:
        """(source, target) of the move, once both clusters are known."""
        if self.move is None or self.beside is None:
            return None
        here, there = self.home(), self.beside.home()
        if here is None or there is None:
            return None
        return (here, there) if self.move.other == self.move.target else (there, here)

    def home(self) -> Home | None:
        """The placement on its cluster; None until that has an endpoint."""
        if self.placement is None or self.cluster is None or self.cluster.endpoint is None:
            return None
        return Home(ClusterEndpoint(**self.cluster.endpoint), self.placement)


def cluster_wanted(
    platform: Platform, row: ClusterRow, stack_version: str, *, key: bool = False
) -> ClusterWanted:
    """`key`: a snapshot of it is kept."""
    return ClusterWanted(
        lifecycle=row.desired.lifecycle,
        stack_digest=digest(cluster_variables(platform, row), stack_version),
        key=key,
    )


def tenant_wanted(
    platform: Platform, facts: TenantFacts, seen: TenantObserved, *, release: str | None, stack_version: str
) -> TenantWanted:
    row, desired = facts.row, facts.row.desired
    home = subdomain(row.slug, platform.zone)
    routes: dict[str, dict[str, Any]] = {}
    announcement: dict[str, dict[str, Any]] = {}
    if desired.lifecycle is Lifecycle.ACTIVE:
        announcement[home] = _route(facts, home, Status.PROVISIONING, release)
        if _address(facts) is not None:
            ready = [h.host for h in seen.hostnames if _serves(facts, h)]
            routes = {host: _route(facts, host, Status.ACTIVE, release) for host in (home, *ready)}
    elif desired.lifecycle is Lifecycle.SUSPENDED:
        served = [
            h for h in desired.custom_domains if facts.routed.get(h) in (Status.ACTIVE, Status.SUSPENDED)
        ]
        kept = [home, *served]
        routes = {host: _route(facts, host, Status.SUSPENDED, release) for host in kept}
    keep = {home} if desired.lifecycle is Lifecycle.ACTIVE else set()
    move, beside = facts.move, None
    if facts.beside is not None and seen.beside is not None:
        beside = tenant_wanted(
            platform,
            facts.beside,
            seen.beside,
            release=_release_beside(facts, seen, release),
            stack_version=stack_version,
        )
    return TenantWanted(
        lifecycle=desired.lifecycle,
        stack_digest=""
        if facts.placement is None
        else digest(tenant_variables(platform, facts.placement), stack_version),
        release=release,
        proof=_proof(facts.placement, seen.app.secret_version, release),
        routes=routes,
        announcement=announcement,
        domains=desired.custom_domains if desired.lifecycle is not Lifecycle.CLOSED else (),
        withdrawn=tuple(host for host in facts.routed if host not in routes and host not in keep),
        rotate_after=None if facts.plan is None else rotate_after(facts.plan.rotation_days, row.id),
        placed=facts.placement is not None or row.clone_of is None,
        copied=row.cloned_at is not None or row.clone_of is None,
        move=None if move is None else _move_wanted(move, facts),
        beside=beside,
        purge=None if facts.purge is None else PurgeWanted(facts.purge.id, facts.purge.cluster_goes),
    )


def _release_beside(facts: TenantFacts, seen: TenantObserved, release: str | None) -> str | None:
    """What the target is brought to: what the rows that it is to get have; once it has those of an earlier
    time, what the tenant is served under."""
    if facts.restore is not None and facts.restore.copied_at is None:
        return facts.restore.release
    return max(release or "", (seen.database.release if seen.database else None) or "") or None


def _move_wanted(move: MoveRow, facts: TenantFacts) -> MoveWanted:
    """Who leaves need not wait for the time for which a source is kept."""
    plan, lifecycle = facts.plan, facts.row.desired.lifecycle
    for_plan = move.by_hand or plan is None or plan.isolation.value == move.wish
    over = move.overdue or lifecycle is Lifecycle.CLOSED
    return MoveWanted(
        move.phase,
        move.other,
        overdue=over and move.compared is not None and not move.differing,
        pointless=move.phase.before_cut and not for_plan,
    )


def _serves(facts: TenantFacts, hostname: HostnameObserved) -> bool:
    """Routed once it is verified, and from then on until Cloudflare gives it up: a certificate that is
    being renewed must not take a customer's domain off the air."""
    if hostname.host not in facts.row.desired.custom_domains:
        return False
    if hostname.ready:
        return True
    return facts.routed.get(hostname.host) == Status.ACTIVE and hostname.status not in _GIVEN_UP


def tombstone(facts: TenantFacts, host: str) -> dict[str, Any]:
    """The route of a host that this tenant no longer serves."""
    return _route(facts, host, Status.GONE, None)


def _proof(placement: Placement | None, secret_version: str | None, release: str | None) -> str | None:
    if placement is None or secret_version is None:
        return None
    return hashlib.sha256(f"{placement.key}\n{secret_version}\n{release}".encode()).hexdigest()[:32]


def _address(facts: TenantFacts) -> DatabaseAddress | None:
    if facts.cluster is None or facts.cluster.endpoint is None or facts.placement is None:
        return None
    if facts.app_secret_arn is None:
        return None
    return DatabaseAddress(
        host=facts.cluster.endpoint["host"],
        port=facts.cluster.endpoint["port"],
        name=facts.placement.database,
        secret=facts.app_secret_arn,
    )


def _route(facts: TenantFacts, host: str, status: Status, release: str | None) -> dict[str, Any]:
    """A TenantConfig payload without its epoch, which is drawn when the route is decided."""
    row, plan = facts.row, facts.plan
    serving = status is Status.ACTIVE
    payload = TenantConfig(
        host=host,
        tenant_id=row.id,
        slug=row.slug,
        status=status,
        epoch=0,
        plan=row.desired.plan,
        pool_size=1 if plan is None else plan.pool_size,
        dedicated=plan is not None and plan.isolation.value == "dedicated",
        release=release if serving else None,
        database=_address(facts) if serving else None,
        profile={
            "display_name": row.display_name,
            "subscription_status": row.desired.subscription_status,
            "quantity": row.desired.quantity,
            "limits": {} if plan is None else plan.limits,
            "trial_ends_at": _moment(row.desired.trial_ends_at),
            "closes_at": _moment(row.desired.closes_at),
            "pauses": plan is not None and plan.seconds_until_auto_pause is not None,
        },
    ).to_payload()
    del payload["epoch"]
    return payload


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
