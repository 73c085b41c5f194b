"""A stream of customers who sign up, add seats, change plans, fall behind, leave and return.

A subscription that has ended stays so, as at Stripe: who returns has a new one. Plans change within one
isolation, since a move between clusters is a matter of its own. The same arguments give the same stream.
"""

from __future__ import annotations

import random
from typing import Any

from controlplane.domain.catalogue import Catalogue, Plan
from controlplane.domain.errors import Invalid
from controlplane.localcloud.simulator.stream import Moment

BEGIN = 1_790_000_000
STEP = 60  # seconds between two changes
PERIOD = 30 * 86_400
_CHANGES = {
    "active": ("seats", "seats", "plan", "fall_behind", "pause", "leave"),
    "past_due": ("pay", "pay", "give_up"),
    "unpaid": ("pay", "pay", "leave"),
    "paused": ("resume", "resume", "leave"),
}
_STATUS = {
    "fall_behind": ("past_due", "invoice.payment_failed"),
    "give_up": ("unpaid", "customer.subscription.updated"),
    "pay": ("active", "invoice.paid"),
    "pause": ("paused", "customer.subscription.paused"),
    "resume": ("active", "customer.subscription.resumed"),
    "leave": ("canceled", "customer.subscription.deleted"),
}
LEAVES = 0.3
"""The share of those who would leave that does."""
RETURNS = 0.5
"""The share of the changes after a customer has left that is its return."""


def generate(catalogue: Catalogue, *, tenants: int, events: int, seed: int, livemode: bool) -> list[Moment]:
    """`events` changes by `tenants` customers, each of whom signs up first. Raises Invalid."""
    if events < tenants:
        raise Invalid("events", f"at least one for each of the {tenants} tenants", got=events)
    plans = [plan for plan in catalogue.plans.values() if plan.lookup_keys or plan.price_ids]
    if not plans:
        raise Invalid("catalogue", "a plan with a price")
    rng = random.Random(seed)
    customers = [_Customer(number, rng.choice(plans), livemode=livemode) for number in range(tenants)]
    order = [number % tenants for number in range(events)]
    rng.shuffle(order)
    return [customers[number].change(place, rng, plans) for place, number in enumerate(order)]


class _Customer:
    def __init__(self, number: int, plan: Plan, *, livemode: bool) -> None:
        self._number = number
        self._plan = plan
        self._livemode = livemode
        self._status = "new"
        self._seats = 1
        self._since = 0
        self._subscriptions = 0

    @property
    def _subscription_id(self) -> str:
        return f"sub_{self._number:08d}_{self._subscriptions}"

    def change(self, place: int, rng: random.Random, plans: list[Plan]) -> Moment:
        now = BEGIN + place * STEP
        if self._status == "new":
            return self._sign_up(now, rng, place)
        if self._status == "canceled":
            if rng.random() < RETURNS:
                return self._sign_up(now, rng, place)
            return self._moment(now, place, "customer.subscription.updated")
        what = rng.choice(_CHANGES[self._status])
        if what == "leave" and rng.random() > LEAVES:
            what = "seats"
        if what == "plan":
            self._plan = rng.choice([plan for plan in plans if plan.isolation is self._plan.isolation])
        if what in ("seats", "plan"):
            self._seats = rng.randint(1, 500)
            return self._moment(now, place, "customer.subscription.updated")
        self._status, type_ = _STATUS[what]
        return self._moment(now, place, type_)

    def _sign_up(self, now: int, rng: random.Random, place: int) -> Moment:
        self._status, self._since = "active", now
        self._subscriptions += 1
        customer = {
            "id": f"cus_{self._number:08d}",
            "object": "customer",
            "created": now,
            "email": f"billing@customer-{self._number}.dev",
            "livemode": self._livemode,
            "metadata": {},
            "name": f"Customer {self._number}",
        }
        if rng.random() < 0.5:
            return self._moment(now, place, "customer.subscription.created", customer)
        session = {
            "id": f"cs_{self._number:08d}_{self._subscriptions}",
            "object": "checkout.session",
            "created": now,
            "custom_fields": [],
            "customer": customer["id"],
            "livemode": self._livemode,
            "metadata": {},
            "mode": "subscription",
            "payment_status": "paid",
            "status": "complete",
            "subscription": self._subscription_id,
        }
        return self._moment(now, place, "checkout.session.completed", customer, session)

    def _moment(self, now: int, place: int, type_: str, *others: dict[str, Any]) -> Moment:
        subscription = self._subscription(now)
        about = others[-1] if type_.startswith("checkout.") else subscription
        if type_.startswith("invoice."):
            about = self._invoice(now, place, paid=type_ == "invoice.paid")
        event = {
            "id": f"evt_{place:08d}",
            "object": "event",
            "api_version": "2026-10-28",
            "created": now,
            "data": {"object": about},
            "livemode": self._livemode,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": type_,
        }
        return Moment((*others, subscription), event)

    def _subscription(self, now: int) -> dict[str, Any]:
        ended = now if self._status == "canceled" else None
        price = {
            "id": next(iter(self._plan.price_ids), f"price_{self._plan.name}"),
            "object": "price",
            "lookup_key": next(iter(self._plan.lookup_keys), None),
            "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
        }
        item = {
            "id": f"si_{self._number:08d}",
            "object": "subscription_item",
            "current_period_end": self._since + PERIOD,
            "current_period_start": self._since,
            "metadata": {},
            "price": price,
            "quantity": self._seats,
        }
        return {
            "id": self._subscription_id,
            "object": "subscription",
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": ended,
            "created": self._since,
            "customer": f"cus_{self._number:08d}",
            "ended_at": ended,
            "items": {"object": "list", "data": [item], "has_more": False},
            "livemode": self._livemode,
            "metadata": {"slug": f"customer-{self._number}", "name": f"Customer {self._number}"},
            "pause_collection": None,
            "status": self._status,
            "trial_end": None,
            "trial_start": None,
        }

    def _invoice(self, now: int, place: int, *, paid: bool) -> dict[str, Any]:
        details = {"metadata": {}, "subscription": self._subscription_id}
        return {
            "id": f"in_{place:08d}",
            "object": "invoice",
            "created": now,
            "customer": f"cus_{self._number:08d}",
            "livemode": self._livemode,
            "parent": {
                "quote_details": None,
                "subscription_details": details,
                "type": "subscription_details",
            },
            "status": "paid" if paid else "open",
        }
