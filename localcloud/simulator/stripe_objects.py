"""Stripe's objects as the product reads them, in the shapes of the current API; `stories` fills them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PERIOD = 30 * 86_400


@dataclass(slots=True)
class Item:
    """`key`: the price's lookup key, None for one that was taken away from it."""

    price: str
    key: str | None
    product: str
    quantity: int = 1


@dataclass(slots=True)
class Invoice:
    """`due`: where it was sent to be paid until then."""

    id: str
    created: int
    first: bool = False
    due: int | None = None

    def body(self, order: Subscription, *, status: str) -> dict[str, Any]:
        details = {"metadata": {}, "subscription": order.id}
        return {
            "id": self.id,
            "object": "invoice",
            "billing_reason": "subscription_create" if self.first else "subscription_cycle",
            "collection_method": order.collection,
            "created": self.created,
            "customer": order.customer,
            "due_date": self.due,
            "livemode": False,
            "parent": {
                "quote_details": None,
                "subscription_details": details,
                "type": "subscription_details",
            },
            "status": status,
        }


@dataclass(slots=True)
class Subscription:
    """One that changes; `body` is how it is now. Times are in seconds since 1970."""

    id: str
    customer: str
    started: int
    items: list[Item]
    status: str = "active"
    collection: str = "charge_automatically"
    metadata: dict[str, str] = field(default_factory=dict)
    ended: int | None = None
    trial_end: int | None = None
    collection_paused: bool = False
    owed: list[Invoice] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        """As it is fetched: an overdue one with its open invoices."""
        found = self.told()
        if self.status == "past_due":
            found["open_invoices"] = [invoice.body(self, status="open") for invoice in self.owed]
        return found

    def told(self) -> dict[str, Any]:
        """As it stands in an event."""
        return {
            "id": self.id,
            "object": "subscription",
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": self.ended,
            "collection_method": self.collection,
            "created": self.started,
            "customer": self.customer,
            "ended_at": self.ended,
            "items": {"object": "list", "data": [*map(self._item, self.items)], "has_more": False},
            "livemode": False,
            "metadata": dict(self.metadata),
            "pause_collection": {"behavior": "void"} if self.collection_paused else None,
            "start_date": self.started,
            "status": self.status,
            "trial_end": self.trial_end,
            "trial_start": None if self.trial_end is None else self.started,
        }

    def _item(self, item: Item) -> dict[str, Any]:
        return {
            "id": f"si_{self.id}_{item.price}",
            "object": "subscription_item",
            "current_period_end": self.started + PERIOD,
            "current_period_start": self.started,
            "metadata": {},
            "price": {
                "id": item.price,
                "object": "price",
                "lookup_key": item.key,
                "product": item.product,
                "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
            },
            "quantity": item.quantity,
        }


def customer(name: str, *, called: str, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "customer",
        "created": created,
        "email": f"billing@{name.replace('_', '-')}.dev",
        "livemode": False,
        "metadata": {},
        "name": called,
    }


def checkout(order: Subscription, *, slug: str | None) -> dict[str, Any]:
    """Completed and paid. `slug`: what the customer has typed there."""
    typed = [] if slug is None else [{"key": "slug", "type": "text", "text": {"value": slug}}]
    return {
        "id": order.id.replace("sub_", "cs_"),
        "object": "checkout.session",
        "created": order.started,
        "custom_fields": typed,
        "customer": order.customer,
        "livemode": False,
        "metadata": {},
        "mode": "subscription",
        "payment_status": "paid",
        "status": "complete",
        "subscription": order.id,
    }


def event(name: str, type_: str, about: Mapping[str, Any], *, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "event",
        "api_version": "2026-10-28",
        "created": created,
        "data": {"object": dict(about)},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": type_,
    }
