"""The word of a person that a move, or a restore, is to be aborted: the target is deleted.

Refused from the write pause on: once the target is in use, what was written since is there alone, and the way
back is another move.
"""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.transfer import TransferPhase
from controlplane.services import transfers
from controlplane.store import transfer

ABORTABLE = (TransferPhase.PREPARING, TransferPhase.COPYING, TransferPhase.FOLLOWING)


def perform(asked: OfTenant[Parameters]) -> Begun:
    found = transfers.turn(asked.conn, asked.row.id, TransferPhase.ABORTED, sources=ABORTABLE)
    transfer.decline(asked.conn, found.id)
    transfers.close_restored(asked.conn, found, actor=asked.actor)
    return Begun({"transfer": found.id, "kind": found.kind.value}, asked.converge())


register(
    Action(
        name="abort-transfer",
        summary="Stay at the source, or unrestored; not once the target is in use.",
        perform=perform,
        audit="transfer.aborted",
    )
)
