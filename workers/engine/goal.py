"""What a tenant and a cluster should be, spelled out for the planner. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from controlplane.domain.hostname import subdomain
from controlplane.domain.placement import Placement
from controlplane.domain.planner import (
    ClusterGoal,
    LastTransfer,
    PurgeGoal,
    ResidenceGoal,
    RetentionGoal,
    TenantGoal,
    TransferGoal,
)
from controlplane.domain.purge import RETURN_RUNBOOK, kept_for
from controlplane.domain.rotation import rotate_after
from controlplane.domain.status import HostnameStatus, TenantStatus
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind
from controlplane.store.cluster import ClusterRow
from controlplane.store.record import OnCluster
from controlplane.store.transfer import TransferRow
from controlplane.workers.engine.context import Platform
from controlplane.workers.engine.record import TenantRecord
from controlplane.workers.engine.stacks import cluster_variables, digest, placements_variables
from dataplane.tenant_config import DatabaseAddress, Status, TenantConfig, undated

_GIVEN_UP = frozenset({"moved", "pending_deletion", "deleted", "blocked", "pending_blocked"})


def cluster_goal(platform: Platform, row: ClusterRow, on: OnCluster) -> ClusterGoal:
    placements = placements_variables(platform, row, on.placements)
    return ClusterGoal(
        lifecycle=row.spec.lifecycle,
        stack_digest=digest(cluster_variables(platform, row), row.release),
        placements=len(on.placements),
        placements_digest=digest(placements, row.release),
        key=on.snapshot,
    )


def tenant_goal(
    platform: Platform, record: TenantRecord, status: TenantStatus, *, release: str | None
) -> TenantGoal:
    """`release`: of its schema."""
    row, spec = record.row, record.row.spec
    home = subdomain(row.slug, platform.zone)
    hosts = [home, *(h.host for h in status.hostnames if _serves(record, h))]
    routes: dict[str, dict[str, Any]] = {}
    announcement: dict[str, dict[str, Any]] = {}
    if spec.lifecycle is Lifecycle.ACTIVE:
        announcement[home] = _route(record, home, Status.PROVISIONING, release)
        if _address(record) is not None:
            routes = {host: _route(record, host, Status.ACTIVE, release) for host in hosts}
    elif spec.lifecycle is Lifecycle.SUSPENDED:
        routes = {host: _route(record, host, Status.SUSPENDED, release) for host in hosts}
    keep = {home} if spec.lifecycle is Lifecycle.ACTIVE else set()
    former = {subdomain(slug, platform.zone): slug for slug in record.around.redirects}
    released = {host: slug for host, slug in former.items() if not record.around.redirects[slug]}
    if spec.lifecycle is not Lifecycle.CLOSED:
        moved = former.keys() - released.keys()
        routes |= {host: _route(record, host, Status.MOVED, None, moved_to=home) for host in sorted(moved)}
    secondary = None
    if record.secondary is not None and status.secondary is not None:
        secondary = tenant_goal(
            platform,
            record.secondary,
            status.secondary,
            release=_secondary_release(record, status, release),
        )
    return TenantGoal(
        lifecycle=spec.lifecycle,
        release=release,
        access_proof=_proof(record.placement, status.app.secret_version, release),
        routes=routes,
        announcement=announcement,
        domains=spec.custom_domains if spec.lifecycle is not Lifecycle.CLOSED else (),
        withdrawn=tuple(
            host for host in {**record.around.routed, **released} if host not in routes and host not in keep
        ),
        released=released,
        rotate_after=None if record.plan is None else rotate_after(record.plan.rotation_days, row.id),
        transfer=None if record.transfer is None else _transfer_goal(record.transfer, record),
        secondary=secondary,
        purge=None if record.purge is None else PurgeGoal(record.purge.id, record.purge.cluster_goes),
        retention=_retention(record),
        residence=_residence(record),
    )


def _retention(record: TenantRecord) -> RetentionGoal | None:
    """The source of a transfer is another copy of the data: it has its time first."""
    row = record.row
    if record.around.retention_left is None or record.purge is not None or record.transfer is not None:
        return None
    return RetentionGoal(
        left=record.around.retention_left,
        until=row.purge_after,
        kept_for=kept_for(row.customer_id, record.around.live, clone=row.clone_of is not None),
        noted=row.runbook == RETURN_RUNBOOK,
        requested=record.requested,
        unasked=record.plan is not None and record.plan.purge_without_approval,
    )


def _residence(record: TenantRecord) -> ResidenceGoal | None:
    plan, home, last = record.plan, record.cluster, record.last_transfer
    if plan is None or home is None or record.row.spec.lifecycle is not Lifecycle.ACTIVE:
        return None
    moved = None if last is None else LastTransfer(last.phase, last.plan, last.by_hand, last.declined)
    return ResidenceGoal(plan.name, plan.isolation, home.spec.isolation, moved)


def _secondary_release(record: TenantRecord, status: TenantStatus, release: str | None) -> str | None:
    """What the target is brought to: what the rows that it is to get have; once it has those of an earlier
    time, what the tenant is served under."""
    found = record.transfer
    if found is not None and found.kind is TransferKind.RESTORE and found.copied_at is None:
        return found.release
    return max(release or "", (status.database.release if status.database else None) or "") or None


def _transfer_goal(found: TransferRow, record: TenantRecord) -> TransferGoal:
    """Who leaves need not wait for the time for which a source is kept."""
    plan, lifecycle = record.plan, record.row.spec.lifecycle
    for_plan = found.by_hand or plan is None or plan.isolation.value == found.destination
    over = found.overdue or lifecycle is Lifecycle.CLOSED
    return TransferGoal(
        found.phase,
        found.other,
        overdue=over and found.compared is not None and not found.differing,
        unproven=over and found.compared is None and found.cut_at is not None,
        pointless=found.phase.before_cut and not for_plan,
        kind=found.kind,
        differing=tuple(found.differing),
    )


def _serves(record: TenantRecord, hostname: HostnameStatus) -> bool:
    """Routed once it is verified, and from then on until Cloudflare gives it up: a certificate that is
    being renewed must not take a customer's domain off the air."""
    if hostname.host not in record.row.spec.custom_domains:
        return False
    if hostname.ready:
        return True
    routed = record.around.routed.get(hostname.host) in (Status.ACTIVE, Status.SUSPENDED)
    return routed and hostname.status not in _GIVEN_UP


