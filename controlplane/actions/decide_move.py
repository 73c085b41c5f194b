"""The word of a person that a move, or a restore, is good: or that it is to be given up.

Confirming deletes what is left at the source. Aborting deletes the target, and is refused once that is in
use: what was written since is there alone, and the way back is another move.
"""

from __future__ import annotations

from functools import partial

from controlplane.actions.action import Action, Asked, Begun, Parameters, register
from controlplane.domain.errors import Conflict
from controlplane.domain.move import MovePhase
from controlplane.domain.operation import ResourceKind
from controlplane.services import moves
from controlplane.store import move, operation, tenant


class Decision(Parameters):
    pass


def perform(asked: Asked[Decision], *, to: MovePhase, fitting: MovePhase) -> Begun:
    conn, row = asked.conn, asked.tenant
    found = move.current(conn, row.id)
    if found is None:
        raise Conflict(f"tenant {row.id} has no move that is not over")
    move.turn(conn, found.id, to, sources=[fitting])
    if to is MovePhase.ABANDONED:
        move.decline(conn, found.id)
        moves.close_restored(conn, found.id, row.id, actor=asked.actor)
    tenant.rise(conn, row.id)
    return Begun(
        {"move": found.id},
        operation.request(conn, ResourceKind.TENANT, row.id, reason=asked.reason, actor=asked.actor),
    )


register(
    Action(
        name="confirm-move",
        summary="The move, or restore, is good: delete what is left at the source.",
        params=Decision,
        perform=partial(perform, to=MovePhase.CONFIRMED, fitting=MovePhase.MOVED),
        audit="move.confirmed",
    )
)
register(
    Action(
        name="abort-move",
        summary="Stay at the source, or unrestored; not once the target is in use.",
        params=Decision,
        perform=partial(perform, to=MovePhase.ABANDONED, fitting=MovePhase.PREPARING),
        audit="move.abandoned",
    )
)
