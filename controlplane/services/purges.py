"""Purges: what would be deleted, the order to do it, and the second person's word.

All of it only records. The engine reads an approved purge as part of what a closed tenant should be, and
deletes (see `domain.planner`).

Nothing is deleted while there is a contract that has not ended and that is for the tenant, or of which nobody
knows yet which of its customer's tenants it is for: the closed one may well be what a paying customer asks
for. It is refused to whoever asks, and again before the first step that deletes (`heed_return`).
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.purge import (
    CATALOGUE,
    POLICY,
    RETURN_RUNBOOK,
    Content,
    content_of,
    kept_for,
)
from controlplane.domain.tenant import Lifecycle
from controlplane.store import (
    audit,
    cluster,
    contract,
    data_copy,
    placement,
    purge,
    route,
    tenant,
    transfer,
)
from controlplane.store.data_copy import CopyRow
from controlplane.store.purge import PurgeRow
from controlplane.store.registry import Connection
from controlplane.store.tenant import TenantRow


@dataclass(frozen=True, slots=True)
class PurgeDetail:
    """`content`: what would be deleted now; None once it is gone. `due_in`: seconds until the end of its
    retention. `purge`: the one that was asked for. `copy`: what is kept of it. `kept_for`: why nothing of
    it may be deleted now, None where it may."""

    tenant: TenantRow
    content: Content | None
    due_in: float | None
    purge: PurgeRow | None
    copy: CopyRow | None
    kept_for: str | None


def show(conn: Connection, tenant_id: str) -> PurgeDetail:
    """Raises NotFound, and Conflict for a tenant that is not closed."""
    row = tenant.get(conn, tenant_id)
    found = purge.of_tenant(conn, row.id)
    return PurgeDetail(
        tenant=row,
        content=None if row.purged_at is not None else content(conn, row),
        due_in=tenant.retention_left(conn, row.id),
        purge=found,
        copy=None if found is None else data_copy.of_purge(conn, found.id),
        kept_for=None if row.purged_at is not None else _kept_for(conn, row),
    )


def withdraw_for_return(conn: Connection, tenant_id: str, *, actor: str) -> None:
    """The customer is back: nobody's earlier word deletes the data. Within the transaction that opens the
    tenant, which has locked its row."""
    _withdraw(conn, tenant_id, actor=actor, reason="the customer came back")


def heed_return(conn: Connection, tenant_id: str, *, actor: str) -> str | None:
    """Hold a closed tenant against its customer's contracts, within the caller's transaction.

    Where one has not ended: the purge that was asked for is withdrawn, a person is notified, and the answer
    is why. Where all have, that need is over; None, as for a tenant that is not in its retention."""
    row = tenant.get(conn, tenant_id, lock=True)
    if row.closed_at is None or row.purged_at is not None or purge.begun(conn, row.id):
        return None
    why = _kept_for(conn, row)
    if why is None:
        tenant.end_return(conn, row.id)
        return None
    _withdraw(conn, row.id, actor=actor, reason=why)
    tenant.set_attention(
        conn, row.id, reason=f"closed and kept, not to be purged: {why}", runbook=RETURN_RUNBOOK
    )
    return why


def order_by_policy(conn: Connection, tenant_id: str) -> bool:
    """The plan says that nobody need be asked: order the purge if it is due. Within the caller's
    transaction; False where one was asked for already, or its customer has a contract."""
    row = tenant.get(conn, tenant_id, lock=True)
    if purge.of_tenant(conn, row.id) is not None or tenant.retention_left(conn, row.id) != 0.0:
        return False
    if _kept_for(conn, row) is not None:
        return False
    listed = content(conn, row)
    asked = purge.request(
        conn,
        row.id,
        reason="the end of its retention",
        content=listed.to_json(),
        digest=listed.digest,
        actor=POLICY,
    )
    _approve(conn, row.id, asked.id, digest=listed.digest, actor=CATALOGUE)
    return True


def certificate(conn: Connection, tenant_id: str) -> dict[str, object]:
    """Raises NotFound before the tenant is purged."""
    row = tenant.get(conn, tenant_id)
    found = purge.of_tenant(conn, row.id)
    if found is None or found.certificate is None:
        raise NotFound(f"tenant {row.id} is {row.phase.value}: it has no deletion certificate")
    return found.certificate


def _kept_for(conn: Connection, row: TenantRow) -> str | None:
    live = contract.live_of_tenant(conn, row.id)
    return kept_for(row.customer_id, live, clone=row.clone_of is not None)


def refuse_while_it_pays(conn: Connection, row: TenantRow) -> None:
    why = _kept_for(conn, row)
    if why is not None:
        raise Conflict(f"tenant {row.id} is not purged: {why} (runbook {RETURN_RUNBOOK})")


def _withdraw(conn: Connection, tenant_id: str, *, actor: str, reason: str) -> int | None:
    purge_id = purge.withdraw(conn, tenant_id)
    if purge_id is not None:
        audit.append(
            conn,
            actor=actor,
            action="purge.withdraw",
            resource=tenant_id,
            detail={"purge": purge_id, "reason": reason},
        )
    return purge_id


def _approve(conn: Connection, tenant_id: str, purge_id: int, *, digest: str, actor: str) -> None:
    purge.approve(conn, purge_id, actor=actor)
    audit.append(
        conn,
        actor=actor,
        action="purge.approve",
        resource=tenant_id,
        detail={"purge": purge_id, "digest": digest},
    )


def content(conn: Connection, row: TenantRow) -> Content:
    if row.spec.lifecycle is not Lifecycle.CLOSED or row.closed_at is None:
        raise Conflict(f"tenant {row.id} is {row.phase.value}: only one that is closed can be purged")
    if transfer.current(conn, row.id) is not None:
        raise Conflict(f"tenant {row.id} has a transfer that is not over: confirm or abort it first")
    placed = placement.current(conn, row.id)
    home = None if placed is None else cluster.get(conn, placed.cluster_id)
    return content_of(
        tenant_id=row.id,
        slug=row.slug,
        customer_id=row.customer_id,
        closed_at=row.closed_at,
        placement=placed,
        isolation=None if home is None else home.spec.isolation,
        clones=tenant.clones_of(conn, row.id),
        hosts=sorted({*route.of_tenant(conn, row.id), *row.spec.custom_domains}),
    )
