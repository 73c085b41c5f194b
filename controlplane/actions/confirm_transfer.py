"""The word of a person that a move, or a restore, is good: what is left at the source is deleted."""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.transfer import TransferPhase
from controlplane.services import transfers


def perform(asked: OfTenant[Parameters]) -> Begun:
    to, sources = TransferPhase.CONFIRMED, [TransferPhase.REVERSIBLE]
    found = transfers.turn(asked.conn, asked.row.id, to, sources=sources)
    return Begun({"transfer": found.id, "kind": found.kind.value}, asked.converge())


register(
    Action(
        name="confirm-transfer",
        summary="The move, or restore, is good: delete what is left at the source.",
        perform=perform,
        audit="transfer.confirmed",
    )
)
