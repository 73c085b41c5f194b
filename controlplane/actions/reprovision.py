"""Observe everything anew, Terraform included, and repair what differs.

What the registry took for confirmed is forgotten first: the proof of access and the stack's digest, which
spare an ordinary observation its Terraform plan.
"""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, Subject, register
from controlplane.store import cluster, placement, preview, stack, tenant


def perform(asked: OfTenant[Parameters]) -> Begun:
    conn, row = asked.conn, asked.row
    tenant.set_access_proof(conn, row.id, None)
    placed = placement.current(conn, row.id)
    if placed is not None:
        stack.distrust(conn, placed.workspace)
        home = cluster.get(conn, placed.cluster_id)
        if not home.ready or home.needs_attention is not None:
            asked.converge(home.id, subject=Subject.CLUSTER)
    return Begun({}, asked.converge())


def in_advance(asked: OfTenant[Parameters]) -> int:
    return preview.request(asked.conn, asked.row.id, actor=asked.actor)


register(
    Action(
        name="reprovision",
        summary="Look at everything anew, Terraform included, and repair what differs.",
        perform=perform,
        preview=in_advance,
    )
)
