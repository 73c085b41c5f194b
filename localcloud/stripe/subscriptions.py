"""The subscription endpoints."""

from __future__ import annotations

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import customers, events, invoices, lifecycle, lists, payment_methods
from controlplane.localcloud.stripe import subscription_changes as changes
from controlplane.localcloud.stripe.account import Account
from controlplane.localcloud.stripe.clock import DAY
from controlplane.localcloud.stripe.errors import StripeError, missing, no_such
from controlplane.localcloud.stripe.params import Params
from controlplane.localcloud.stripe.subscription_object import (
    ENDED,
    KIND,
    STATUSES,
    apply_items,
    blank,
    interval,
    period_end,
    save,
    set_period,
    view,
)

URL = "/v1/subscriptions"
PAYMENT_BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete")


def create(account: Account, params: Params) -> Object:
    customer = account.find("customer", params.required("customer"), param="customer")
    items = params.objects("items")
    behavior = params.choice("payment_behavior", PAYMENT_BEHAVIORS) or "allow_incomplete"
    record = blank(account, customer["id"])
    if not items:
        raise missing("items")
    apply_items(account, record, items)
    days = params.integer("trial_period_days", low=1, high=730)
    if days is not None:
        record["trial_end"] = account.clock.stamp() + days * DAY
    trial = params.string("trial_end")
    if trial is not None and trial != "now":
        record["trial_end"] = changes.future(account, params.integer("trial_end") or 0, "trial_end")
    changes.apply(account, record, params)
    params.finish()
    if record["collection_method"] == "send_invoice" and record["days_until_due"] is None:
        raise missing("days_until_due")
    _require_payment_method(account, record, behavior)
    start(account, record, defer_payment=behavior == "default_incomplete")
    if record["status"] == "incomplete" and behavior == "error_if_incomplete":
        raise declined()
    return view(account, record)


def start(account: Account, record: Object, *, defer_payment: bool) -> None:
    """Begin the subscription, and set what depends on its first period."""
    lifecycle.begin(account, record, defer_payment=defer_payment)
    if record["cancel_at_period_end"]:
        record["cancel_at"] = period_end(record)
        save(account, record)


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return view(account, account.find(KIND, key))


def index(account: Account, params: Params) -> Object:
    """Newest first. Without `status` all that have not been canceled."""
    customer, price = params.string("customer"), params.string("price")
    status = params.choice("status", (*STATUSES, "all", "ended"))
    method = params.string("collection_method")
    created = params.range("created")
    ends = params.range("current_period_end")

    def matches(record: Object) -> bool:
        return (
            customer in (None, record["customer"])
            and (price is None or any(item["price"] == price for item in record["items"]["data"]))
            and _status_matches(status, record["status"])
            and method in (None, record["collection_method"])
            and created(record["created"])
            and ends(period_end(record))
        )

    found = lists.page(account.store, params, KIND, url=URL, matches=matches)
    return {**found, "data": [view(account, record) for record in found["data"]]}


def items(account: Account, params: Params) -> Object:
    """All of a subscription's, in the order in which they were added."""
    key = params.string("subscription")
    limit = params.integer("limit", low=1, high=lists.MAX_LIMIT) or lists.DEFAULT_LIMIT
    after = params.string("starting_after")
    params.finish()
    if key is None:
        raise missing("subscription")
    found = view(account, account.find(KIND, key))["items"]["data"]
    ids = [item["id"] for item in found]
    if after is not None and after not in ids:
        raise no_such("subscription_item", after, param="starting_after", status=400)
    rest = found[ids.index(after) + 1 :] if after is not None else found
    return {**lists.of(rest[:limit], "/v1/subscription_items"), "has_more": len(rest) > limit}


def update(account: Account, params: Params, key: str) -> Object:
    record = account.find(KIND, key)
    before = view(account, record)
    if record["status"] in ENDED:
        return _annotate_ended(account, record, before, params)
    cycle = interval(account, record)
    items = params.objects("items")
    if items is not None:
        apply_items(account, record, items)
    trial = params.string("trial_end")
    if trial is not None and trial != "now":
        record["trial_end"] = changes.future(account, params.integer("trial_end") or 0, "trial_end")
        record["status"] = "trialing"
        set_period(account, record, start=account.clock.stamp(), end=record["trial_end"])
    params.choice("payment_behavior", (*PAYMENT_BEHAVIORS, "pending_if_incomplete"))
    changes.apply(account, record, params)
    params.finish()
    if interval(account, record) != cycle:
        record["billing_cycle_anchor"] = account.clock.stamp()
        set_period(account, record, start=record["billing_cycle_anchor"])
    if record["cancel_at_period_end"]:
        record["cancel_at"] = period_end(record)
    lifecycle.changed(account, record, before)
    if trial == "now" and record["status"] == "trialing":
        lifecycle.end_trial(account, record)
    return view(account, account.find(KIND, key))


