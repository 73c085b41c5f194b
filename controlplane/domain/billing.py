"""Stripe's events and subscriptions, read.

Nothing here raises, whatever JSON it is given, because it stands behind an event that has been acknowledged:
what can't be understood is a `Park`, which names the field.

The caller passes the subscription as Stripe has it *now*; the order in which events came plays no part (I12).
Status by status:

    trialing, active         live (`pause_collection` pauses invoices; the plan says whether the service too)
    past_due                 overdue
    unpaid, paused           stopped
    incomplete               pending
    canceled, incomplete_expired   ended

An overdue subscription's debt is as old as the oldest invoice that is open: from the day on which it was due,
where it was sent to be paid until then, else from its creation. There is no grace for a first invoice that
could not be charged: nobody has paid yet. Where Stripe names no open invoice, it counts from the start of the
period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.contract import Contract, Line, Park, Standing, Wishes
from controlplane.domain.safe_repr import safe_repr
from controlplane.domain.state import State
from controlplane.domain.stripe_json import (
    ANY,
    Unparseable,
    dig,
    id_or_none,
    read_id,
    read_optional_id,
    read_text,
)


class EventState(State):
    """Of an event in the inbox. A person may have it handled again, whatever became of it, and may ignore one
    that is parked; one whose cause is gone is applied."""

    RECEIVED = "received", "received", "applied", "ignored", "parked"
    APPLIED = "applied", "received", "parked"
    IGNORED = "ignored", "received", "parked"
    PARKED = "parked", "received"


STANDING_OF_STATUS: Mapping[str, Standing] = {
    "incomplete": Standing.PENDING,
    "trialing": Standing.LIVE,
    "active": Standing.LIVE,
    "past_due": Standing.OVERDUE,
    "unpaid": Standing.STOPPED,
    "paused": Standing.STOPPED,
    "canceled": Standing.ENDED,
    "incomplete_expired": Standing.ENDED,
}

ENDED = frozenset(status for status, standing in STANDING_OF_STATUS.items() if standing is Standing.ENDED)
"""The statuses that Stripe never leaves again: a customer who returns has a new subscription."""

_ENTITLEMENTS = frozenset({"entitlements.active_entitlement_summary.updated"})
_SUBSCRIPTION_LIFE = frozenset(
    f"customer.subscription.{what}"
    for what in ("created", "updated", "deleted", "trial_will_end", "paused", "resumed")
)
_CHECKOUT = frozenset(
    f"checkout.session.{what}" for what in ("completed", "async_payment_succeeded", "async_payment_failed")
)
_INVOICE = frozenset({"invoice.paid", "invoice.payment_failed"})
_CUSTOMER = frozenset({"customer.updated", "customer.deleted"})
DISPUTES = frozenset({"charge.dispute.created", "radar.early_fraud_warning.created"})
"""Of a payment: they name its charge, and not whose it is."""

EVENT_TYPES = _SUBSCRIPTION_LIFE | _CHECKOUT | _INVOICE | _ENTITLEMENTS | _CUSTOMER | DISPUTES
"""The events that are acted on; every other type is stored and ignored."""

THIN = "v2.core.event"
"""What a thin event says of itself: it names what it is about and holds nothing of it."""

_MAX_METADATA = 500  # characters of a metadata value, Stripe's own limit
_MAX_QUANTITY = 2**31 - 1
_LAST_SECOND = 253_402_300_799  # of the year 9999, where datetime ends


@dataclass(frozen=True, slots=True)
class SubscriptionRef:
    """What an event is about: a subscription, whose customer may be known too; a customer as a whole, which
    concerns all of its subscriptions; or a charge that is disputed, of which nothing else is known. `paid`:
    the event itself says that it was paid for by then, or that nothing is to pay."""

    subscription_id: str | None
    customer_id: str | None
    paid: bool = False
    charge_id: str | None = None


def foreign_account(event: Any, own: str | None) -> str | None:
    """Why an event is another account's and nothing of it can be fetched from ours; None where it is ours.

    Connect's events name the connected account in `account`. An organisation's, of versions since 2025-04-30
    and thin ones, name theirs in `context`, a path that ends with the account; there ours may stand as well,
    so `own` is its id. Where that is not known, whoever is named is another: an event of ours names none
    unless it comes through an organisation.
    """
    for field in ("account", "context"):
        named = dig(event, field)
        if named is None or (own is not None and isinstance(named, str) and named.split("/")[-1] == own):
            continue
        ours = own or "this endpoint's own account, which CONTROLPLANE_STRIPE_ACCOUNT may name"
        return f"{field}: expected none or {ours}, got {safe_repr(named)}"
    return None


def event_type(event: Any) -> str | None:
    """Of a thin event too, whose type is the old one behind a "v1."."""
    kind = dig(event, "type")
    if not isinstance(kind, str):
        return None
    return kind.removeprefix("v1.") if dig(event, "object") == THIN else kind


def subscription_of_event(event: Any) -> SubscriptionRef | Park | None:
    """Which subscription a Stripe event (API versions old and new, thin ones too) is about.

    None: the event is of no concern (another type, a one-off payment or invoice; a thin one of an invoice or
    a checkout, which does not say whose it is, and whose subscription has events of its own; a thin one of a
    dispute or a warning of fraud, which docs/stripe.md asks to be sent whole). Park: its type is one of
    EVENT_TYPES and yet it does not say what it is about.
    """
    kind = event_type(event)
    if kind is None or kind not in EVENT_TYPES:
        return None
    try:
        if dig(event, "object") != THIN:
            return _ref(kind, dig(event, "data", "object"))
        return _thin_ref(kind, dig(event, "related_object"))
    except Unparseable as error:
        where = "related_object" if dig(event, "object") == THIN else "data.object"
        return Park(f"{kind}: {error.under(where)}")


def _thin_ref(kind: str, target: Any) -> SubscriptionRef | None:
    if kind in _SUBSCRIPTION_LIFE:
        return SubscriptionRef(read_id(target, "id", "sub"), None)
    return SubscriptionRef(None, read_id(target, "id", ANY)) if kind in _CUSTOMER else None


def _ref(kind: str, target: Any) -> SubscriptionRef | None:
    if not isinstance(target, dict):
        raise Unparseable("", "an object", target)
    if kind in _CUSTOMER:
        return SubscriptionRef(None, read_id(target, "id", ANY))
    if kind in _ENTITLEMENTS:
        return SubscriptionRef(None, read_id(target, "customer", ANY))
    if kind in DISPUTES:
        return SubscriptionRef(None, None, charge_id=read_id(target, "charge", ANY))
    customer = id_or_none(target, "customer", ANY)
    if kind in _SUBSCRIPTION_LIFE:
        paid = target.get("status") in ("active", "trialing")
        return SubscriptionRef(read_id(target, "id", "sub"), customer, paid)
    subscription = read_optional_id(target, "subscription", "sub")
    if kind in _INVOICE:
        details = dig(target, "parent", "subscription_details")
        subscription = read_optional_id(details, "subscription", "sub") or subscription
    if subscription is None:
        return None
    paid = kind == "invoice.paid" or target.get("payment_status") in ("paid", "no_payment_required")
    return SubscriptionRef(subscription, customer, paid)


def contract_of(subscription: Any) -> Contract | Park:
    """`subscription`: Stripe's object as plain JSON, of API versions old and new. A Park for one whose id,
    customer or status can't be read; what else can't be is the contract's `problem`."""
    try:
        return _contract(subscription)
    except Unparseable as error:
        return Park(error.under("subscription"))


