"""Notifications in the hands of support."""

from __future__ import annotations

from controlplane.domain.job import JobKind
from controlplane.store import audit, job, notification
from controlplane.store.notification import NotificationRow
from controlplane.store.registry import Connection


def redeliver(conn: Connection, notification_id: str, *, actor: str) -> NotificationRow:
    """Deliver it again, whatever became of it. Raises NotFound, Conflict."""
    with conn.transaction():
        row = notification.redeliver(conn, notification_id)
        job.bring_forward(conn, JobKind.NOTIFICATIONS, [JobKind.NOTIFICATIONS])
        audit.append(
            conn,
            actor=actor,
            action="notification.redeliver",
            resource=row.tenant_id or row.id,
            detail={"notification": row.id, "kind": row.kind},
        )
    return row
