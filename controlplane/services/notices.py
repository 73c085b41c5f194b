"""Notices: list, show, send again."""

from __future__ import annotations

from controlplane.store import audit, notice
from controlplane.store.notice import NoticeRow
from controlplane.store.registry import Connection

STATES = ("waiting", "delivered", "dead", "untold")
"""`dead`: given up after its last attempt. `untold`: there was no address to tell it to."""


def list_page(
    conn: Connection, *, before: int | None, limit: int, state: str | None = None
) -> list[NoticeRow]:
    """Newest first, those with a number below `before`."""
    return notice.page(conn, before=before, limit=limit, state=state)


def show(conn: Connection, notice_id: str) -> NoticeRow:
    """Raises NotFound."""
    return notice.get(conn, notice_id)


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