def _contract(subscription: Any) -> Contract:
    if not isinstance(subscription, dict):
        raise Unparseable("", "an object", subscription)
    if subscription.get("object", "subscription") != "subscription":
        raise Unparseable("object", "subscription", subscription["object"])
    subscription_id = read_id(subscription, "id", "sub")
    status = subscription.get("status")
    if not isinstance(status, str):
        raise Unparseable("status", "text", status)
    if status not in STANDING_OF_STATUS:
        raise Unparseable("status", "one that is known here", status)
    contract = Contract(
        id=subscription_id,
        customer=read_id(subscription, "customer", ANY),
        standing=STANDING_OF_STATUS[status],
        status=status,
        started_at=_started(subscription),
        collection_paused=isinstance(subscription.get("pause_collection"), dict),
        tenant=read_text(dig(subscription, "metadata", "tenant")),
        wishes=_wishes(subscription, read_text(dig(subscription, "metadata", "name"))),
        domains=_domains(subscription),
    )
    try:
        return replace(contract, **_terms(subscription, contract.standing))
    except Unparseable as error:
        return replace(contract, problem=error.under("subscription"))


def _terms(subscription: dict[str, Any], standing: Standing) -> dict[str, Any]:
    lines, first, where = _lines(subscription)
    period_end = _period(first, where, "end") or _period(subscription, "", "end")
    owed = _open_invoices(subscription) if standing is Standing.OVERDUE else []
    since = min((at for at, _ in owed), default=None)
    since = since or _period(first, where, "start") or _period(subscription, "", "start")
    return {
        "lines": lines,
        "overdue_since": since if standing is Standing.OVERDUE else None,
        "never_paid": any(never for _, never in owed),
        "period_end": period_end,
        "trial_ends_at": _instant(subscription, "trial_end")
        if subscription["status"] == "trialing"
        else None,
        "closes_at": _closes_at(subscription, period_end),
    }


def _started(subscription: dict[str, Any]) -> datetime:
    """The first second of 1970 where nothing sensible stands there: it only puts contracts in an order."""
    for key in ("start_date", "created"):
        try:
            found = _instant(subscription, key)
        except Unparseable:
            continue
        if found is not None:
            return found
    return datetime.fromtimestamp(0, UTC)


