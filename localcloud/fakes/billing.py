"""`ports.Billing` without Stripe: what tests put in is what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controlplane.domain.billing import ENDED
from controlplane.domain.errors import ControlPlaneError, Invalid, NotFound
from controlplane.localcloud.fakes.world import World

SUBSCRIPTION, CUSTOMER = "billing-subscription", "billing-customer"
SESSION, CHARGE = "billing-checkout-session", "billing-charge"


class FakeBilling:
    """Put objects in with `put_…` (made by `tests.builders`, say); `fail` makes the next calls raise."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._errors: list[ControlPlaneError] = []

    def fail(self, *errors: ControlPlaneError) -> None:
        """The next call raises the first of these, the one after it the second, and so on."""
        self._errors += errors

    def put_subscription(self, body: dict[str, Any]) -> None:
        """Raises Invalid for one that has ended and would live again."""
        before = self.world.get(SUBSCRIPTION, body["id"])
        if before is not None:
            require_possible(body["id"], before["status"], body["status"])
        kept = {"open_invoices": [], **body} if body["status"] == "past_due" else body
        self.world.put(SUBSCRIPTION, body["id"], kept)

    def put_customer(self, body: dict[str, Any]) -> None:
        self.world.put(CUSTOMER, body["id"], body)

    def put_checkout_session(self, body: dict[str, Any]) -> None:
        self.world.put(SESSION, body["id"], body)

    def put_charge(self, body: dict[str, Any]) -> None:
        self.world.put(CHARGE, body["id"], body)

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        with self.world.call("billing.subscription"):
            return self._one(SUBSCRIPTION, "subscription", subscription_id)

    def checkout_of(self, subscription_id: str) -> dict[str, Any] | None:
        with self.world.call("billing.checkout_of"):
            _check("subscription_id", subscription_id)
            self._reach()
            found = self._newest(SESSION)
            return next((session for session in found if session["subscription"] == subscription_id), None)

    def customer(self, customer_id: str) -> dict[str, Any]:
        with self.world.call("billing.customer"):
            return self._one(CUSTOMER, "customer", customer_id)

    def charge(self, charge_id: str) -> dict[str, Any]:
        with self.world.call("billing.charge"):
            return self._one(CHARGE, "charge", charge_id)

    def subscriptions_of(self, customer_id: str) -> list[dict[str, Any]]:
        with self.world.call("billing.subscriptions_of"):
            _check("customer_id", customer_id)
            self._reach()
            return [item for item in self._newest(SUBSCRIPTION) if item["customer"] == customer_id]

    def subscriptions(self, status: str = "all") -> Iterator[dict[str, Any]]:
        with self.world.call("billing.subscriptions"):
            self._reach()
            found = [item for item in self._newest(SUBSCRIPTION) if status in ("all", item["status"])]
        yield from ({k: v for k, v in item.items() if k != "open_invoices"} for item in found)

    def whole(self, found: dict[str, Any]) -> dict[str, Any]:
        if found["status"] != "past_due":
            return found
        with self.world.call("billing.whole"):
            return self._one(SUBSCRIPTION, "subscription", str(found["id"]))

    def _one(self, kind: str, noun: str, key: str) -> dict[str, Any]:
        _check(f"{noun.replace(' ', '_')}_id", key)
        self._reach()
        body: dict[str, Any] | None = self.world.get(kind, key)
        if body is None:
            raise NotFound(f"Stripe knows no {noun} {key}")
        return body

    def _newest(self, kind: str) -> list[dict[str, Any]]:
        return sorted(self.world.all(kind).values(), key=lambda item: -item["created"])

    def _reach(self) -> None:
        if self._errors:
            raise self._errors.pop(0)


def require_possible(subscription_id: str, before: str, after: str) -> None:
    """What has ended stays as it is: who returns to Stripe gets a new subscription. Raises Invalid."""
    if before in ENDED and after != before:
        raise Invalid(f"{subscription_id}: status", f"{before}, which is for ever", got=after)


def _check(field: str, key: str) -> None:
    if not key or not all(letter.isalnum() or letter == "_" for letter in key):
        raise Invalid(field, "a Stripe id", got=key[:60])
