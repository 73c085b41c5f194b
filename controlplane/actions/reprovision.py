"""Observe everything anew, Terraform included, and repair what differs.

What the registry took for confirmed is forgotten first: the proof of access and the digest of the stack that
has its secret, which spare an ordinary observation its Terraform plan. That plan is its cluster's to make.
"""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, Subject, register
from controlplane.store import placement, preview, stack


def perform(asked: OfTenant[Parameters]) -> Begun:
    conn, row = asked.conn, asked.row
    placed = placement.current(conn, row.id)
    if placed is not None:
        placement.set_access_proof(conn, placed, None)
        stack.distrust(conn, stack.workspace_of("placements", placed.cluster_id))
        asked.converge(placed.cluster_id, subject=Subject.CLUSTER)
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
