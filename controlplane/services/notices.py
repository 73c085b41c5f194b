"""Notices in the hands of support."""

from __future__ import annotations

from controlplane.store import audit, notice
from controlplane.store.notice import NoticeRow
from controlplane.store.registry import Connection


def redeliver(conn: Connection, notice_id: str, *, actor: str) -> NoticeRow:
    """Deliver it again, whatever became of it. Raises NotFound, Conflict."""
    with conn.transaction():
        row = notice.redeliver(conn, notice_id)
        audit.append(
            conn,
            actor=actor,
            action="notice.redeliver",
            resource=row.tenant_id,
            detail={"notice": row.id, "kind": row.kind},
        )
    return row
