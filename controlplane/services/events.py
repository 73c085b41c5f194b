"""Events in the hands of support."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.billing import SubscriptionRef, subscription_of_event
from controlplane.domain.errors import Conflict
from controlplane.domain.stripe_json import parsed
from controlplane.store import audit, event
from controlplane.store.event import EventRow
from controlplane.store.registry import Connection


def replay(conn: Connection, event_id: str, *, actor: str) -> None:
    """Have a worker handle it again from the start. Raises NotFound, Conflict where its body is gone."""
    with conn.transaction():
        body = event.body(conn, event_id)
        if not body:
            raise Conflict(f"event {event_id}: its body was removed, it was handled long ago")
        event.replay(conn, event_id, customer_id=_customer_of(body))
        audit.append(conn, actor=actor, action="event.replay", resource=event_id, detail={})


def _customer_of(body: bytes) -> str | None:
    about = subscription_of_event(parsed(body))
    return about.customer_id if isinstance(about, SubscriptionRef) else None


@dataclass(frozen=True, slots=True)
class Replayed:
    """`left`: how many more there are."""

    events: list[EventRow]
    left: int


def replay_parked_because(conn: Connection, text: str, *, limit: int, dry_run: bool, actor: str) -> Replayed:
    """The same for the parked ones whose reason has this text in it, beginning with those that have been
    parked for the longest. `dry_run`: which it would be."""
    with conn.transaction():
        if dry_run:
            found = event.parked_because(conn, text, limit=limit)
            return Replayed(found, event.count_parked_because(conn, text) - len(found))
        found = event.replay_parked_because(conn, text, limit=limit)
        for row in sorted(found, key=lambda row: row.subject):  # two who do this never wait for each other
            # One that was parked as it came is not filed under its customer.
            unfiled = row.subject == row.id
            event.ask_again(
                conn, row, customer_id=_customer_of(event.body(conn, row.id)) if unfiled else None
            )
        if found:
            detail = {"because": text, "count": len(found), "events": [row.id for row in found]}
            audit.append(conn, actor=actor, action="event.replay", resource="parked", detail=detail)
        return Replayed(found, event.count_parked_because(conn, text))


def dismiss(conn: Connection, event_id: str, *, actor: str, reason: str) -> None:
    """Nothing is to be done about it: a parked event becomes ignored, so that the list of those that
    wait for a person is a list of work. Raises NotFound, Conflict where it is not parked."""
    with conn.transaction():
        event.dismiss(conn, event_id, reason=f"dismissed by {actor}: {reason}")
        audit.append(conn, actor=actor, action="event.dismiss", resource=event_id, detail={"reason": reason})
