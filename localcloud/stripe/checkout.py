"""The checkout session endpoints, in subscription mode. What a customer then does: `checkout_visit`."""

from __future__ import annotations

from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import lists, prices
from controlplane.localcloud.stripe.account import Account, new_id
from controlplane.localcloud.stripe.checkout_object import (
    BLANK,
    COMPLETE,
    EXPIRED,
    KIND,
    OPEN,
    close_expired,
    save,
    view,
)
from controlplane.localcloud.stripe.clock import DAY, MINUTE
from controlplane.localcloud.stripe.errors import StripeError, missing
from controlplane.localcloud.stripe.params import Params

URL = "/v1/checkout/sessions"
LIFETIME_SECONDS = DAY


def create(account: Account, params: Params) -> Object:
    mode = params.choice("mode", ("subscription",))
    items = params.objects("line_items")
    key = new_id("cs_test", 58)
    now = account.clock.stamp()
    session: Object = {
        **BLANK,
        "id": key,
        "object": KIND,
        "cancel_url": params.string("cancel_url") or None,
        "client_reference_id": params.string("client_reference_id", limit=200) or None,
        "created": now,
        "custom_fields": [_custom_field(field) for field in params.objects("custom_fields") or []],
        "customer": params.string("customer") or None,
        "customer_email": params.string("customer_email") or None,
        "expires_at": params.integer("expires_at", low=now + 30 * MINUTE, high=now + LIFETIME_SECONDS)
        or now + LIFETIME_SECONDS,
        "metadata": params.metadata({}),
        "mode": mode,
        "payment_method_types": params.strings("payment_method_types") or ["card"],
        "success_url": params.string("success_url") or None,
        "ui_mode": "hosted",
        "url": f"https://checkout.stripe.com/c/pay/{key}",
    }
    asked = _subscription_options(params)
    lines = _lines(account, items or [])
    params.finish()
    if mode is None:
        raise missing("mode")
    if not items:
        raise missing("line_items")
    if session["success_url"] is None:
        raise missing("success_url")
    if session["customer"] is not None:
        account.find("customer", session["customer"], param="customer")
    total = sum(line["amount"] for line in lines)
    session.update(
        currency=lines[0]["currency"],
        amount_subtotal=total,
        amount_total=0 if asked["trial_days"] else total,
        _state={"lines": lines, "asked": asked},
    )
    save(account, session)
    return view(session)


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return view(account.find(KIND, key))


def index(account: Account, params: Params) -> Object:
    customer, subscription = params.string("customer"), params.string("subscription")
    status = params.choice("status", (OPEN, COMPLETE, EXPIRED))
    created = params.range("created")
    found = lists.page(
        account.store,
        params,
        KIND,
        url=URL,
        matches=lambda session: (
            customer in (None, session["customer"])
            and subscription in (None, session["subscription"])
            and status in (None, session["status"])
            and created(session["created"])
        ),
    )
    return {**found, "data": [view(session) for session in found["data"]]}


def line_items(account: Account, params: Params, key: str) -> Object:
    session = account.find(KIND, key)
    params.finish()
    data = [
        {
            "id": new_id("li", 14),
            "object": "item",
            "amount_subtotal": line["amount"],
            "amount_total": line["amount"],
            "currency": line["currency"],
            "description": None,
            "price": account.find("price", line["price"]),
            "quantity": line["quantity"],
        }
        for line in session["_state"]["lines"]
    ]
    return lists.of(data, f"{URL}/{key}/line_items")


def expire(account: Account, params: Params, key: str) -> Object:
    session = account.find(KIND, key)
    params.finish()
    if session["status"] != OPEN:
        raise StripeError(f"Only open sessions can be expired; this one is {session['status']}.")
    return close_expired(account, session)


def _subscription_options(params: Params) -> dict[str, Any]:
    data = params.object("subscription_data") or Params({})
    return {
        "metadata": data.metadata({}),
        "description": data.string("description") or None,
        "trial_days": data.integer("trial_period_days", low=1, high=730),
    }


def _lines(account: Account, items: list[Params]) -> list[dict[str, Any]]:
    lines = []
    for item in items:
        price = account.find(prices.KIND, item.required("price"), param=item.name("price"))
        quantity = item.integer("quantity", low=1, high=999_999) or 1
        lines.append(
            {
                "price": price["id"],
                "quantity": quantity,
                "amount": price["unit_amount"] * quantity,
                "currency": price["currency"],
            }
        )
    return lines


def _custom_field(params: Params) -> dict[str, Any]:
    label = params.object("label")
    return {
        "key": params.required("key"),
        "label": {
            "custom": label.required("custom") if label else None,
            "type": (label.choice("type", ("custom",)) if label else None) or "custom",
        },
        "optional": params.boolean("optional") or False,
        "text": {"default_value": None, "maximum_length": None, "minimum_length": None, "value": None},
        "type": params.choice("type", ("text",)) or "text",
    }
