"""Delete a closed tenant for good: one person asks, `approve_purge` is another one's word.

All of it only records. The engine reads an approved purge as part of what a closed tenant should be, and
deletes (see `domain.planner`).
"""

from __future__ import annotations

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.errors import Conflict
from controlplane.domain.purge import PurgeState
from controlplane.services import purges
from controlplane.services.purges import PurgeDetail
from controlplane.store import purge, tenant


class Purge(Parameters):
    early: bool = Field(
        False,
        title="true or false",
        description="Before the end of its retention: the customer demands it.",
    )


def perform(asked: OfTenant[Purge]) -> Begun:
    """The same request again by the same person finds the first."""
    conn, row, early = asked.conn, asked.row, asked.params.early
    content = purges.content(conn, row)
    purges.refuse_while_it_pays(conn, row)
    found = purge.of_tenant(conn, row.id)
    if found is not None:
        same = (found.digest, found.requested_by) == (content.digest, asked.actor)
        if same and found.state is PurgeState.REQUESTED:
            return Begun(None, purge=found)
        raise Conflict(f"tenant {row.id} has a purge already, which is {found.state}")
    if tenant.retention_left(conn, row.id) and not early:
        until = "" if row.purge_after is None else row.purge_after.isoformat(timespec="seconds")
        raise Conflict(f"tenant {row.id} keeps its data until {until}: only an early purge may take it")
    made = purge.request(
        conn,
        row.id,
        reason=asked.reason,
        content=content.to_json(),
        digest=content.digest,
        actor=asked.actor,
    )
    return Begun({"purge": made.id, "digest": made.digest, "early": early}, purge=made)


def in_advance(asked: OfTenant[Purge]) -> PurgeDetail:
    return purges.show(asked.conn, asked.row.id)


register(
    Action(
        name="purge",
        summary="Delete a closed tenant for good. One person asks, another one approves.",
        params=Purge,
        perform=perform,
        preview=in_advance,
        audit="purge.request",
        full_id=True,
        patience=0.0,
        second_person=lambda _params: "approve-purge",
    )
)
