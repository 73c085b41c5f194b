"""Observe everything anew, Terraform included, and repair what differs.

What the registry took for confirmed is forgotten first: the proof of access and the stack's digest, which
spare an ordinary observation its Terraform plan.
"""

from __future__ import annotations

from controlplane.actions.action import Action, Asked, Begun, Parameters, register
from controlplane.domain.operation import ResourceKind
from controlplane.store import cluster, operation, placement, preview, stack, tenant


class Reprovision(Parameters):
    pass


def perform(asked: Asked[Reprovision]) -> Begun:
    conn, row = asked.conn, asked.tenant
    tenant.set_access_proof(conn, row.id, None)
    placed = placement.current(conn, row.id)
    if placed is not None:
        stack.forget(conn, placed.workspace)
        home = cluster.get(conn, placed.cluster_id)
        if not home.ready or home.needs_attention is not None:
            operation.request(conn, ResourceKind.CLUSTER, home.id, reason=asked.reason, actor=asked.actor)
    return Begun(
        {},
        operation.request(conn, ResourceKind.TENANT, row.id, reason=asked.reason, actor=asked.actor),
    )


def in_advance(asked: Asked[Reprovision]) -> int:
    return preview.request(asked.conn, asked.tenant.id, actor=asked.actor)


register(
    Action(
        name="reprovision",
        summary="Look at everything anew, Terraform included, and repair what differs.",
        params=Reprovision,
        perform=perform,
        preview=in_advance,
    )
)
