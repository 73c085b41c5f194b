"""Move a tenant to another cluster while it is used."""

from __future__ import annotations

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.catalogue import Isolation
from controlplane.domain.move import validate_destination
from controlplane.services import moves
from controlplane.store import cluster, preview


class Move(Parameters):
    to: str = Field(
        title="dedicated, shared or a cluster's id",
        description="Where it shall live.",
        json_schema_extra={"metavar": "dedicated|shared|CLUSTER"},
    )


def perform(asked: OfTenant[Move]) -> Begun:
    destination = _checked(asked)
    placed = moves.record(
        asked.conn,
        asked.row,
        destination=destination,
        by_hand=True,
        actor=asked.actor,
        reason=asked.reason,
    )
    operation_id = asked.converge()
    return Begun({"to": destination, "from": placed.cluster_id}, operation_id)


def in_advance(asked: OfTenant[Move]) -> int:
    return preview.request(asked.conn, asked.row.id, actor=asked.actor, move_to=_checked(asked))


def _checked(asked: OfTenant[Move]) -> str:
    destination = validate_destination(asked.params.to)
    placed = moves.require_movable(asked.conn, asked.row)
    if destination not in tuple(Isolation):
        moves.require_free(asked.conn, cluster.get(asked.conn, destination), placed)
    return destination


register(
    Action(
        name="move",
        summary="Move it to another cluster while it is used; then `confirm-move`, or `abort-move` on"
        " the way.",
        params=Move,
        perform=perform,
        preview=in_advance,
        patience=6 * 3600.0,
    )
)
