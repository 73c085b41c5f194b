"""The word of a person that a move, or a restore, is to be given up: the target is deleted.

Refused once the target is in use: what was written since is there alone, and the way back is another move.
"""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.move import MovePhase
from controlplane.services import moves
from controlplane.store import move


def perform(asked: OfTenant[Parameters]) -> Begun:
    turned = moves.turn(asked.conn, asked.row.id, MovePhase.PREPARING, to=MovePhase.ABANDONED)
    move.decline(asked.conn, turned.id)
    moves.close_restored(asked.conn, turned.id, asked.row.id, actor=asked.actor)
    return Begun({"move": turned.id}, asked.converge())


register(
    Action(
        name="abort-move",
        summary="Stay at the source, or unrestored; not once the target is in use.",
        perform=perform,
        audit="move.abandoned",
    )
)
