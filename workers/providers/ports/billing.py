"""Stripe, read only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol


class Billing(Protocol):
    """Objects come back as plain JSON (dict), in whatever API version the account speaks. A subscription that
    is past due has `open_invoices` beside Stripe's own fields: the list of its invoices that are open."""

    def subscription(self, subscription_id: str) -> dict[str, Any]: ...

    def checkout_session(self, session_id: str) -> dict[str, Any]: ...

    def customer(self, customer_id: str) -> dict[str, Any]: ...

    def subscriptions_of(self, customer_id: str) -> list[dict[str, Any]]: ...

    def subscriptions(self, status: str = "all") -> Iterator[dict[str, Any]]:
        """Every subscription, newest first."""
        ...

    def events_since(self, created_after: datetime, types: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Events of these types (1 to 20 of them), newest first; Stripe keeps them for 30 days."""
        ...
