"""A new password for the login of a tenant's database."""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.errors import Conflict
from controlplane.domain.tenant import Lifecycle
from controlplane.store import placement


def perform(asked: OfTenant[Parameters]) -> Begun:
    conn, row = asked.conn, asked.row
    placed = placement.current(conn, row.id)
    if placed is None or row.spec.lifecycle is Lifecycle.CLOSED:
        raise Conflict(f"tenant {row.id} is {row.phase.value}: it has no login in use to rotate")
    placement.ask_rotation(conn, placed)
    return Begun({}, asked.converge())


register(
    Action(
        name="rotate",
        summary="Give its database login a new password; no request fails meanwhile.",
        perform=perform,
        patience=600.0,
    )
)
