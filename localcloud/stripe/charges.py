"""Charges that are disputed or said to be fraud: what a bank tells, by a control call.

Stripe's objects of both name the charge and not the customer, so whoever hears of one has to fetch the
charge.
"""

from __future__ import annotations

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import events
from controlplane.localcloud.stripe.account import Account, new_id
from controlplane.localcloud.stripe.params import Params


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return account.find("charge", key)


def dispute(account: Account, subscription_id: str, *, warning: bool) -> Object:
    """The charge for this subscription is disputed or, `warning`, said to be fraud before anybody disputes
    it."""
    subscription, now = account.find("subscription", subscription_id), account.clock.stamp()
    charge: Object = {
        "id": new_id("ch"),
        "object": "charge",
        "amount": 4900,
        "created": now,
        "currency": "usd",
        "customer": subscription["customer"],
        "disputed": not warning,
        "livemode": False,
        "metadata": {},
        "paid": True,
        "refunded": False,
        "status": "succeeded",
    }
    account.save(charge)
    if warning:
        told: Object = {
            "id": new_id("issfr"),
            "object": "radar.early_fraud_warning",
            "actionable": True,
            "charge": charge["id"],
            "created": now,
            "fraud_type": "made_with_stolen_card",
            "livemode": False,
        }
        events.emit(account, "radar.early_fraud_warning.created", told)
        return told
    told = {
        "id": new_id("dp"),
        "object": "dispute",
        "amount": charge["amount"],
        "charge": charge["id"],
        "created": now,
        "currency": "usd",
        "livemode": False,
        "metadata": {},
        "reason": "fraudulent",
        "status": "needs_response",
    }
    events.emit(account, "charge.dispute.created", told)
    return told
