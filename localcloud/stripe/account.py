"""The fake server's one Stripe account: its objects, its clock and its settings.

Everything that changes state is handed the account and runs inside its transaction, so a refused
call leaves neither an object nor an event behind.
"""

from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object, ObjectStore
from controlplane.localcloud.stripe.clock import DAY, Clock
from controlplane.localcloud.stripe.delivery_faults import DeliveryFaults
from controlplane.localcloud.stripe.errors import no_such
from controlplane.localcloud.stripe.versions import CURRENT

_ALPHABET = string.ascii_letters + string.digits
EVENTS_KEPT_SECONDS = 30 * DAY


@dataclass(frozen=True, slots=True)
class Settings:
    """`retry_seconds`: waits between a webhook's attempts (Stripe: three days, ever longer).
    `dunning_seconds`: waits between attempts to collect a payment; after the last the subscription
    becomes `dunning_outcome`: "canceled", "unpaid" or "past_due" (stays)."""

    api_version: str = CURRENT
    api_key: str | None = None  # None: any test key will do
    retry_seconds: tuple[float, ...] = (10, 60, 300, 1800, 7200, 21600, 43200, DAY, DAY)
    dunning_seconds: tuple[float, ...] = (3 * DAY, 2 * DAY, 2 * DAY)
    dunning_outcome: str = "canceled"
    delivery_threads: int = 8


@dataclass(frozen=True, slots=True)
class Request:
    """The API call that is being answered; None where time, not a call, is the cause."""

    id: str | None = None
    idempotency_key: str | None = None


@dataclass(slots=True)
class Account:
    store: ObjectStore
    settings: Settings
    clock: Clock = field(default_factory=Clock)
    faults: DeliveryFaults = field(default_factory=DeliveryFaults)
    request: Request = field(default_factory=Request)
    failure: str | None = None  # why deliveries have stopped, where they have
    work: threading.Event = field(default_factory=threading.Event)  # set when there is something to deliver

    def __post_init__(self) -> None:
        kept = self.store.get("state", "clock")
        if kept is not None:
            self.clock.offset = kept["offset"]

    @contextmanager
    def answering(self, request: Request) -> Iterator[None]:
        """One API call: a transaction, and the request that events name as their cause."""
        with self.store.transaction():
            before, self.request = self.request, request
            try:
                yield
            finally:
                self.request = before

    def save(self, body: Object, *, kind: str | None = None, due: float | None = None) -> None:
        """Keep an object under its `object` and `id`."""
        self.store.put(kind or body["object"], body["id"], body, created=self.clock.now(), due=due)

    def find(self, kind: str, key: str, *, param: str = "id") -> Object:
        """Raises StripeError: 404 where `param` is the id in the path, else 400."""
        found = self.store.get(kind, key)
        if found is None or found.get("deleted"):
            raise no_such(kind.replace("_", " "), key, param=param, status=404 if param == "id" else 400)
        return found

    def advance(self, seconds: float) -> None:
        """Set the clock forward, and remember it."""
        self.clock.offset += seconds
        self.store.put("state", "clock", {"offset": self.clock.offset}, created=self.clock.now())


def new_id(prefix: str, length: int = 23) -> str:
    """An id as Stripe makes them: `sub_1…`, and shorter ones without the 1."""
    tail = "".join(secrets.choice(_ALPHABET) for _ in range(length))
    return f"{prefix}_1{tail}" if length == 23 else f"{prefix}_{tail}"


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """An event's `previous_attributes`: what `before` had where `after` differs, null where it had
    nothing; nested objects only with the keys that differ."""
    changed: dict[str, Any] = {}
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        changed[key] = difference(old, new) if isinstance(old, dict) and isinstance(new, dict) else old
    return changed
