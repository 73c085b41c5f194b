"""End a freeze before its time: what waits is begun, the most urgent first."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from controlplane.actions.action import Action, Asked, Begun, Parameters, Subject, register
from controlplane.actions.freeze import scope_of
from controlplane.domain.hold import HoldKind
from controlplane.domain.job import Lane
from controlplane.store import hold, job


class UnfreezeFleet(Parameters):
    terraform: bool = Field(
        default=False, title="true or false", description="The freeze of what runs Terraform."
    )


def perform(asked: Asked[Any, Any]) -> Begun:
    lifted = hold.lift(asked.conn, HoldKind.FREEZE, scope_of(asked), actor=asked.actor)
    job.has_work(*Lane)
    return Begun({"scope": lifted.scope}, freeze=lifted)


for _subject, _params in (
    (Subject.TENANT, Parameters),
    (Subject.CLUSTER, Parameters),
    (Subject.FLEET, UnfreezeFleet),
):
    register(
        Action(
            name="unfreeze",
            summary="End its freeze; what has waited is begun.",
            params=_params,
            perform=perform,
            subject=_subject,
            patience=0.0,
        )
    )
