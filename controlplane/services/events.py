"""Events in the hands of support."""

from __future__ import annotations

from controlplane.domain.errors import NotFound
from controlplane.store import audit, event
from controlplane.store.registry import Connection

STATES = ("received", "applied", "ignored", "parked")


def replay(conn: Connection, event_id: str, *, actor: str) -> None:
    """Have a worker handle it again from the start. Raises NotFound, Conflict where its body is gone."""
    with conn.transaction():
        if not event.replay(conn, event_id):
            raise NotFound(f"event {event_id} does not exist")
        audit.append(conn, actor=actor, action="event.replay", resource=event_id, detail={})
