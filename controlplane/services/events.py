"""Events in the hands of support."""

from __future__ import annotations

from controlplane.domain.billing import SubscriptionRef, subscription_of_event
from controlplane.domain.errors import Conflict
from controlplane.domain.stripe_json import parsed
from controlplane.store import audit, event
from controlplane.store.registry import Connection


def replay(conn: Connection, event_id: str, *, actor: str) -> None:
    """Have a worker handle it again from the start. Raises NotFound, Conflict where its body is gone."""
    with conn.transaction():
        body = event.body(conn, event_id)
        if not body:
            raise Conflict(f"event {event_id}: its body was removed, it was handled long ago")
        about = subscription_of_event(parsed(body))
        customer_id = about.customer_id if isinstance(about, SubscriptionRef) else None
        event.replay(conn, event_id, customer_id=customer_id)
        audit.append(conn, actor=actor, action="event.replay", resource=event_id, detail={})


def dismiss(conn: Connection, event_id: str, *, actor: str, reason: str) -> None:
    """Nothing is to be done about it: a parked event becomes ignored, so that the list of those that
    wait for a person is a list of work. Raises NotFound, Conflict where it is not parked."""
    with conn.transaction():
        event.dismiss(conn, event_id, reason=f"dismissed by {actor}: {reason}")
        audit.append(conn, actor=actor, action="event.dismiss", resource=event_id, detail={"reason": reason})
