"""Give a tenant the rows of an earlier moment, or of a snapshot.

What AWS alone can tell (is the time within the restorable window, whose is this snapshot) a worker finds
out; what the registry knows is refused here, where the one who asks still listens.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.errors import Conflict, Invalid
from controlplane.domain.placement import Placement
from controlplane.domain.transfer import RestoreRequest, TransferKind, moment, validate_request
from controlplane.services import transfers
from controlplane.store import cluster, drift, preview


class Restore(Parameters):
    at: str | None = Field(
        None,
        title="a moment with its time zone, such as 2026-11-24T10:00:00Z",
        description="As it was then, such as 2026-11-24T10:00:00Z.",
        json_schema_extra={"metavar": "MOMENT"},
    )
    snapshot: str | None = Field(
        None,
        title="the name of a snapshot",
        description="As a snapshot of its cluster holds it.",
        json_schema_extra={"metavar": "NAME"},
    )


def perform(asked: OfTenant[Restore]) -> Begun:
    conn, row = asked.conn, asked.row
    requested, placed = _checked(asked)
    home = cluster.get(conn, placed.cluster_id)
    begun = transfers.begin(
        conn,
        row,
        TransferKind.RESTORE,
        destination=home.spec.isolation.value,
        restore=requested,
        actor=asked.actor,
        reason=asked.reason,
    )
    return Begun({**begun, **requested.to_json()}, asked.converge())


def in_advance(asked: OfTenant[Restore]) -> int:
    requested, _ = _checked(asked)
    return preview.request(asked.conn, asked.row.id, actor=asked.actor, transfer=requested.to_json())


def _checked(asked: OfTenant[Restore]) -> tuple[RestoreRequest, Placement]:
    """What is asked for, and where the tenant lives."""
    now = drift.now(asked.conn)
    requested = validate_request(asked.params.at, asked.params.snapshot, now=now)
    placed = transfers.require_transferable(asked.conn, asked.row)
    if requested.at is not None:
        _may_be_restorable(asked, requested.at, now)
    return requested, placed


def _may_be_restorable(asked: OfTenant[Restore], at: datetime, now: datetime) -> None:
    row = asked.row
    home = cluster.get(asked.conn, transfers.home_of(asked.conn, row.id, at).cluster_id)
    if home.destroyed_at is not None or home.spec.lifecycle is not ClusterLifecycle.ACTIVE:
        raise Conflict(
            f"{row.id} lived on {home.id} then, which is gone and with it its log: a snapshot of it can"
            " be restored, where there is one"
        )
    kept_since = now - timedelta(days=home.spec.backup_retention_days)
    earliest = kept_since if row.ready_at is None else max(kept_since, row.ready_at)
    if at < earliest:
        raise Invalid(
            "at", f"a moment after {moment(earliest)}, since when there is something", got=moment(at)
        )


register(
    Action(
        name="restore",
        summary="Give it the rows of an earlier time. What it has now is kept, closed, for seven days or"
        " until `confirm-transfer`.",
        params=Restore,
        perform=perform,
        audit=transfers.BEGIN,
        preview=in_advance,
        patience=12 * 3600.0,
    )
)
