"""Invoices: the events and the payment state around a subscription; they hold no money."""

from __future__ import annotations

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import customers, events, lists, payment_methods
from controlplane.localcloud.stripe.account import Account, difference, new_id
from controlplane.localcloud.stripe.clock import DAY
from controlplane.localcloud.stripe.errors import StripeError
from controlplane.localcloud.stripe.invoice_object import BLANK, line_item
from controlplane.localcloud.stripe.params import Params

KIND = "invoice"
URL = "/v1/invoices"


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return account.find(KIND, key)


def index(account: Account, params: Params) -> Object:
    customer, subscription = params.string("customer"), params.string("subscription")
    status = params.choice("status", ("draft", "open", "paid", "uncollectible", "void"))
    created = params.range("created")
    return lists.page(
        account.store,
        params,
        KIND,
        url=URL,
        matches=lambda invoice: (
            customer in (None, invoice["customer"])
            and subscription in (None, subscription_of(invoice))
            and status in (None, invoice["status"])
            and created(invoice["created"])
        ),
    )


def subscription_of(invoice: Object) -> str:
    key: str = invoice["parent"]["subscription_details"]["subscription"]
    return key


def open_invoice(account: Account, subscription: Object, *, reason: str) -> Object:
    """A finalised, unpaid invoice for the subscription's current period; nothing is due while it
    is on trial."""
    now = account.clock.stamp()
    customer = account.find("customer", subscription["customer"], param="customer")
    key = new_id("in")
    free = subscription["status"] == "trialing"
    lines = [line_item(key, subscription, item, free=free) for item in subscription["items"]["data"]]
    total = sum(line["amount"] for line in lines)
    sends = subscription["collection_method"] == "send_invoice"
    number = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}"
    customer["next_invoice_sequence"] += 1
    customer["currency"] = customer["currency"] or subscription["currency"]
    account.save(customer)
    invoice: Object = {
        **BLANK,
        "id": key,
        "object": KIND,
        "amount_due": total,
        "amount_remaining": total,
        "auto_advance": not sends,
        "automatically_finalizes_at": None,
        "billing_reason": reason,
        "collection_method": subscription["collection_method"],
        "created": now,
        "currency": subscription["currency"],
        "customer": customer["id"],
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "due_date": now + subscription["days_until_due"] * DAY if sends else None,
        "effective_at": now,
        "lines": lists.of(lines, f"{URL}/{key}/lines"),
        "number": number,
        "parent": {
            "quote_details": None,
            "subscription_details": {
                "metadata": subscription["metadata"],
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        },
        "period_end": now,
        "period_start": now,
        "status": "open",
        "status_transitions": {
            "finalized_at": now,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_excluding_tax": total,
    }
    account.save(invoice)
    events.emit(account, "invoice.created", {**invoice, "status": "draft", "number": None})
    events.emit(account, "invoice.finalized", invoice)
    return invoice


def collect(account: Account, invoice: Object, subscription: Object) -> bool:
    """Try to charge; true where the invoice is paid afterwards. Emits the outcome."""
    method = subscription["default_payment_method"] or customers.pays_with(account, invoice["customer"])
    if invoice["amount_due"] == 0 or (method is not None and payment_methods.pays(account, method)):
        mark_paid(account, invoice)
        return True
    mark_failed(account, invoice)
    return False


def mark_paid(account: Account, invoice: Object) -> None:
    before = dict(invoice)
    invoice.update(
        status="paid",
        attempted=True,
        attempt_count=invoice["attempt_count"] + (1 if invoice["amount_due"] else 0),
        amount_paid=invoice["amount_due"],
        amount_remaining=0,
        next_payment_attempt=None,
        status_transitions={**invoice["status_transitions"], "paid_at": account.clock.stamp()},
    )
    account.save(invoice)
    events.emit(account, "invoice.updated", invoice, previous=difference(before, invoice))
    events.emit(account, "invoice.paid", invoice)
    events.emit(account, "invoice.payment_succeeded", invoice)


def mark_failed(account: Account, invoice: Object, *, next_attempt: int | None = None) -> None:
    before = dict(invoice)
    invoice.update(
        attempted=True, attempt_count=invoice["attempt_count"] + 1, next_payment_attempt=next_attempt
    )
    account.save(invoice)
    events.emit(account, "invoice.updated", invoice, previous=difference(before, invoice))
    events.emit(account, "invoice.payment_failed", invoice)


def void(account: Account, key: str) -> None:
    """Where it is open; a paid one stays."""
    invoice = account.find(KIND, key)
    if invoice["status"] != "open":
        return
    moment = account.clock.stamp()
    invoice["status"] = "void"
    invoice["status_transitions"] = {**invoice["status_transitions"], "voided_at": moment}
    account.save(invoice)
    events.emit(account, "invoice.voided", invoice)


def payable(account: Account, key: str) -> Object:
    """The invoice, where it can still be paid. Raises StripeError."""
    invoice = account.find(KIND, key)
    if invoice["status"] == "paid":
        raise StripeError("Invoice is already paid", code="invoice_already_paid")
    if invoice["status"] != "open":
        raise StripeError("This invoice can't be paid.", code="invoice_not_editable")
    return invoice
