"""Exports: a standard dump of a tenant's data, for the customer or for whoever asks on its behalf."""

from __future__ import annotations

import secrets

from controlplane.domain.data_copy import CopyKind
from controlplane.domain.errors import Conflict
from controlplane.store import audit, data_copy, placement, tenant
from controlplane.store.data_copy import CopyRow
from controlplane.store.registry import Connection


def request(conn: Connection, tenant_id: str, *, actor: str, reason: str, keep_days: int) -> CopyRow:
    """Have a worker make one, kept for so many days. The same request again finds the one that is being
    made; once that has ended it makes another, of the data of then. A closed tenant's data can be exported
    as long as it is kept. Raises NotFound, and Conflict where there is no data."""
    with conn.transaction():
        row = tenant.get(conn, tenant_id, lock=True)
        placed = placement.current(conn, row.id)
        if placed is None or row.ready_at is None:
            raise Conflict(f"tenant {row.id} is {row.phase.value}: it has no data to export")
        made = data_copy.export_in_making(conn, row.id, keep_days=keep_days) or data_copy.record(
            conn,
            tenant_id=row.id,
            cluster_id=placed.cluster_id,
            purge_id=None,
            kind=CopyKind.DUMP,
            name=f"exports/{placed.key}-{secrets.token_hex(8)}.dump",
            keep_days=keep_days,
            actor=actor,
        )
        audit.append(
            conn,
            actor=actor,
            action="export.request",
            resource=row.id,
            detail={"export": made.id, "name": made.name, "reason": reason},
        )
    return made
