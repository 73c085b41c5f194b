"""How a subscription moves from status to status: by payment, by time, by force.

    incomplete ─paid─▶ active ◀─paid── past_due ──dunning ends──▶ canceled | unpaid
        └─23 h─▶ incomplete_expired      ▲ renewal fails
    trialing ─trial ends─▶ active | past_due | paused | canceled

After Stripe's pages "How subscriptions work" and "Use trial periods". `advance` runs what has become
due in the order in which it became due, each at its own moment, so that a test which skips a year
sees twelve renewals and not one. While collection is paused, periods pass without an invoice.
"""

from __future__ import annotations

from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import customers, events, invoices
from controlplane.localcloud.stripe.account import Account, difference
from controlplane.localcloud.stripe.errors import StripeError
from controlplane.localcloud.stripe.subscription_object import (
    ENDED,
    INCOMPLETE_SECONDS,
    KIND,
    TRIAL_WARNING_SECONDS,
    period_end,
    save,
    set_period,
    view,
)

MAX_REPEATS = 10  # several things may be due at one moment, but not without end


def begin(account: Account, record: Object, *, defer_payment: bool) -> None:
    """The first status, with all events. `record` has its items, and `trial_end` where it is to
    start on trial; `defer_payment` leaves the first invoice for the customer to pay."""
    now = account.clock.stamp()
    if record["trial_end"] is not None:
        record.update(status="trialing", trial_start=now, billing_cycle_anchor=record["trial_end"])
        set_period(account, record, start=now, end=record["trial_end"])
    else:
        record["status"] = "active"
        set_period(account, record, start=now)
    invoice = invoices.open_invoice(account, view(account, record), reason="subscription_create")
    record["latest_invoice"] = invoice["id"]
    waits = defer_payment and invoice["amount_due"] > 0
    paid = not waits and (record["collection_method"] == "send_invoice" or collect(account, record))
    if not paid:
        record["status"] = "incomplete"
    save(account, record)
    events.emit(account, "customer.subscription.created", view(account, record))


def collect(account: Account, record: Object) -> bool:
    """Try to charge the latest invoice."""
    invoice = account.find("invoice", record["latest_invoice"])
    return invoices.collect(account, invoice, view(account, record))


def settle_payment(account: Account, record: Object) -> None:
    """The latest invoice has been paid: the subscription is in good standing again."""
    before = view(account, record)
    record["status"] = "active"
    record["_state"].update(attempts=0, next_attempt=None)
    customers.set_delinquent(account, record["customer"], delinquent=False)
    changed(account, record, before)


def changed(account: Account, record: Object, before: Object) -> None:
    """Save, and say what is different from `before` (a view) where something is."""
    save(account, record)
    after = view(account, record)
    if previous := difference(before, after):
        events.emit(account, "customer.subscription.updated", after, previous=previous)


def end(account: Account, record: Object, *, reason: str, details: dict[str, Any] | None = None) -> None:
    """Cancel for good; an incomplete one expires instead."""
    before = view(account, record)
    now = account.clock.stamp()
    incomplete = record["status"] == "incomplete"
    record.update(
        status="incomplete_expired" if incomplete else "canceled",
        canceled_at=record["canceled_at"] or now,
        ended_at=now,
        cancellation_details={**record["cancellation_details"], "reason": reason, **(details or {})},
    )
    record["_state"]["next_attempt"] = None
    if incomplete:
        invoices.void(account, record["latest_invoice"])
        changed(account, record, before)
        return
    save(account, record)
    events.emit(account, "customer.subscription.deleted", view(account, record))


def force(account: Account, key: str, status: str) -> Object:
    """Put the subscription into `status` at once, with the events that dunning, a bank or a trial's
    end would have caused. Raises StripeError for one that has ended: Stripe revives none."""
    record = account.find(KIND, key)
    before = view(account, record)
    now = account.clock.stamp()
    if status == record["status"]:
        return before
    if record["status"] in ENDED:
        raise StripeError(
            f"status: subscription {key} is {record['status']}, which is for ever; it can't become {status}."
            " Make a new subscription of the customer instead.",
            param="status",
        )
    if status in ENDED:
        if status == "incomplete_expired":
            record["status"] = "incomplete"
        end(account, record, reason="payment_failed")
        return view(account, record)
    record.update(status=status, ended_at=None, canceled_at=None)
    if status == "trialing":
        record.update(trial_start=now, trial_end=now + 14 * 86400)
        set_period(account, record, start=now, end=record["trial_end"])
    elif status == "active":
        record.update(latest_invoice=_next_invoice(account, record))
        invoices.mark_paid(account, account.find("invoice", record["latest_invoice"]))
        record["_state"].update(attempts=0, next_attempt=None)
    elif status in ("past_due", "unpaid", "incomplete"):
        record.update(latest_invoice=_next_invoice(account, record))
        invoices.mark_failed(account, account.find("invoice", record["latest_invoice"]))
        customers.set_delinquent(account, record["customer"], delinquent=True)
    changed(account, record, before)
    if status == "paused":
        events.emit(account, "customer.subscription.paused", view(account, record))
    return view(account, record)


