"""Plan a cluster's two Terraform stacks anew and repair what differs.

The one way to set a cluster going again that needed a person and has no tenant whose `reprovision` would:
one of the warm pool, or one that was restored.
"""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfCluster, Parameters, Subject, register
from controlplane.domain.errors import Conflict
from controlplane.store import stack


def perform(asked: OfCluster[Parameters]) -> Begun:
    if asked.row.destroyed_at is not None:
        raise Conflict(f"cluster {asked.row.id} is destroyed: nothing is left to repair")
    for name in ("cluster", "placements"):
        stack.distrust(asked.conn, stack.workspace_of(name, asked.row.id))
    return Begun({}, asked.converge())


register(
    Action(
        name="reprovision",
        summary="Plan its stacks with Terraform anew and repair what differs.",
        perform=perform,
        subject=Subject.CLUSTER,
    )
)
