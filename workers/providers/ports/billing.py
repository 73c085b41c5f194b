"""Stripe, read only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol


class Billing(Protocol):
    """Objects come back as plain JSON (dict), in whatever API version the account speaks. A subscription that
    is past due has `open_invoices` beside Stripe's own fields, the list of its invoices that are open; but
    not in the listing of all, where `whole` adds it."""

    def subscription(self, subscription_id: str) -> dict[str, Any]: ...

    def checkout_of(self, subscription_id: str) -> dict[str, Any] | None: ...

    def customer(self, customer_id: str) -> dict[str, Any]: ...

    def charge(self, charge_id: str) -> dict[str, Any]: ...

    def subscriptions_of(self, customer_id: str) -> list[dict[str, Any]]: ...

    def subscriptions(self, status: str = "all") -> Iterator[dict[str, Any]]:
        """Every subscription, newest first."""
        ...

    def whole(self, found: dict[str, Any]) -> dict[str, Any]: ...
