"""What a checkout session is: its fields, how it is kept and how it is shown."""

from __future__ import annotations

from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import events
from controlplane.localcloud.stripe.account import Account

KIND = "checkout.session"
OPEN, COMPLETE, EXPIRED = "open", "complete", "expired"


def close_expired(account: Account, session: Object) -> Object:
    session.update(status=EXPIRED, url=None)
    save(account, session)
    events.emit(account, "checkout.session.expired", view(session))
    return view(session)


def save(account: Account, session: Object) -> None:
    account.save(session, due=session["expires_at"] if session["status"] == OPEN else None)


def view(session: Object) -> Object:
    return {key: value for key, value in session.items() if key != "_state"}


BLANK: dict[str, Any] = {
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