def tombstone(record: TenantRecord, host: str) -> dict[str, Any]:
    """The route of a host that this tenant no longer serves."""
    return _route(record, host, Status.GONE, None)


def _proof(placement: Placement | None, secret_version: str | None, release: str | None) -> str | None:
    if placement is None or secret_version is None:
        return None
    return hashlib.sha256(f"{placement.id}\n{secret_version}\n{release}".encode()).hexdigest()[:32]


def _address(record: TenantRecord) -> DatabaseAddress | None:
    if record.cluster is None or record.cluster.endpoint is None or record.placement is None:
        return None
    if record.app_secret_arn is None or record.role_arn is None:
        return None
    return DatabaseAddress(
        host=record.cluster.endpoint["host"],
        port=record.cluster.endpoint["port"],
        name=record.placement.database,
        secret=record.app_secret_arn,
        role=record.role_arn,
    )


def _route(
    record: TenantRecord, host: str, status: Status, release: str | None, *, moved_to: str | None = None
) -> dict[str, Any]:
    """A TenantConfig payload without its epoch, which is drawn when the route is decided, and without the
    times of its issue. Of a host that has moved it says where to, and nothing that changes with what the
    tenant buys."""
    row, plan = record.row, record.plan
    serving = status is Status.ACTIVE
    placed = record.placement if serving else None
    payload = TenantConfig(
        host=host,
        tenant_id=row.id,
        slug=row.slug,
        status=status,
        epoch=0,
        plan=row.spec.plan,
        pool_size=1 if plan is None else plan.pool_size,
        dedicated=plan is not None and plan.isolation.value == "dedicated",
        release=release if serving else None,
        placement=None if placed is None else placed.id,
        database=_address(record) if serving else None,
        profile={}
        if moved_to is not None
        else {
            "display_name": row.display_name,
            "subscription_status": row.spec.subscription_status,
            "quantity": row.spec.quantity,
            "limits": {} if plan is None else plan.limits,
            "trial_ends_at": _moment(row.spec.trial_ends_at),
            "closes_at": _moment(row.spec.closes_at),
            "pauses": plan is not None and plan.seconds_until_auto_pause is not None,
        },
        moved_to=moved_to,
    ).to_payload()
    del payload["epoch"]
    return undated(payload)


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
