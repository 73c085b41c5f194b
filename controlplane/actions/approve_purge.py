"""The second person's word, by the digest of what both have looked at.

Refused to the one who asked, for a digest that is stale, for a tenant that has come back and for one whose
customer has a contract for it.
"""

from __future__ import annotations

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.errors import NotFound
from controlplane.domain.job import JobKind
from controlplane.domain.purge import require_same, require_second_person
from controlplane.services import purges
from controlplane.store import job, purge


class ApprovePurge(Parameters):
    digest: str = Field(
        pattern="^[0-9a-f]{64}$",
        title="the digest of what was looked at, 64 hexadecimal digits",
        description="Of what was looked at; `purge` prints it.",
        json_schema_extra={"metavar": "DIGEST"},
    )


def perform(asked: OfTenant[ApprovePurge]) -> Begun:
    conn, row, digest = asked.conn, asked.row, asked.params.digest
    purges.refuse_while_it_pays(conn, row)
    found = purge.of_tenant(conn, row.id)
    if found is None:
        raise NotFound(f"no purge of tenant {row.id} was asked for")
    require_second_person(requested_by=found.requested_by, approver=asked.actor)
    require_same(requested=found.digest, now=purges.content(conn, row).digest, approved=digest)
    purge.approve(conn, found.id, actor=asked.actor)
    reason = f"purge {found.id} was approved"
    operation_id = job.ensure(conn, JobKind.TENANT, row.id, reason=reason, actor=asked.actor)
    return Begun({"purge": found.id, "digest": digest}, operation_id, purge=found)


register(
    Action(
        name="approve-purge",
        summary="Approve the purge that somebody else asked for, by its digest.",
        params=ApprovePurge,
        perform=perform,
        audit="purge.approve",
        full_id=True,
    )
)
