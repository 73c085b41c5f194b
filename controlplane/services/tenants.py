"""Tenants: bring one to what its contracts say, look again, show."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from controlplane.domain.catalogue import Catalogue, Isolation, Plan
from controlplane.domain.cluster import ClusterSpec
from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.hostname import TAKEN, RefusedDomain
from controlplane.domain.job import JobKind
from controlplane.domain.placement import Placement, placement_id_for
from controlplane.domain.slug import slug_from_request, with_suffix
from controlplane.domain.tenant import Lifecycle, TenantSpec
from controlplane.services import clusters, purges
from controlplane.store import (
    audit,
    cluster,
    contract,
    hold,
    hostname,
    job,
    operation,
    placement,
    release,
    tenant,
    transfer,
)
from controlplane.store.contract import ContractRow
from controlplane.store.hold import HoldRow
from controlplane.store.hostname import HostnameRow
from controlplane.store.operation import OperationRow
from controlplane.store.placement import Login
from controlplane.store.registry import Connection, one
from controlplane.store.tenant import SlugTaken, TenantRow
from controlplane.store.transfer import TransferRow


@dataclass(frozen=True, slots=True)
class Request:
    """What its contracts ask for: see `domain.binding.Asked`. `display_name`: None for the one that it has,
    or none."""

    tenant_id: str
    customer_id: str
    display_name: str | None
    requested_slug: str | None
    spec: TenantSpec
    paid_at: datetime | None
    warnings: Sequence[str] = ()
    refused: Sequence[RefusedDomain] = ()


@dataclass(frozen=True, slots=True)
class TenantDetail:
    tenant: TenantRow
    found_by: str
    """See `look_up`."""
    deciding: bool
    """What its contracts and holds make of it is to be decided anew, by a worker."""
    placement: Placement | None
    hostnames: list[HostnameRow]
    operations: list[OperationRow]
    login: Login | None
    """The application's, of the placement."""
    transfer: TransferRow | None
    """The last one."""
    contracts: list[ContractRow]
    holds: list[HoldRow]
    freezes: list[HoldRow]
    """Under which nothing of it is begun, or no Terraform."""


def bring_to(conn: Connection, request: Request, catalogue: Catalogue, *, actor: str, reason: str) -> None:
    """Make or change the tenant so that it is what the request says.

    Runs inside the caller's transaction. A tenant that would be born closed is not made. Nothing is
    asked of the engine where nothing changed.
    """
    row = tenant.find(conn, request.tenant_id, lock=True)
    if row is None:
        if request.spec.lifecycle is Lifecycle.CLOSED:
            return
        slug = _insert(conn, request)
        audit.append(
            conn,
            actor=actor,
            action="tenant.create",
            resource=request.tenant_id,
            detail={"slug": slug, "plan": request.spec.plan, "reason": reason},
        )
        changed = True
    else:
        changed = _follow(conn, row, request, actor=actor)
        if row.spec.lifecycle is not Lifecycle.ACTIVE and request.spec.lifecycle is Lifecycle.ACTIVE:
            release.welcome_back(conn, row.id)
    spec, taken = _claim_domains(conn, request)
    if tenant.set_spec(conn, request.tenant_id, spec):
        changed = True
        audit.append(
            conn,
            actor=actor,
            action="tenant.spec",
            resource=request.tenant_id,
            detail={"spec": spec.to_json(), "reason": reason},
        )
    if row is not None:
        _turn(conn, row, spec, catalogue, actor=actor)
    refused = () if spec.lifecycle is Lifecycle.CLOSED else (*request.refused, *taken)
    recorded = tenant.set_refused_domains(conn, request.tenant_id, refused)
    for warning in (*request.warnings, *map(str, taken)):
        if changed or recorded:
            audit.append(
                conn,
                actor=actor,
                action="tenant.warn",
                resource=request.tenant_id,
                detail={"warning": warning},
            )
    plan = catalogue.plans.get(spec.plan)  # None for one that has left it: the engine says so
    if plan is None:
        pass
    elif spec.lifecycle is Lifecycle.ACTIVE and placement.current(conn, request.tenant_id) is None:
        place(conn, request.tenant_id, plan, actor=actor)
        changed = True
    elif row is not None and changed and spec.lifecycle is not Lifecycle.CLOSED:
        _reshape(conn, request.tenant_id, plan, actor=actor)
    if changed:
        job.ensure(conn, JobKind.TENANT, request.tenant_id, reason=reason, actor=actor)


def _follow(conn: Connection, row: TenantRow, request: Request, *, actor: str) -> bool:
    """Who pays for it and what that customer is called now; True where its routes have to say so."""
    if tenant.set_customer(conn, row.id, request.customer_id):
        detail: dict[str, object] = {"from": row.customer_id, "to": request.customer_id}
        audit.append(conn, actor=actor, action="tenant.customer", resource=row.id, detail=detail)
    if request.display_name is None or not tenant.rename(conn, row.id, request.display_name):
        return False
    detail = {"from": row.display_name, "to": request.display_name}
    audit.append(conn, actor=actor, action="tenant.rename", resource=row.id, detail=detail)
    return True


def _turn(conn: Connection, row: TenantRow, spec: TenantSpec, catalogue: Catalogue, *, actor: str) -> None:
    """Start or stop the clock of its retention where it leaves or comes back. A plan that has left the
    catalogue keeps its customers' data as long as the most patient one that is there."""
    if spec.lifecycle is Lifecycle.CLOSED:
        plan = catalogue.plans.get(spec.plan)
        longest = max(p.retention_days for p in catalogue.plans.values())
        tenant.mark_closed(conn, row.id, retention_days=longest if plan is None else plan.retention_days)
    elif row.closed_at is not None:
        purges.withdraw_for_return(conn, row.id, actor=actor)
        tenant.mark_reopened(conn, row.id)


