"""A standard dump of a tenant's data, for the customer or for whoever asks on its behalf."""

from __future__ import annotations

import secrets

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.data_copy import CopyKind
from controlplane.domain.errors import Conflict
from controlplane.domain.job import JobKind
from controlplane.store import data_copy, job, placement


class Export(Parameters):
    keep_days: int = Field(
        7,
        ge=1,
        le=365,
        title="a whole number, 1 to 365",
        description="Then it is deleted from the bucket.",
    )


def perform(asked: OfTenant[Export]) -> Begun:
    """The same request again finds the one that is being made; once that has ended it makes another, of the
    data of then. A closed tenant's data can be exported as long as it is kept."""
    conn, row, keep_days = asked.conn, asked.row, asked.params.keep_days
    placed = placement.current(conn, row.id)
    if placed is None or row.ready_at is None:
        raise Conflict(f"tenant {row.id} is {row.phase.value}: it has no data to export")
    made = data_copy.export_in_making(conn, row.id, keep_days=keep_days)
    if made is not None:
        return Begun({"export": made.id, "name": made.name}, export=made)
    made = data_copy.record(
        conn,
        tenant_id=row.id,
        cluster_id=placed.cluster_id,
        purge_id=None,
        kind=CopyKind.DUMP,
        name=f"exports/{placed.id}-{secrets.token_hex(8)}.dump",
        keep_days=keep_days,
        actor=asked.actor,
    )
    job.ensure(conn, JobKind.EXPORT, str(made.id), reason=asked.reason, actor=asked.actor)
    return Begun({"export": made.id, "name": made.name}, export=made)


register(
    Action(
        name="export",
        summary="A standard dump (pg_dump's custom format) of its data into the bucket for copies, with"
        " checksums.",
        params=Export,
        perform=perform,
        audit="export.request",
    )
)
