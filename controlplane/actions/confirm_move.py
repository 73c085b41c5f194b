"""The word of a person that a move, or a restore, is good: what is left at the source is deleted."""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.move import MovePhase
from controlplane.services import moves


def perform(asked: OfTenant[Parameters]) -> Begun:
    turned = moves.turn(asked.conn, asked.row.id, MovePhase.MOVED, to=MovePhase.CONFIRMED)
    return Begun({"move": turned.id}, asked.converge())


register(
    Action(
        name="confirm-move",
        summary="The move, or restore, is good: delete what is left at the source.",
        perform=perform,
        audit="move.confirmed",
    )
)
