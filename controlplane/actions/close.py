"""End a clone. A customer's tenant closes with its contracts."""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.errors import Conflict
from controlplane.domain.tenant import Lifecycle
from controlplane.store import tenant

RETENTION_DAYS = 1
"""Of a clone that was closed: its rows are a copy."""


def perform(asked: OfTenant[Parameters]) -> Begun:
    conn, row = asked.conn, asked.row
    if row.clone_of is None:
        raise Conflict(f"tenant {row.id} is a customer's: it closes with its contracts")
    tenant.set_spec(conn, row.id, row.spec.with_lifecycle(Lifecycle.CLOSED))
    tenant.mark_closed(conn, row.id, retention_days=RETENTION_DAYS)
    return Begun({}, asked.converge())


register(
    Action(
        name="close",
        summary="End a clone. A customer's tenant closes with its contracts.",
        perform=perform,
        patience=600.0,
    )
)