def _insert(conn: Connection, request: Request) -> str:
    """The slug that was free: the request, the request with a part of the id, or the id itself."""
    slug = slug_from_request(request.requested_slug, tenant_id=request.tenant_id)
    born_with = release.of_new_tenants(conn)
    for candidate in (slug, with_suffix(slug, request.tenant_id), request.tenant_id):
        try:
            tenant.insert(
                conn,
                tenant_id=request.tenant_id,
                slug=candidate,
                display_name=request.display_name or candidate,
                customer_id=request.customer_id,
                spec=replace(request.spec, custom_domains=()),
                paid_at=request.paid_at,
                release=born_with,
            )
        except SlugTaken:
            continue
        return candidate
    raise SlugTaken(f"no slug is free for {request.tenant_id}")


def _claim_domains(conn: Connection, request: Request) -> tuple[TenantSpec, list[RefusedDomain]]:
    """The spec with the domains that are this tenant's to use, and those that are another's."""
    granted: list[str] = []
    taken: list[RefusedDomain] = []
    for host in request.spec.custom_domains:
        if hostname.want(conn, host, request.tenant_id) == request.tenant_id:
            granted.append(host)
        else:
            taken.append(RefusedDomain(host, TAKEN))
    return replace(request.spec, custom_domains=tuple(granted)), taken


def new_placement_id() -> str:
    return placement_id_for(secrets.token_bytes(16))


def place(conn: Connection, tenant_id: str, plan: Plan, *, actor: str) -> Placement:
    """Record, then act: every outside name is fixed here, before anything outside is called."""
    place = clusters.find_place(conn, plan)
    cluster_id = clusters.take(conn, place, reason=f"needed by {tenant_id}", actor=actor)
    placed = Placement(new_placement_id(), tenant_id, cluster_id)
    placement.insert(conn, placed)
    audit.append(
        conn,
        actor=actor,
        action="tenant.place",
        resource=tenant_id,
        detail={"placement": placed.id, "cluster": placed.cluster_id},
    )
    return placed


def _reshape(conn: Connection, tenant_id: str, plan: Plan, *, actor: str) -> None:
    """A dedicated tenant's cluster follows its plan. A shared one's does not: it is not its alone; and for a
    plan of the other isolation the engine moves it when it has done the rest."""
    placed = placement.current(conn, tenant_id)
    if placed is None:
        return
    home = cluster.get(conn, placed.cluster_id)
    wanted = ClusterSpec.for_plan(plan, engine_version=home.spec.engine_version)
    wanted = replace(wanted, subnet_group=home.spec.subnet_group)
    if wanted.cluster_class == home.cluster_class or {wanted.isolation, home.spec.isolation} != {
        Isolation.DEDICATED
    }:
        return
    cluster.set_spec(conn, home.id, wanted)
    audit.append(
        conn, actor=actor, action="cluster.spec", resource=home.id, detail={"spec": wanted.to_json()}
    )
    job.ensure(conn, JobKind.CLUSTER, home.id, reason=f"plan of {tenant_id} changed", actor=actor)


_MEANT: Mapping[str, Callable[[TenantRow, str], bool]] = {
    "id": lambda row, name: row.id == name,
    "slug": lambda row, name: row.slug == name,
    "former slug": lambda row, name: name in row.former_slugs,
    "customer": lambda row, name: row.customer_id == name,
    "custom domain": lambda _row, name: "." in name,
    "contract": lambda _row, _name: True,
}
"""What a name may be, the first that fits counts."""


def look_up(conn: Connection, name: str) -> tuple[TenantRow, str]:
    """A tenant by whatever support has of it, and what that is. Raises NotFound, and Conflict for a customer
    that has several."""
    rows = tenant.meant_by(conn, name)
    for what, fits in _MEANT.items():
        found = [row for row in rows if fits(row, name)]
        if len(found) > 1:
            raise Conflict(
                f"{what} {name} has several tenants: {', '.join(f'{row.slug} ({row.id})' for row in found)}"
            )
        if found:
            return found[0], what
    waits = one(contract.find(conn, name), f"tenant {name}")
    raise NotFound(f"contract {name} is {waits.outcome} and for no tenant: {waits.reason}")


def resolve(conn: Connection, name: str) -> TenantRow:
    """A tenant by id or slug, as what is done to one names it. Raises NotFound, which says what else that
    name is."""
    row, what = look_up(conn, name)
    if what not in ("id", "slug"):
        raise NotFound(f"no tenant is called {name}: it is the {what} of {row.slug} ({row.id})")
    return row


def show(conn: Connection, name: str) -> TenantDetail:
    """All of one moment: whoever waits for the end of an operation reads what it left behind, never the
    tenant as it was before and the operation as it is after. Raises as `look_up`."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row, what = look_up(conn, name)
        placed = placement.current(conn, row.id)
        return TenantDetail(
            tenant=row,
            found_by=what,
            deciding=job.is_open(conn, JobKind.INTAKE, row.customer_id),
            placement=placed,
            hostnames=hostname.of_tenant(conn, row.id),
            operations=operation.page(conn, before=None, limit=10, resource_id=row.id),
            login=None if placed is None else placement.login(conn, placed),
            transfer=transfer.latest(conn, row.id),
            contracts=contract.of_tenant(conn, row.id),
            holds=hold.of_tenant(conn, row.id),
            freezes=hold.freezes(conn, hold.scopes(row.id, None if placed is None else placed.cluster_id)),
        )
