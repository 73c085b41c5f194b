"""Move a tenant to another cluster while it is used."""

from __future__ import annotations

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.catalogue import Isolation
from controlplane.domain.transfer import TransferKind, validate_destination
from controlplane.services import transfers
from controlplane.store import cluster, preview


class Move(Parameters):
    to: str = Field(
        title="dedicated, shared or a cluster's id",
        description="Where it shall live.",
        json_schema_extra={"metavar": "dedicated|shared|CLUSTER"},
    )


def perform(asked: OfTenant[Move]) -> Begun:
    destination = _checked(asked)
    begun = transfers.begin(
        asked.conn,
        asked.row,
        TransferKind.MOVE,
        destination=destination,
        actor=asked.actor,
        reason=asked.reason,
    )
    return Begun({**begun, "to": destination}, asked.converge())


def in_advance(asked: OfTenant[Move]) -> int:
    return preview.request(asked.conn, asked.row.id, actor=asked.actor, transfer={"to": _checked(asked)})


def _checked(asked: OfTenant[Move]) -> str:
    destination = validate_destination(asked.params.to)
    placed = transfers.require_transferable(asked.conn, asked.row)
    if destination not in tuple(Isolation):
        transfers.require_free(asked.conn, cluster.get(asked.conn, destination), placed)
    return destination


register(
    Action(
        name="move",
        summary="Move it to another cluster while it is used; then `confirm-transfer`, or `abort-transfer`"
        " on the way.",
        params=Move,
        perform=perform,
        audit=transfers.BEGIN,
        preview=in_advance,
        patience=6 * 3600.0,
    )
)
