"""Clones: a tenant of the operator's own, with the rows of a customer's, for support and staging.

No contract stands behind it, so nothing but `close` ends it. It has logins, secrets, a role and a host of
its own; the source's custom domains and secrets stay the source's.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.errors import Conflict
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.slug import validate_slug
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind
from controlplane.services import transfers
from controlplane.store import audit, tenant, transfer

INTERNAL = "internal"
"""Instead of a customer's id and of Stripe's word for the contract."""


class Clone(Parameters):
    slug: str = Field(
        title="a slug of the clone's own, 3 to 30 characters",
        description="The clone's own; it answers at this name of the zone.",
    )


def perform(asked: OfTenant[Clone]) -> Begun:
    conn, source, slug = asked.conn, asked.row, asked.params.slug
    in_advance(asked)
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
            trial_ends_at=None,
            grace_ends_at=None,
            closes_at=None,
        ),
        paid_at=None,
        release=source.release,
        clone_of=source.id,
    )
    begun = transfer.insert(
        conn, clone_id, TransferKind.CLONE, plan=source.spec.plan, reason=asked.reason, actor=asked.actor
    )
    kind = TransferKind.CLONE.value
    detail = {"transfer": begun, "kind": kind, "of": source.id, "as": clone_id, "slug": slug}
    audit.append(
        conn,
        actor=asked.actor,
        action=transfers.BEGIN,
        resource=clone_id,
        detail={**detail, "reason": asked.reason},
    )
    operation_id = asked.converge(clone_id)
    return Begun(detail, operation_id, made=clone_id)


def in_advance(asked: OfTenant[Clone]) -> dict[str, object]:
    """Raises Invalid, Conflict where none may be made under this slug."""
    source, slug = asked.row, asked.params.slug
    validate_slug(slug)
    if source.ready_at is None or source.spec.lifecycle is Lifecycle.CLOSED:
        raise Conflict(f"tenant {source.id} is {source.phase.value}: only one that serves can be cloned")
    tenant.require_free_slug(asked.conn, slug, None)
    return {"of": source.id, "slug": slug, "plan": source.spec.plan, "release": source.release}


register(
    Action(
        name="clone",
        summary="Make a tenant of your own with its rows, for support or staging. It holds a"
        " customer's data.",
        params=Clone,
        perform=perform,
        audit=transfers.BEGIN,
        preview=in_advance,
        patience=6 * 3600.0,
    )
)
