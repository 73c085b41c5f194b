"""Recurring prices: what a product costs, and the lookup key that a plan catalogue names it by."""

from __future__ import annotations

from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import events, lists, products
from controlplane.localcloud.stripe.account import Account, difference, new_id
from controlplane.localcloud.stripe.errors import StripeError, missing
from controlplane.localcloud.stripe.params import Params

KIND = "price"
URL = "/v1/prices"
INTERVALS = ("day", "week", "month", "year")


def create(account: Account, params: Params) -> Object:
    currency = params.required("currency")
    amount = params.integer("unit_amount")
    recurring = params.object("recurring")
    product = params.string("product")
    inline = params.object("product_data")
    price: Object = {
        "id": new_id("price"),
        "object": KIND,
        "active": True,
        "billing_scheme": "per_unit",
        "created": account.clock.stamp(),
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": product,
        "recurring": None if recurring is None else _recurring(recurring),
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time" if recurring is None else "recurring",
        "unit_amount": amount,
        "unit_amount_decimal": None if amount is None else str(amount),
    }
    _apply(account, price, params)
    if inline is not None and product is None:
        price["product"] = products.create(account, inline)["id"]
    elif product is not None:
        account.find("product", product, param="product")
    params.finish()
    if price["product"] is None:
        raise missing("product")
    if amount is None:
        raise missing("unit_amount")
    account.save(price)
    events.emit(account, "price.created", price)
    return price


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return account.find(KIND, key)


def update(account: Account, params: Params, key: str) -> Object:
    price = account.find(KIND, key)
    before = dict(price)
    _apply(account, price, params)
    params.finish()
    if changed := difference(before, price):
        account.save(price)
        events.emit(account, "price.updated", price, previous=changed)
    return price


def index(account: Account, params: Params) -> Object:
    active = params.boolean("active")
    product = params.string("product")
    keys = params.strings("lookup_keys")
    kind = params.choice("type", ("one_time", "recurring"))
    return lists.page(
        account.store,
        params,
        KIND,
        url=URL,
        matches=lambda price: (
            (active is None or price["active"] == active)
            and (product is None or price["product"] == product)
            and (keys is None or price["lookup_key"] in keys)
            and kind in (None, price["type"])
        ),
    )


def plan_of(price: Object) -> dict[str, Any]:
    """The `plan` that a subscription item still carries beside its price."""
    recurring = price["recurring"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": price["metadata"],
        "meter": None,
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def _recurring(params: Params) -> dict[str, Any]:
    interval = params.choice("interval", INTERVALS)
    if interval is None:
        raise missing(params.name("interval"))
    return {
        "interval": interval,
        "interval_count": params.integer("interval_count", low=1, high=1095) or 1,
        "meter": None,
        "trial_period_days": None,
        "usage_type": params.choice("usage_type", ("licensed",)) or "licensed",
    }


def _apply(account: Account, price: Object, params: Params) -> None:
    if params.has("active"):
        price["active"] = params.boolean("active")
    if params.has("nickname"):
        price["nickname"] = params.string("nickname") or None
    price["metadata"] = params.metadata(price["metadata"])
    transfer = params.boolean("transfer_lookup_key")
    key = params.string("lookup_key", limit=200)
    if key is None:
        return
    for other in list(account.store.newest(KIND)) if key else ():
        if other["lookup_key"] != key or other["id"] == price["id"]:
            continue
        if not transfer:
            raise StripeError(
                f"A price (`{other['id']}`) already uses that lookup key.",
                code="resource_already_exists",
                param="lookup_key",
            )
        other["lookup_key"] = None
        account.save(other)
        events.emit(account, "price.updated", other, previous={"lookup_key": key})
    price["lookup_key"] = key or None
