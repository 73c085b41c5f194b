"""`expand[]=latest_invoice&expand[]=data.customer`: ids replaced by the objects they name."""

from __future__ import annotations

from typing import Any

from controlplane.localcloud.stripe import subscription_object
from controlplane.localcloud.stripe.account import Account
from controlplane.localcloud.stripe.errors import StripeError

MAX_DEPTH = 4
KINDS = {
    "cus_": "customer",
    "in_": "invoice",
    "pm_": "payment_method",
    "price_": "price",
    "prod_": "product",
    "sub_": "subscription",
}


def expand(account: Account, body: dict[str, Any], paths: list[str]) -> None:
    """In place. Raises StripeError for a path that leads to nothing expandable."""
    for path in paths:
        steps = path.split(".")
        if len(steps) > MAX_DEPTH:
            raise StripeError(
                f"You cannot expand more than {MAX_DEPTH} levels of a property.", param="expand"
            )
        _walk(account, body, steps, path)


def _walk(account: Account, node: Any, steps: list[str], path: str) -> None:
    if isinstance(node, list):
        for item in node:
            _walk(account, item, steps, path)
        return
    if not isinstance(node, dict) or steps[0] not in node:
        raise StripeError(f"This property cannot be expanded ({path}).", param="expand")
    value = node[steps[0]]
    if isinstance(value, str):
        kind = next((kind for prefix, kind in KINDS.items() if value.startswith(prefix)), None)
        found = account.store.get(kind, value) if kind else None
        if kind is None or found is None:
            raise StripeError(f"This property cannot be expanded ({path}).", param="expand")
        value = subscription_object.view(account, found) if kind == "subscription" else found
        node[steps[0]] = value
    if len(steps) > 1 and value is not None:
        _walk(account, value, steps[1:], path)
