"""A customer's visit to a checkout page, played by control calls: it submits the form, or doesn't.

A delayed payment method completes the session while `payment_status` is still unpaid; what came of
it is said later (`settle`). That is the case in which unpaid customers get provisioned by mistake.
"""

from __future__ import annotations

from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import customers, events, lifecycle, subscriptions
from controlplane.localcloud.stripe.account import Account
from controlplane.localcloud.stripe.checkout_object import COMPLETE, KIND, OPEN, close_expired, save, view
from controlplane.localcloud.stripe.clock import DAY
from controlplane.localcloud.stripe.errors import StripeError
from controlplane.localcloud.stripe.params import Params
from controlplane.localcloud.stripe.subscription_object import ENDED, apply_items, blank
from controlplane.localcloud.stripe.subscription_object import view as subscription_view


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
    save(account, session)
    events.emit(account, "checkout.session.completed", view(session))
    return view(session)


def settle(account: Account, key: str, *, succeeded: bool) -> Object:
    """What came of a delayed payment."""
    session = account.find(KIND, key)
    if session["status"] != COMPLETE or session["payment_status"] != "unpaid":
        raise StripeError("The session does not wait for a delayed payment.")
    if succeeded:
        session["payment_status"] = "paid"
    save(account, session)
    outcome = "succeeded" if succeeded else "failed"
    events.emit(account, f"checkout.session.async_payment_{outcome}", view(session))
    if not succeeded and account.find("subscription", session["subscription"])["status"] not in ENDED:
        lifecycle.force(account, session["subscription"], "past_due")
    return view(session)


def expire_due(account: Account) -> None:
    """Expire the open sessions whose time is over."""
    while (found := account.store.first_due(KIND, until=account.clock.now())) is not None:
        moment, session = found
        with account.clock.at(moment):
            close_expired(account, session)


def _subscribe(account: Account, session: Object) -> Object:
    asked = session["_state"]["asked"]
    record = blank(account, session["customer"])
    wanted = [
        Params({"price": line["price"], "quantity": str(line["quantity"])})
        for line in session["_state"]["lines"]
    ]
    apply_items(account, record, wanted)
    record.update(metadata=asked["metadata"], description=asked["description"])
    if asked["trial_days"]:
        record["trial_end"] = account.clock.stamp() + asked["trial_days"] * DAY
    subscriptions.start(account, record, defer_payment=False)
    return subscription_view(account, record)
