"""Take a purge back, whoever asked for it, as long as nothing is deleted."""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.errors import Conflict, NotFound
from controlplane.store import purge


def perform(asked: OfTenant[Parameters]) -> Begun:
    conn, row = asked.conn, asked.row
    if purge.begun(conn, row.id):
        raise Conflict(f"the purge of tenant {row.id} has begun: there is nothing to go back to")
    found = purge.of_tenant(conn, row.id)
    if found is None or purge.withdraw(conn, row.id) is None:
        raise NotFound(f"no purge of tenant {row.id} was asked for")
    return Begun({"purge": found.id}, purge=found)


register(
    Action(
        name="withdraw-purge",
        summary="Take the purge back, as long as it has not begun.",
        perform=perform,
        audit="purge.withdraw",
        full_id=True,
        patience=0.0,
    )
)
