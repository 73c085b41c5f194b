"""Notifications in the hands of support."""

from __future__ import annotations

from controlplane.store import audit, notification
from controlplane.store.notification import NotificationRow
from controlplane.store.registry import Connection


def redeliver(conn: Connection, notification_id: str, *, actor: str) -> NotificationRow:
    """Deliver it again, whatever became of it. Raises NotFound, Conflict."""
    with conn.transaction():
        row = notification.redeliver(conn, notification_id)
        audit.append(
            conn,
            actor=actor,
            action="notification.redeliver",
            resource=row.tenant_id,
            detail={"notification": row.id, "kind": row.kind},
        )
    return row
