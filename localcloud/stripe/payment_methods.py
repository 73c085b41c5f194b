"""Payment methods: Stripe's test cards, of which some pay and one does not.

`pm_card_chargeCustomerFail` attaches like any other and then fails at every charge, which is how a
subscription becomes incomplete, and later past due (Stripe's page "Testing").
"""

from __future__ import annotations

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe.account import Account, new_id
from controlplane.localcloud.stripe.errors import StripeError, no_such
from controlplane.localcloud.stripe.params import Params

KIND = "payment_method"
TEST_CARDS = {
    "pm_card_visa": ("visa", "4242"),
    "pm_card_mastercard": ("mastercard", "4444"),
    "pm_card_amex": ("amex", "8431"),
    "pm_card_chargeCustomerFail": ("visa", "0341"),
}


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return account.find(KIND, key)


def attach(account: Account, params: Params, key: str) -> Object:
    customer = params.required("customer")
    params.finish()
    account.find("customer", customer, param="customer")
    return attached(account, key, customer, param="id")


def attached(account: Account, key: str, customer: str, *, param: str) -> Object:
    """A test card, or a payment method of before, as the customer's own."""
    if key not in TEST_CARDS:
        method = account.store.get(KIND, key)
        if method is None:
            raise no_such("PaymentMethod", key, param=param, status=404 if param == "id" else 400)
        if method["customer"] != customer:
            raise StripeError("The payment method belongs to another customer.", param=param)
        return method
    brand, last4 = TEST_CARDS[key]
    method = {
        "id": new_id("pm"),
        "object": KIND,
        "card": {"brand": brand, "last4": last4},
        "created": account.clock.stamp(),
        "customer": customer,
        "livemode": False,
        "metadata": {"test_card": key},
        "type": "card",
    }
    account.save(method)
    return method


def pays(account: Account, key: str) -> bool:
    """Does a charge to this payment method go through?"""
    card: str = account.find(KIND, key)["metadata"]["test_card"]
    return card != "pm_card_chargeCustomerFail"