def advance(account: Account) -> int:
    """Let everything happen that is due by now, in order; how many things did."""
    until, turns = account.clock.now(), 0
    last: tuple[str, float] | None = None
    repeats = 0
    while (found := account.store.first_due(KIND, until=until)) is not None:
        moment, record = found
        repeats = repeats + 1 if (record["id"], moment) == last else 0
        if repeats > MAX_REPEATS:
            raise RuntimeError(f"subscription {record['id']} stays due at {moment}")
        last = (record["id"], moment)
        with account.clock.at(moment):
            _turn(account, record, int(moment))
        turns += 1
    return turns


def _turn(account: Account, record: Object, now: int) -> None:
    """What time does to one subscription at the moment it is due."""
    before = view(account, record)
    status, state = record["status"], record["_state"]
    paused = record["pause_collection"]
    if record["cancel_at"] is not None and record["cancel_at"] <= now:
        end(account, record, reason="cancellation_requested")
    elif paused is not None and paused["resumes_at"] is not None and paused["resumes_at"] <= now:
        record["pause_collection"] = None
        changed(account, record, before)
    elif status == "incomplete" and record["created"] + INCOMPLETE_SECONDS <= now:
        end(account, record, reason="payment_failed")
    elif status == "trialing" and record["trial_end"] <= now:
        end_trial(account, record)
    elif status == "trialing" and record["trial_end"] - TRIAL_WARNING_SECONDS <= now:
        state["trial_warned"] = True
        save(account, record)
        events.emit(account, "customer.subscription.trial_will_end", view(account, record))
    elif state["next_attempt"] is not None and state["next_attempt"] <= now:
        _retry(account, record)
    elif period_end(record) <= now:
        _renew(account, record)


def end_trial(account: Account, record: Object) -> None:
    """The trial is over: pay, pause or cancel, as its settings say."""
    before = view(account, record)
    now = account.clock.stamp()
    missing = record["trial_settings"]["end_behavior"]["missing_payment_method"]
    method = record["default_payment_method"] or customers.pays_with(account, record["customer"])
    record["trial_end"] = now
    if method is None and missing == "cancel":
        end(account, record, reason="payment_failed")
        return
    if method is None and missing == "pause":
        record["status"] = "paused"
        changed(account, record, before)
        events.emit(account, "customer.subscription.paused", view(account, record))
        return
    record.update(status="active", billing_cycle_anchor=now)
    set_period(account, record, start=now)
    _charge_period(account, record, before, reason="subscription_cycle")


def _renew(account: Account, record: Object) -> None:
    before = view(account, record)
    set_period(account, record, start=period_end(record))
    if record["pause_collection"] is not None:
        changed(account, record, before)
        return
    _charge_period(account, record, before, reason="subscription_cycle")


def _charge_period(account: Account, record: Object, before: Object, *, reason: str) -> None:
    invoice = invoices.open_invoice(account, view(account, record), reason=reason)
    record["latest_invoice"] = invoice["id"]
    if record["collection_method"] == "send_invoice" or collect(account, record):
        changed(account, record, before)
        return
    record["status"] = "past_due"
    _plan_attempt(account, record)
    customers.set_delinquent(account, record["customer"], delinquent=True)
    changed(account, record, before)


def _retry(account: Account, record: Object) -> None:
    """Another attempt to collect; after the last the account's settings decide."""
    before = view(account, record)
    if collect(account, record):
        settle_payment(account, record)
        return
    record["_state"]["attempts"] += 1
    _plan_attempt(account, record)
    outcome = account.settings.dunning_outcome
    if record["_state"]["next_attempt"] is not None or outcome == "past_due":
        save(account, record)
    elif outcome == "unpaid":
        record["status"] = "unpaid"
        changed(account, record, before)
    else:
        end(account, record, reason="payment_failed")


def _plan_attempt(account: Account, record: Object) -> None:
    state, waits = record["_state"], account.settings.dunning_seconds
    more = state["attempts"] < len(waits)
    state["next_attempt"] = account.clock.stamp() + waits[state["attempts"]] if more else None


def _next_invoice(account: Account, record: Object) -> str:
    invoice = invoices.open_invoice(account, view(account, record), reason="subscription_cycle")
    key: str = invoice["id"]
    return key
