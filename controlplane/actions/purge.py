"""Delete a closed tenant for good: one person asks, another one approves what both have looked at.

All of it only records. The engine reads an approved purge as part of what a closed tenant should be, and
deletes (see `domain.planner`).
"""

from __future__ import annotations

from pydantic import Field

from controlplane.actions.action import Action, Asked, Begun, Parameters, register
from controlplane.domain.errors import Conflict, NotFound
from controlplane.domain.operation import ResourceKind
from controlplane.domain.purge import PurgeState, require_same, require_second_person
from controlplane.services import purges
from controlplane.services.purges import PurgeDetail
from controlplane.store import operation, purge, tenant


class Purge(Parameters):
    early: bool = Field(
        False,
        title="true or false",
        description="Before the end of its retention: the customer demands it.",
    )


class Approve(Parameters):
    digest: str = Field(
        title="the digest of what was looked at",
        description="Of what was looked at; `purge` prints it.",
        json_schema_extra={"metavar": "DIGEST"},
    )


class Withdraw(Parameters):
    pass


def perform(asked: Asked[Purge]) -> Begun:
    """The same request again by the same person finds the first."""
    conn, row, early = asked.conn, asked.tenant, asked.params.early
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


def in_advance(asked: Asked[Purge]) -> PurgeDetail:
    return purges.show(asked.conn, asked.tenant.id)


def approve(asked: Asked[Approve]) -> Begun:
    """Refused to the one who asked, for a digest that is stale, for a tenant that has come back and for one
    whose customer has a subscription."""
    conn, row, digest = asked.conn, asked.tenant, asked.params.digest
    purges.refuse_while_it_pays(conn, row)
    found = purge.of_tenant(conn, row.id)
    if found is None:
        raise NotFound(f"no purge of tenant {row.id} was asked for")
    require_second_person(requested_by=found.requested_by, approver=asked.actor)
    require_same(requested=found.digest, now=purges.content(conn, row).digest, approved=digest)
    purge.approve(conn, found.id, actor=asked.actor)
    reason = f"purge {found.id} was approved"
    operation_id = operation.request(conn, ResourceKind.TENANT, row.id, reason=reason, actor=asked.actor)
    return Begun({"purge": found.id, "digest": digest}, operation_id, purge=found)


def withdraw(asked: Asked[Withdraw]) -> Begun:
    conn, row = asked.conn, asked.tenant
    if purge.begun(conn, row.id):
        raise Conflict(f"the purge of tenant {row.id} has begun: there is nothing to go back to")
    found = purge.of_tenant(conn, row.id)
    if found is None or purge.withdraw(conn, row.id) is None:
        raise NotFound(f"no purge of tenant {row.id} was asked for")
    return Begun({"purge": found.id}, purge=found)


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
register(
    Action(
        name="approve-purge",
        summary="Approve the purge that somebody else asked for, by its digest.",
        params=Approve,
        perform=approve,
        audit="purge.approve",
        full_id=True,
    )
)
register(
    Action(
        name="withdraw-purge",
        summary="Take the purge back, as long as it has not begun.",
        params=Withdraw,
        perform=withdraw,
        audit="purge.withdraw",
        full_id=True,
        patience=0.0,
    )
)
