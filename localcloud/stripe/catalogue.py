"""What a company sets up once in Stripe, and what its customer does: prices, and a subscription.

Goes through the official SDK, so it works the same against the fake server and a Stripe test account.
"""

from __future__ import annotations

from collections.abc import Mapping

import stripe


def create_prices(
    client: stripe.StripeClient, plans: Mapping[str, int], *, currency: str = "usd"
) -> dict[str, str]:
    """A product with one monthly price for each plan; what exists is kept.

    `plans`: lookup key → amount a month in the currency's smallest unit (4900 = 49.00).
    Returns lookup key → price id.
    """
    keys = list(plans)
    found = client.v1.prices.list({"lookup_keys": keys, "limit": 100}) if keys else None
    prices = {price.lookup_key: price.id for price in found.data if price.lookup_key} if found else {}
    for key, amount in plans.items():
        if key in prices:
            continue
        product = client.v1.products.create({"name": key})
        price = client.v1.prices.create(
            {
                "product": product.id,
                "currency": currency,
                "unit_amount": amount,
                "recurring": {"interval": "month"},
                "lookup_key": key,
            }
        )
        prices[key] = price.id
    return prices


def subscribe(
    client: stripe.StripeClient,
    *,
    customer_name: str,
    email: str,
    price: str,
    metadata: Mapping[str, str],
) -> stripe.Subscription:
    """A new customer with Stripe's test Visa card, subscribed to the price with this id."""
    customer = client.v1.customers.create(
        {
            "name": customer_name,
            "email": email,
            "payment_method": "pm_card_visa",
            "invoice_settings": {"default_payment_method": "pm_card_visa"},
        }
    )
    return client.v1.subscriptions.create(
        {"customer": customer.id, "items": [{"price": price}], "metadata": dict(metadata)}
    )
