"""Stripe objects for tests, in the shapes of the current API and of the ones before 2025-03-31.

Only what our code may read is filled in; the complete shapes are the fake server's business
(`controlplane.localcloud.stripe`), which provider tests hold to Stripe's own examples.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

CURRENT = "2026-10-28.endive"
OLD = "2024-06-20"
MOVED = "2025-03-31"  # where periods moved into items, and an invoice's subscription below `parent`
NOW = 1_790_000_000
MONTH = 30 * 86400


def price(*, id: str = "", lookup_key: str | None = "shared", **fields: Any) -> dict[str, Any]:  # noqa: A002
    return {
        "id": id or f"price_{lookup_key}",
        "object": "price",
        "active": True,
        "currency": "usd",
        "lookup_key": lookup_key,
        "metadata": {},
        "product": "prod_1",
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
        "type": "recurring",
        "unit_amount": 1900,
        **fields,
    }


def subscription_item(
    *,
    lookup_key: str | None = "shared",
    price_id: str = "",
    quantity: int = 1,
    period_start: int = NOW,
    period_end: int = NOW + MONTH,
    **fields: Any,
) -> dict[str, Any]:
    """In the current shape; `subscription` takes the period out again for older ones."""
    return {
        "id": f"si_{price_id or lookup_key}",
        "object": "subscription_item",
        "current_period_end": period_end,
        "current_period_start": period_start,
        "metadata": {},
        "price": price(id=price_id, lookup_key=lookup_key),
        "quantity": quantity,
        **fields,
    }


def subscription(
    *,
    id: str = "sub_00000001",  # noqa: A002 - Stripe's name
    customer: str = "cus_00000001",
    lookup_key: str | None = "shared",
    price_id: str = "",
    quantity: int = 1,
    status: str = "active",
    metadata: Mapping[str, str] | None = None,
    period_end: int = NOW + MONTH,
    items: Sequence[dict[str, Any]] | None = None,
    api_version: str = CURRENT,
    **fields: Any,
) -> dict[str, Any]:
    """One item of `lookup_key` (or the price `price_id`), unless `items` are given; `fields` replace
    any other key."""
    rows = list(
        items
        if items is not None
        else [
            subscription_item(
                lookup_key=lookup_key, price_id=price_id, quantity=quantity, period_end=period_end
            )
        ]
    )
    old = api_version[:10] < MOVED
    if old:
        rows = [{k: v for k, v in row.items() if not k.startswith("current_period_")} for row in rows]
    ended = status in ("canceled", "incomplete_expired")
    return {
        "id": id,
        "object": "subscription",
        "billing_cycle_anchor": NOW,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": NOW if ended else None,
        "collection_method": "charge_automatically",
        "created": NOW,
        "currency": "usd",
        "customer": customer,
        **({"current_period_start": NOW, "current_period_end": period_end} if old else {}),
        "ended_at": NOW if ended else None,
        "items": {
            "object": "list",
            "data": rows,
            "has_more": False,
            "url": f"/v1/subscription_items?subscription={id}",
        },
        "latest_invoice": "in_00000001",
        "livemode": False,
        "metadata": dict(metadata or {}),
        "pause_collection": None,
        "status": status,
        "trial_end": NOW + 14 * 86400 if status == "trialing" else None,
        "trial_start": NOW if status == "trialing" else None,
        **fields,
    }


def customer(
    *,
    id: str = "cus_00000001",  # noqa: A002 - Stripe's name
    email: str = "billing@customer.dev",
    name: str = "Customer",
    **fields: Any,
) -> dict[str, Any]:
    return {
        "id": id,
        "object": "customer",
        "created": NOW,
        "email": email,
        "livemode": False,
        "metadata": {},
        "name": name,
        **fields,
    }


def checkout_session(
    *,
    id: str = "cs_test_00000001",  # noqa: A002 - Stripe's name
    subscription: str | None = "sub_00000001",
    customer: str | None = "cus_00000001",
    payment_status: str = "paid",
    metadata: Mapping[str, str] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    return {
        "id": id,
        "object": "checkout.session",
        "client_reference_id": None,
        "created": NOW,
        "custom_fields": [],
        "customer": customer,
        "livemode": False,
        "metadata": dict(metadata or {}),
        "mode": "subscription",
        "payment_status": payment_status,
        "status": "complete",
        "subscription": subscription,
        **fields,
    }


def invoice(
    *,
    id: str = "in_00000001",  # noqa: A002 - Stripe's name
    subscription: str | None = "sub_00000001",
    customer: str = "cus_00000001",
    status: str = "paid",
    api_version: str = CURRENT,
    **fields: Any,
) -> dict[str, Any]:
    """The subscription stands below `parent`, in older versions beside everything else."""
    parent = None
    if subscription is not None:
        parent = {
            "quote_details": None,
            "subscription_details": {"metadata": {}, "subscription": subscription},
            "type": "subscription_details",
        }
    place = {"subscription": subscription} if api_version[:10] < MOVED else {"parent": parent}
    return {
        "id": id,
        "object": "invoice",
        "created": NOW,
        "customer": customer,
        "livemode": False,
        "metadata": {},
        "status": status,
        **place,
        **fields,
    }


def event(
    type_: str,
    body: Mapping[str, Any],
    *,
    id: str = "evt_00000001",  # noqa: A002 - Stripe's name
    created: int = NOW,
    livemode: bool = False,
    previous: Mapping[str, Any] | None = None,
    api_version: str = CURRENT,
    **fields: Any,
) -> dict[str, Any]:
    """An event of this type about `body`; `previous`: its `previous_attributes`."""
    data: dict[str, Any] = {"object": dict(body)}
    if previous is not None:
        data["previous_attributes"] = dict(previous)
    return {
        "id": id,
        "object": "event",
        "api_version": api_version,
        "created": created,
        "data": data,
        "livemode": livemode,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": type_,
        **fields,
    }


def signed(body: bytes, secret: str, at: int) -> str:
    """The Stripe-Signature header of these bytes, whatever they are, signed at that second."""
    mac = hmac.digest(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hex()
    return f"t={at},v1={mac}"