def cancel(account: Account, params: Params, key: str) -> Object:
    record = account.find(KIND, key)
    details = changes.cancellation(params)
    params.boolean("invoice_now")
    params.boolean("prorate")
    params.finish()
    if record["status"] in ENDED:
        raise no_such("subscription", key)
    lifecycle.end(account, record, reason="cancellation_requested", details=details)
    return view(account, record)


def resume(account: Account, params: Params, key: str) -> Object:
    """Back from `paused`; stays paused while the resumption invoice can't be paid."""
    record = account.find(KIND, key)
    params.choice("billing_cycle_anchor", ("now", "unchanged"))
    params.choice("proration_behavior", changes.PRORATIONS)
    params.finish()
    if record["status"] != "paused":
        raise StripeError("You can only resume subscriptions that are paused.")
    now = account.clock.stamp()
    before = view(account, record)
    record["billing_cycle_anchor"] = now
    set_period(account, record, start=now)
    shown = view(account, record)
    record["latest_invoice"] = invoices.open_invoice(account, shown, reason="subscription_update")["id"]
    if lifecycle.collect(account, record):
        record["status"] = "active"
    lifecycle.changed(account, record, before)
    if record["status"] == "active":
        events.emit(account, "customer.subscription.resumed", view(account, record))
    return view(account, record)


def pay_invoice(account: Account, params: Params, key: str) -> Object:
    """POST /v1/invoices/{id}/pay: what a customer does who comes back with a card that works."""
    invoice = invoices.payable(account, key)
    record = account.find(KIND, invoices.subscription_of(invoice))
    outside = params.boolean("paid_out_of_band")
    method = params.string("payment_method")
    params.finish()
    if method:
        record["default_payment_method"] = payment_methods.attached(
            account, method, record["customer"], param="payment_method"
        )["id"]
    if outside:
        invoices.mark_paid(account, invoice)
    elif not invoices.collect(account, invoice, view(account, record)):
        raise declined()
    if record["latest_invoice"] == key and record["status"] in ("incomplete", "past_due", "unpaid"):
        lifecycle.settle_payment(account, record)
    return account.find("invoice", key)


def delete_customer(account: Account, params: Params, key: str) -> Object:
    """DELETE /v1/customers/{id}: gone for good, and its subscriptions end at once."""
    customer = account.find("customer", key)
    params.finish()
    for record in list(account.store.oldest(KIND)):
        if record["customer"] == key and record["status"] not in ENDED:
            lifecycle.end(account, record, reason="cancellation_requested")
    account.save({"id": key, "object": "customer", "deleted": True})
    events.emit(account, "customer.deleted", customer)
    return {"id": key, "object": "customer", "deleted": True}


def declined() -> StripeError:
    return StripeError(
        "Your card was declined.", status=402, kind="card_error", code="card_declined", param=""
    )


def _annotate_ended(account: Account, record: Object, before: Object, params: Params) -> Object:
    record["metadata"] = params.metadata(record["metadata"])
    record["cancellation_details"].update(changes.cancellation(params))
    if params.unread():
        raise StripeError("A canceled subscription can only update its cancellation_details and metadata.")
    lifecycle.changed(account, record, before)
    return view(account, record)


def _require_payment_method(account: Account, record: Object, behavior: str) -> None:
    """Stripe refuses to charge automatically what nothing can be charged to."""
    shown = view(account, record)
    due = sum(item["price"]["unit_amount"] * item["quantity"] for item in shown["items"]["data"])
    exempt = (
        record["collection_method"] == "send_invoice"
        or record["trial_end"] is not None
        or behavior == "default_incomplete"
        or due == 0
    )
    method = record["default_payment_method"] or customers.pays_with(account, record["customer"])
    if method is None and not exempt:
        raise StripeError(
            "This customer has no attached payment source or default payment method. Please consider "
            "adding a default payment method.",
            code="resource_missing",
        )


def _status_matches(wanted: str | None, status: str) -> bool:
    if wanted is None:
        return status != "canceled"
    return wanted in ("all", status) or (wanted == "ended" and status in ENDED)
