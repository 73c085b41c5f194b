"""What a subscription is: its fields, its items, how it is kept and how it is shown.

Kept, an item names its price by id and the record carries `_state`, the fake server's own notes for the
next payment attempt. Shown, the price stands in full and the notes are gone.
"""

from __future__ import annotations

import json
from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import lists, periods, prices
from controlplane.localcloud.stripe.account import Account, new_id
from controlplane.localcloud.stripe.clock import DAY, HOUR
from controlplane.localcloud.stripe.errors import StripeError, missing, no_such
from controlplane.localcloud.stripe.params import Params

KIND = "subscription"
STATUSES = (
    "incomplete",
    "incomplete_expired",
    "trialing",
    "active",
    "past_due",
    "canceled",
    "unpaid",
    "paused",
)
ENDED = ("canceled", "incomplete_expired")
MAX_ITEMS = 20
INCOMPLETE_SECONDS = 23 * HOUR
TRIAL_WARNING_SECONDS = 3 * DAY


def blank(account: Account, customer: str) -> Object:
    """A subscription that has neither items nor a status yet."""
    now = account.clock.stamp()
    return {
        "id": new_id("sub"),
        "object": KIND,
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": None, "type": "classic"},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": "",
        "customer": customer,
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "items": lists.of([], ""),
        "latest_invoice": None,
        "livemode": False,
        "managed_payments": {"enabled": False},
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": "",
        "test_clock": None,
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
        "_state": {"attempts": 0, "next_attempt": None, "trial_warned": False},
    }


def apply_items(account: Account, record: Object, items: list[Params]) -> None:
    """Add, change and remove items as `items[]` of a call says. Raises StripeError."""
    kept: list[Object] = record["items"]["data"]
    for params in items:
        key = params.string("id")
        if key is None:
            price = _recurring_price(account, params.required("price"), params.name("price"))
            if any(item["price"] == price["id"] for item in kept):
                raise StripeError(
                    f"Cannot add multiple subscription items with the same plan: {price['id']}",
                    param=params.name("price"),
                )
            kept.append(_item(account, record, price["id"], params))
            continue
        item = next((item for item in kept if item["id"] == key), None)
        if item is None:
            raise no_such("subscription item", key, param=params.name("id"), status=400)
        if params.boolean("deleted"):
            kept.remove(item)
            continue
        if params.has("price"):
            price = _recurring_price(account, params.required("price"), params.name("price"))
            item["price"] = price["id"]
        quantity = params.integer("quantity", low=0, high=999_999_999)
        item["quantity"] = item["quantity"] if quantity is None else quantity
        item["metadata"] = params.metadata(item["metadata"])
    _check(account, record)


def set_period(account: Account, record: Object, *, start: int, end: int | None = None) -> None:
    """Give every item the period from `start`; `end` None: as long as its price says."""
    recurring = account.find("price", record["items"]["data"][0]["price"])["recurring"]
    until = end if end is not None else periods.end(record["billing_cycle_anchor"], start, recurring)
    for item in record["items"]["data"]:
        item["current_period_start"], item["current_period_end"] = start, until


def period_end(record: Object) -> int:
    moment: int = record["items"]["data"][0]["current_period_end"]
    return moment


def interval(account: Account, record: Object) -> tuple[str, int]:
    recurring = account.find("price", record["items"]["data"][0]["price"])["recurring"]
    return recurring["interval"], recurring["interval_count"]


def view(account: Account, record: Object) -> Object:
    """The subscription as the API shows it."""
    shown: Object = json.loads(json.dumps(record))
    del shown["_state"]
    for item in shown["items"]["data"]:
        price = account.find("price", item["price"])
        item["price"] = price
        item["plan"] = prices.plan_of(price)
    return shown


def save(account: Account, record: Object) -> None:
    account.save(record, due=_due(record))


def _due(record: Object) -> float | None:
    """When time alone will change this subscription next."""
    status, state = record["status"], record["_state"]
    moments: list[Any] = [record["cancel_at"]]
    if status in ENDED:
        return None
    if status == "incomplete":
        moments.append(record["created"] + INCOMPLETE_SECONDS)
    elif status == "trialing":
        moments.append(record["trial_end"])
        if not state["trial_warned"]:
            moments.append(record["trial_end"] - TRIAL_WARNING_SECONDS)
    elif status in ("active", "past_due"):
        moments += [period_end(record), state["next_attempt"]]
    if record["pause_collection"] is not None:
        moments.append(record["pause_collection"]["resumes_at"])
    known = [moment for moment in moments if moment is not None]
    return min(known) if known else None


def _recurring_price(account: Account, key: str, param: str) -> Object:
    price = account.find("price", key, param=param)
    if price["type"] != "recurring":
        raise StripeError(
            "The price specified is set to `type=one_time` but this field only accepts prices with "
            "`type=recurring`.",
            param=param,
        )
    if not price["active"]:
        raise StripeError(
            f"The price specified is inactive. This field only accepts active prices: {key}", param=param
        )
    return price


def _item(account: Account, record: Object, price: str, params: Params) -> Object:
    now = account.clock.stamp()
    quantity = params.integer("quantity", low=0, high=999_999_999)
    first = record["items"]["data"][0] if record["items"]["data"] else None
    return {
        "id": new_id("si", 14),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": now,
        "current_period_end": first["current_period_end"] if first else now,
        "current_period_start": first["current_period_start"] if first else now,
        "discounts": [],
        "metadata": params.metadata({}),
        "price": price,
        "quantity": 1 if quantity is None else quantity,
        "subscription": record["id"],
        "tax_rates": [],
    }


def _check(account: Account, record: Object) -> None:
    kept = record["items"]["data"]
    if not kept:
        raise missing("items")
    if len(kept) > MAX_ITEMS:
        raise StripeError(f"A subscription holds up to {MAX_ITEMS} items.", param="items")
    found = [account.find("price", item["price"]) for item in kept]
    if len({price["currency"] for price in found}) > 1:
        raise StripeError("All prices of a subscription must have the same currency.", param="items")
    if len({(p["recurring"]["interval"], p["recurring"]["interval_count"]) for p in found}) > 1:
        raise StripeError(
            "If you specify multiple plans, they must have the same billing interval.", param="items"
        )
    record["currency"] = found[0]["currency"]
    record["items"]["url"] = f"/v1/subscription_items?subscription={record['id']}"