def _lines(subscription: dict[str, Any]) -> tuple[tuple[Line, ...], dict[str, Any], str]:
    """What is bought, and the first item with its place: all of a subscription have one period."""
    items = dig(subscription, "items", "data")
    if not isinstance(items, list) or not items:
        raise Unparseable("items.data", "a list of one item or more", items)
    if dig(subscription, "items", "has_more"):
        raise Unparseable("items.has_more", "all items in one list", True)
    lines = tuple(_line(item, f"items.data[{index}].") for index, item in enumerate(items))
    return lines, items[0], "items.data[0]."


def _line(item: Any, where: str) -> Line:
    """The price: an object, an id, or the `plan` of older API versions."""
    name = "plan" if dig(item, "price") is None else "price"
    price = dig(item, name)
    price_id = dig(price, "id") if isinstance(price, dict) else price
    lookup_key = dig(price, "lookup_key")
    if not isinstance(price_id, str):
        raise Unparseable(f"{where}{name}", "a price or its id", price_id)
    if lookup_key is not None and not isinstance(lookup_key, str):
        raise Unparseable(f"{where}{name}.lookup_key", "text or null", lookup_key)
    product = dig(price, "product")
    product_id = dig(product, "id") if isinstance(product, dict) else product
    quantity, problem = 0, None
    try:
        quantity = _quantity(item, where)
    except Unparseable as error:
        problem = error.under("subscription")
    known = product_id if isinstance(product_id, str) else None
    return Line(price_id, lookup_key, known, quantity, f"subscription.{where}", problem)


def _quantity(item: dict[str, Any], where: str) -> int:
    quantity = item.get("quantity")
    metered = "metered" in (dig(item, "price", "recurring", "usage_type"), dig(item, "plan", "usage_type"))
    if quantity is None and metered:
        return 1  # what is billed by use has no quantity
    if isinstance(quantity, bool) or not isinstance(quantity, int) or not 0 <= quantity <= _MAX_QUANTITY:
        raise Unparseable(f"{where}quantity", f"a whole number, 0 to {_MAX_QUANTITY}", quantity)
    return quantity


def _period(holder: dict[str, Any], where: str, side: str) -> datetime | None:
    """On the item since API version 2025-03-31, on the subscription before. `side`: "start" or "end"."""
    return _instant(holder, f"current_period_{side}", where)


def _open_invoices(subscription: dict[str, Any]) -> list[tuple[datetime, bool]]:
    """Of each that says when: since when it is owed; and whether it is the first, and was to be charged."""
    found = subscription.get("open_invoices", [])
    if not isinstance(found, list) or not all(isinstance(invoice, dict) for invoice in found):
        raise Unparseable("open_invoices", "a list of invoices", found)
    owed = []
    for index, invoice in enumerate(found):
        where = f"open_invoices[{index}]."
        since = _instant(invoice, "due_date", where) or _instant(invoice, "created", where)
        charged = invoice.get("collection_method") != "send_invoice"
        if since is not None:
            owed.append((since, charged and invoice.get("billing_reason") == "subscription_create"))
    return owed


def _closes_at(subscription: dict[str, Any], period_end: datetime | None) -> datetime | None:
    """The moment for which it was cancelled; None where it was not, or has ended already."""
    if subscription["status"] == "canceled":
        return None
    at = _instant(subscription, "cancel_at")
    return at or (period_end if subscription.get("cancel_at_period_end") is True else None)


def _instant(holder: dict[str, Any], key: str, where: str = "") -> datetime | None:
    found = holder.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= _LAST_SECOND:
        raise Unparseable(f"{where}{key}", "seconds since 1970", found)
    return datetime.fromtimestamp(found, UTC)


def _domains(subscription: dict[str, Any]) -> dict[str, str]:
    found = {}
    for key in ("custom_domain", "custom_domains"):
        wished = dig(subscription, "metadata", key)
        if isinstance(wished, str):
            found[f"metadata.{key}"] = read_text(wished, limit=_MAX_METADATA) or ""
    return found


def wishes_of_checkout(session: Any) -> Wishes:
    """Of the page that it came from, or what the customer typed there."""
    fields = dig(session, "custom_fields")
    typed = (
        read_text(dig(field, "text", "value"))
        for field in (fields if isinstance(fields, list) else ())
        if dig(field, "key") == "slug"
    )
    found = _wishes(session, read_text(dig(session, "metadata", "name")))
    return found.over(Wishes(slug=next(filter(None, typed), None)))


def wishes_of_customer(customer: Any) -> Wishes:
    return _wishes(customer, read_text(dig(customer, "name")))


def _wishes(holder: Any, name: str | None) -> Wishes:
    return Wishes(read_text(dig(holder, "metadata", "slug")), name)
