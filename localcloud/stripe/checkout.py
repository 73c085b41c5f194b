"""Checkout sessions in subscription mode: what a customer's browser would go through.

Nobody clicks in a stand-in, so `complete` (a control call) plays the customer: it fills the form and
pays. A delayed payment method completes the session while `payment_status` is still unpaid; what
came of it is said later (`settle`), which is the case that provisions unpaid customers by mistake.
"""

from __future__ import annotations

from typing import Any

from localcloud.standin.store import Object
from localcloud.stripe import customers, events, lifecycle, lists, prices, subscriptions
from localcloud.stripe.account import Account, new_id
from localcloud.stripe.clock import DAY, MINUTE
from localcloud.stripe.errors import StripeError, missing
from localcloud.stripe.params import Params
from localcloud.stripe.subscription_object import apply_items, blank, view

KIND = "checkout.session"
URL = "/v1/checkout/sessions"
LIFETIME_SECONDS = DAY
EXPIRED_STATUS, OPEN, COMPLETE = "expired", "open", "complete"


def create(account: Account, params: Params) -> Object:
    mode = params.choice("mode", ("subscription",))
    items = params.objects("line_items")
    key = new_id("cs_test", 58)
    now = account.clock.stamp()
    session: Object = {
        **_BLANK,
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
    wishes = _subscription_wishes(params)
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
        amount_total=0 if wishes["trial_days"] else total,
        _state={"lines": lines, "wishes": wishes},
    )
    _save(account, session)
    return _view(session)


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return _view(account.find(KIND, key))


def index(account: Account, params: Params) -> Object:
    customer, subscription = params.string("customer"), params.string("subscription")
    status = params.choice("status", (OPEN, COMPLETE, EXPIRED_STATUS))
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
    return {**found, "data": [_view(session) for session in found["data"]]}


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
    return _expire(account, session)


def complete(account: Account, key: str, form: dict[str, Any]) -> Object:
    """The customer submits the form. `form`: `email`, `name`, `card` (a test card, default
    pm_card_visa), `delayed` (true: the money comes later), `custom_fields` {key: text}."""
    session = account.find(KIND, key)
    if session["status"] != OPEN:
        raise StripeError(f"The session is {session['status']}, not open.")
    email = form.get("email") or session["customer_email"] or "customer@example.com"
    name = form.get("name") or None
    card = form.get("card", "pm_card_visa")
    settings = {"default_payment_method": card}
    if session["customer"] is None:
        fields: dict[str, Any] = {"email": email, "payment_method": card, "invoice_settings": settings}
        if name:
            fields["name"] = name
        session["customer"] = customers.create(account, Params(fields))["id"]
        session["customer_creation"] = "always"
    else:
        customers.update(account, Params({"invoice_settings": settings}), session["customer"])
    record = _subscribe(account, session)
    if record["status"] == "incomplete":
        raise subscriptions.declined()
    for field in session["custom_fields"]:
        field["text"]["value"] = form.get("custom_fields", {}).get(field["key"])
    session.update(
        status=COMPLETE,
        url=None,
        subscription=record["id"],
        invoice=record["latest_invoice"],
        payment_status="no_payment_required"
        if record["status"] == "trialing"
        else "unpaid"
        if form.get("delayed")
        else "paid",
        customer_details={
            "address": None,
            "business_name": None,
            "email": email,
            "individual_name": None,
            "name": name,
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": [],
        },
    )
    _save(account, session)
    events.emit(account, "checkout.session.completed", _view(session))
    return _view(session)


def settle(account: Account, key: str, *, succeeded: bool) -> Object:
    """What came of a delayed payment."""
    session = account.find(KIND, key)
    if session["status"] != COMPLETE or session["payment_status"] != "unpaid":
        raise StripeError("The session does not wait for a delayed payment.")
    if succeeded:
        session["payment_status"] = "paid"
    _save(account, session)
    outcome = "succeeded" if succeeded else "failed"
    events.emit(account, f"checkout.session.async_payment_{outcome}", _view(session))
    if not succeeded:
        lifecycle.force(account, session["subscription"], "past_due")
    return _view(session)


def expire_due(account: Account) -> None:
    """Expire the open sessions whose time is over."""
    while (found := account.store.first_due(KIND, until=account.clock.now())) is not None:
        moment, session = found
        with account.clock.at(moment):
            _expire(account, session)


def _subscribe(account: Account, session: Object) -> Object:
    wishes = session["_state"]["wishes"]
    record = blank(account, session["customer"])
    wanted = [
        Params({"price": line["price"], "quantity": str(line["quantity"])})
        for line in session["_state"]["lines"]
    ]
    apply_items(account, record, wanted)
    record.update(metadata=wishes["metadata"], description=wishes["description"])
    if wishes["trial_days"]:
        record["trial_end"] = account.clock.stamp() + wishes["trial_days"] * DAY
    subscriptions.start(account, record, defer_payment=False)
    return view(account, record)


def _subscription_wishes(params: Params) -> dict[str, Any]:
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


def _expire(account: Account, session: Object) -> Object:
    session.update(status=EXPIRED_STATUS, url=None)
    _save(account, session)
    events.emit(account, "checkout.session.expired", _view(session))
    return _view(session)


def _save(account: Account, session: Object) -> None:
    account.save(session, due=session["expires_at"] if session["status"] == OPEN else None)


def _view(session: Object) -> Object:
    return {key: value for key, value in session.items() if key != "_state"}


_BLANK: dict[str, Any] = {
    "adaptive_pricing": {"enabled": False},
    "after_expiration": None,
    "allow_promotion_codes": None,
    "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
    "billing_address_collection": None,
    "client_secret": None,
    "collected_information": None,
    "consent": None,
    "consent_collection": None,
    "currency_conversion": None,
    "custom_text": {
        "after_submit": None,
        "shipping_address": None,
        "submit": None,
        "terms_of_service_acceptance": None,
    },
    "customer_account": None,
    "customer_creation": None,
    "customer_details": None,
    "discounts": [],
    "integration_identifier": None,
    "invoice": None,
    "invoice_creation": None,
    "livemode": False,
    "locale": None,
    "managed_payments": {"enabled": False},
    "origin_context": None,
    "payment_intent": None,
    "payment_link": None,
    "payment_method_collection": "always",
    "payment_method_configuration_details": None,
    "payment_method_options": {},
    "payment_status": "unpaid",
    "permissions": None,
    "phone_number_collection": {"enabled": False},
    "recovered_from": None,
    "saved_payment_method_options": None,
    "setup_intent": None,
    "shipping_address_collection": None,
    "shipping_cost": None,
    "shipping_options": [],
    "status": "open",
    "submit_type": None,
    "subscription": None,
    "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    "wallet_options": None,
}
