"""Leave a tenant, a cluster or the whole fleet alone for a while.

What is asked for meanwhile is recorded and waits; what is served is served on. For an incident, a maintenance
of AWS's, an investigation, or a customer who wants nothing changed today.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from controlplane.actions.action import Action, Asked, Begun, Parameters, Subject, register
from controlplane.domain.hold import HoldKind
from controlplane.store import hold


class Freeze(Parameters):
    hours: int = Field(
        ge=1,
        le=720,
        title="a whole number, 1 to 720",
        description="After which it ends by itself.",
        json_schema_extra={"metavar": "HOURS"},
    )
    interrupt: bool = Field(
        default=False,
        title="true or false",
        description="Cut off what runs, as safely as a worker that has died; else it is finished.",
    )


class FreezeFleet(Freeze):
    terraform: bool = Field(
        default=False, title="true or false", description="Only what runs Terraform; all else goes on."
    )


def scope_of(asked: Asked[Any, Any]) -> str:
    if asked.subject is not Subject.FLEET:
        return str(asked.row.id)
    return hold.TERRAFORM if asked.params.terraform else hold.ALL


def perform(asked: Asked[Any, Any]) -> Begun:
    params = asked.params
    begun = hold.begin(
        asked.conn,
        HoldKind.FREEZE,
        scope_of(asked),
        seconds=params.hours * 3600.0,
        actor=asked.actor,
        reason=asked.reason,
        interrupts=params.interrupt,
    )
    detail = {"scope": begun.scope, "hours": params.hours, "interrupt": params.interrupt}
    return Begun(detail, freeze=begun)


for _subject, _params, _what in (
    (
        Subject.TENANT,
        Freeze,
        "Begin no change of it: no other plan, no repair, no move, no migration, no purge. Exports and dry"
        " runs go on, and rollouts without it.",
    ),
    (
        Subject.CLUSTER,
        Freeze,
        "Begin no change of it and of the tenants on it; rollouts go on without those.",
    ),
    (Subject.FLEET, FreezeFleet, "Begin no work at all, or none that runs Terraform."),
):
    register(
        Action(name="freeze", summary=_what, params=_params, perform=perform, subject=_subject, patience=0.0)
    )
