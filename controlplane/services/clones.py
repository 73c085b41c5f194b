"""Clones: a tenant of the operator's own, with the rows of a customer's, for support and staging.

No subscription stands behind it, so nothing but `close` ends it. It has logins, secrets, a role and a
host of its own; the source's custom domains and secrets stay the source's.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from controlplane.domain.catalogue import Catalogue
from controlplane.domain.errors import Conflict
from controlplane.domain.operation import ResourceKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.slug import validate_slug
from controlplane.domain.tenant import Lifecycle
from controlplane.services import tenants
from controlplane.store import audit, lease, operation, tenant
from controlplane.store.registry import Connection
from controlplane.store.tenant import TenantRow

INTERNAL = "internal"
"""Instead of a customer's id and of Stripe's word for the subscription."""

RETENTION_DAYS = 1
"""Of a clone that was closed: its rows are a copy."""


def check(conn: Connection, source_id: str, *, slug: str) -> TenantRow:
    """The source of a clone that may be made under this slug. Raises Invalid, Conflict."""
    validate_slug(slug)
    source = tenant.get(conn, source_id)
    if source.ready_at is None or source.spec.lifecycle is Lifecycle.CLOSED:
        raise Conflict(f"tenant {source.id} is {source.phase.value}: only one that serves can be cloned")
    if source.clone_of is not None and source.cloned_at is None:
        raise Conflict(f"tenant {source.id} is still being cloned itself")
    if tenant.find_by_slug(conn, slug) is not None:
        raise tenant.SlugTaken(f"slug {slug} is taken")
    return source


def request(conn: Connection, source_id: str, *, slug: str, actor: str, reason: str) -> tuple[str, int]:
    """(the clone's id, its operation's). Raises as `check`."""
    with conn.transaction():
        source = check(conn, source_id, slug=slug)
        clone_id = tenant_id_for(f"clone of {source.id} {secrets.token_hex(16)}")
        tenant.insert(
            conn,
            tenant_id=clone_id,
            slug=slug,
            display_name=f"{source.display_name} (clone)",
            customer_id=INTERNAL,
            spec=replace(
                source.spec,
                lifecycle=Lifecycle.ACTIVE,
                subscription_status=INTERNAL,
                custom_domains=(),
                current_period_end=None,
            ),
            paid_at=None,
            release=source.release,
            clone_of=source.id,
        )
        lease.register(conn, ResourceKind.TENANT, clone_id)
        for resource in (source.id, clone_id):
            audit.append(
                conn,
                actor=actor,
                action="tenant.clone",
                resource=resource,
                detail={"of": source.id, "as": clone_id, "slug": slug, "reason": reason},
            )
        operation_id = operation.request(conn, ResourceKind.TENANT, clone_id, reason=reason, actor=actor)
    return clone_id, operation_id


def close(conn: Connection, tenant_id: str, *, actor: str, reason: str) -> int:
    """End a clone; the operation's id. Raises Conflict for a tenant that somebody pays for."""
    with conn.transaction():
        row = tenant.get(conn, tenant_id, lock=True)
        if row.clone_of is None:
            raise Conflict(f"tenant {row.id} is a customer's: it closes with its subscription")
        tenant.set_spec(conn, row.id, row.spec.with_lifecycle(Lifecycle.CLOSED))
        tenant.mark_closed(conn, row.id, retention_days=RETENTION_DAYS)
        audit.append(conn, actor=actor, action="tenant.close", resource=row.id, detail={"reason": reason})
        return operation.request(conn, ResourceKind.TENANT, row.id, reason=reason, actor=actor)


def place(
    conn: Connection, catalogue: Catalogue, row: TenantRow, *, actor: str
) -> list[tuple[ResourceKind, str]]:
    """Record where a clone will live; the clusters to notify workers of. Within the caller's transaction,
    by a worker: the web process knows no catalogue."""
    return tenants.place(conn, row.id, catalogue.plan(row.spec.plan), actor=actor)
