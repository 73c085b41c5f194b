"""A stateful fake server for Stripe, for demo, development, test: `python -m controlplane.localcloud.stripe`.

Stripe is where a tenant's life begins, so what stands in for it must behave like it where it
matters to us: objects in the shape of the API version asked for, state that changes for a reason
and says so in events, webhooks that are signed, retried, doubled, late and out of order. The
official SDK talks to it unchanged (`StripeClient(key, base_addresses={"api": url})`).

What it does not do: money. No charge, tax, proration, coupon or bank exists; an invoice is paid when
its customer's test payment method says so. A parameter that it does not know is refused as Stripe
refuses an unknown one, never silently dropped.

One noun a file: `customers`, `products`, `prices`, `subscriptions`, `invoices`, `checkout`,
`webhook_endpoints`, `events`; `lifecycle` moves subscriptions through time, `delivery` sends events,
`versions` renders older API shapes, `checkout_visit` plays the customer, `control` is the part that
no real Stripe has (`/_localcloud/…`), `client` its Python side, `catalogue` what a demo sets up.
"""
