"""Deliveries: one event on its way to one webhook endpoint, with all its attempts.

Kept as objects of their own, so that tests can see what was sent, what was refused and what faults
did to it. `state`: pending, held (until released), sending, delivered, failed (all retries used),
dropped (a fault ate it, as a lost webhook).
"""

from __future__ import annotations

import random
import time

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe.account import EVENTS_KEPT_SECONDS, Account, new_id
from controlplane.localcloud.stripe.event_types import covers

KIND = "delivery"
REORDER_WAIT_SECONDS = 2.0


def enqueue(account: Account, event: Object) -> None:
    """Queue `event` for every enabled endpoint that wants its type, as the fault switches say."""
    account.store.prune(KIND, before=account.clock.now() - EVENTS_KEPT_SECONDS)
    faults = account.faults
    pending = 0
    for endpoint in account.store.oldest("webhook_endpoint"):
        if endpoint["status"] != "enabled" or not covers(endpoint["enabled_events"], event["type"]):
            continue
        pending += 1
        for copy in range(1 + faults.duplicates):
            dropped = faults.drop > 0 and faults.dice.random() < faults.drop
            held = faults.hold or faults.reorder_window > 0
            state = "dropped" if dropped else "held" if held else "pending"
            add(account, event["id"], endpoint["id"], state=state, copy=copy, delay=faults.delay_seconds)
    if pending:
        event["pending_webhooks"] = pending
        account.save(event)


def add(account: Account, event: str, endpoint: str, *, state: str, copy: int = 0, delay: float = 0) -> None:
    """Queue one delivery. `copy` counts deliberate duplicates, 0 is the original."""
    save(
        account,
        {
            "id": new_id("dlv", 14),
            "object": KIND,
            "event": event,
            "endpoint": endpoint,
            "copy": copy,
            "state": state,
            "due": account.clock.now() + delay,
            "attempts": [],
        },
    )
    if state == "held" and account.faults.held_since is None:
        account.faults.held_since = time.monotonic()
    account.work.set()


def save(account: Account, delivery: Object) -> None:
    account.save(delivery, due=delivery["due"] if delivery["state"] == "pending" else None)


def held(account: Account) -> list[Object]:
    return [delivery for delivery in account.store.oldest(KIND) if delivery["state"] == "held"]


def release(account: Account, *, seed: int | None = None) -> int:
    """Let what is held go, shuffled by `seed` (None: by the switches' own dice). How many went."""
    waiting = held(account)
    dice = account.faults.dice if seed is None else random.Random(seed)
    dice.shuffle(waiting)
    now = account.clock.now()
    for place, delivery in enumerate(waiting):
        delivery["state"] = "pending"
        delivery["due"] = now + place * 1e-6  # keeps the shuffled order
        save(account, delivery)
    account.faults.held_since = None
    account.work.set()
    return len(waiting)


def release_full_window(account: Account) -> None:
    """Send a reorder window that is full or has waited long enough."""
    faults = account.faults
    if faults.hold or faults.held_since is None:
        return
    waited = time.monotonic() - faults.held_since >= REORDER_WAIT_SECONDS
    if waited or len(held(account)) >= faults.reorder_window:
        release(account)
