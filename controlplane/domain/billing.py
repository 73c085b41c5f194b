"""From what the customer pays for to what it should have.

Both functions are pure and never raise, whatever JSON they are given, because they stand behind an
event that has been acknowledged: what can't be understood is a decision too (`Park`, which names the
field), not a crash that the queue repeats. And nothing is guessed: a price that the catalogue does
not know, two plans in one subscription or a status that Stripe has yet to invent stop for a person,
while the tenant stays as it is.

The caller passes the subscription as Stripe has it *now*; the order in which events came plays no
part (I12). Status by status:

    trialing, active         active
    past_due                 active until the plan's `dunning_grace_days` are over, then suspended
    unpaid, paused           suspended (`pause_collection` pauses invoices, not the service)
    canceled                 closed
    incomplete               Wait: the first payment is still open, nothing is provisioned or taken
    incomplete_expired       Turn to closed: the first payment never came

The grace of a payment that is past due counts from the oldest invoice that is open: from the day on which it
was due, where it was sent to be paid until then, else from its creation. A newer invoice, paid or not, ends
no older debt. There is no grace for a first invoice that could not be charged: nobody has paid yet. Where
Stripe names no open invoice, it counts from the start of the period. So the end of the grace is the same
whenever and however often the object is fetched.

Who does not pay is suspended and who has ended is closed whatever the catalogue knows: an item that nobody
has listed must not keep a tenant served. Beside one plan an unknown item is told of and holds nothing up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from controlplane.domain.catalogue import Catalogue, Plan
from controlplane.domain.errors import Invalid
from controlplane.domain.hostname import RefusedDomain, validate_custom_domain
from controlplane.domain.safe_repr import safe_repr
from controlplane.domain.state import State
from controlplane.domain.stripe_json import (
    Unparseable,
    dig,
    id_or_none,
    read_id,
    read_optional_id,
    read_text,
)
from controlplane.domain.tenant import Lifecycle, TenantSpec


class EventState(State):
    """Of an event in the inbox. A person may have it handled again, whatever became of it, and may ignore one
    that is parked."""

    RECEIVED = "received", "received", "applied", "ignored", "parked"
    APPLIED = "applied", "received"
    IGNORED = "ignored", "received", "parked"
    PARKED = "parked", "received"


class SubscriptionOutcome(StrEnum):
    """What became of the last observation at a subscription; any may follow any."""

    NEW = "new"
    APPLIED = "applied"
    WAITING = "waiting"
    IGNORED = "ignored"
    PARKED = "parked"


LIFECYCLE_OF_STATUS: Mapping[str, Lifecycle] = {
    "trialing": Lifecycle.ACTIVE,
    "active": Lifecycle.ACTIVE,
    "past_due": Lifecycle.ACTIVE,
    "unpaid": Lifecycle.SUSPENDED,
    "paused": Lifecycle.SUSPENDED,
    "canceled": Lifecycle.CLOSED,
}

ENDED = frozenset({"canceled", "incomplete_expired"})
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
EVENT_TYPES = _SUBSCRIPTION_LIFE | _CHECKOUT | _INVOICE | _ENTITLEMENTS | {"customer.deleted"}
"""The events that are acted on; every other type is stored and ignored."""

_MAX_METADATA = 500  # characters of a metadata value, Stripe's own limit
_MAX_QUANTITY = 2**31 - 1
_LAST_SECOND = 253_402_300_799  # of the year 9999, where datetime ends
_LAST_DAY = datetime.fromtimestamp(_LAST_SECOND, UTC)


@dataclass(frozen=True, slots=True)
class Apply:
    """The tenant of `subscription_id` should be as `spec`.

    Where there is no such tenant it is founded, unless `spec` is closed: what has ended founds
    nothing. `requested_slug` is the customer's free text, for `slug_from_request`. `warnings` are for
    support: requests that could not be granted and that must not hold up a paying customer. `refused`: the
    custom domains among them.
    """

    subscription_id: str
    customer_id: str
    livemode: bool
    spec: TenantSpec
    requested_slug: str | None
    display_name: str
    warnings: tuple[str, ...] = ()
    refused: tuple[RefusedDomain, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """The subscription has ended, or is not paid for, and names no plan that could be applied: bring its
    tenant to `lifecycle` where there is one (it keeps its other requests, with `subscription_status` as its
    status). Where there is none, nothing is provisioned. Neither depends on the catalogue, so a plan that has
    been taken off it can't keep anybody alive who does not pay."""

    subscription_id: str
    customer_id: str | None
    livemode: bool
    lifecycle: Lifecycle
    subscription_status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not paid yet: nothing to provision, nothing to take away. Another event will follow."""

    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """A person must look; the tenant stays as it is. `reason` names the field, holds no control
    characters and is short."""

    reason: str


Decision = Apply | Turn | Wait | Park


@dataclass(frozen=True, slots=True)
class SubscriptionRef:
    """What an event is about. At least one of the first and the last is set: an event about a
    customer as a whole concerns all of its subscriptions."""

    subscription_id: str | None
    session_id: str | None
    customer_id: str | None


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


def subscription_of_event(event: Any) -> SubscriptionRef | Park | None:
    """Which subscription a Stripe event (API versions old and new) is about.

    None: the event is of no concern (another type, a one-off payment or invoice). Park: its type is
    one of EVENT_TYPES and yet it does not say what it is about.
    """
    kind = dig(event, "type")
    if not isinstance(kind, str) or kind not in EVENT_TYPES:
        return None
    try:
        return _ref(kind, dig(event, "data", "object"))
    except Unparseable as error:
        return Park(f"{kind}: {error.under('data.object')}")


def _ref(kind: str, target: Any) -> SubscriptionRef | None:
    if not isinstance(target, dict):
        raise Unparseable("", "an object", target)
    if kind == "customer.deleted":
        return SubscriptionRef(None, None, read_id(target, "id", "cus"))
    if kind in _ENTITLEMENTS:
        return SubscriptionRef(None, None, read_id(target, "customer", "cus"))
    customer = id_or_none(target, "customer", "cus")
    if kind in _SUBSCRIPTION_LIFE:
        return SubscriptionRef(read_id(target, "id", "sub"), None, customer)
    subscription = read_optional_id(target, "subscription", "sub")
    if kind in _INVOICE:
        details = dig(target, "parent", "subscription_details")
        subscription = read_optional_id(details, "subscription", "sub") or subscription
    if subscription is None:
        return None
    session = read_id(target, "id", "cs") if kind in _CHECKOUT else None
    return SubscriptionRef(subscription, session, customer)


def spec_from_subscription(
    subscription: Any,
    catalogue: Catalogue,
    *,
    platform_zone: str,
    now: datetime,
    session: Any = None,
    customer: Any = None,
) -> Decision:
    """What the tenant of this subscription should be; the module's docstring has the table.

    `subscription`, and where the caller has them the checkout `session` it came from and its
    `customer`, are Stripe's objects as plain JSON, of API versions old and new. The two latter serve
    the founding of a tenant alone (request for a slug, display name): what it should have hangs on the
    subscription, so it is the same whichever event asked. `platform_zone` is normalised. `now` decides
    one thing: whether the grace of a payment that is past due is over.
    """
    try:
        return _decide(subscription, catalogue, platform_zone, now, session, customer)
    except Unparseable as error:
        return Park(error.under("subscription"))


def _decide(  # noqa: PLR0917 — the caller's keywords, handed on
    subscription: Any, catalogue: Catalogue, platform_zone: str, now: datetime, session: Any, customer: Any
) -> Decision:
    if not isinstance(subscription, dict):
        raise Unparseable("", "an object", subscription)
    if subscription.get("object", "subscription") != "subscription":
        raise Unparseable("object", "subscription", subscription["object"])
    subscription_id = read_id(subscription, "id", "sub")
    customer_id = id_or_none(subscription, "customer", "cus")
    livemode, status = subscription.get("livemode"), subscription.get("status")
    if not isinstance(livemode, bool):
        raise Unparseable("livemode", "true or false", livemode)
    if not isinstance(status, str):
        raise Unparseable("status", "text", status)
    if status == "incomplete":
        return Wait("the first payment is still open (incomplete)")
    if status == "incomplete_expired":
        reason = "the first payment never came"
        return Turn(subscription_id, customer_id, livemode, Lifecycle.CLOSED, status, reason)
    lifecycle = LIFECYCLE_OF_STATUS.get(status)
    if lifecycle is None:
        raise Unparseable("status", "one that is known here", status)
    try:
        plan, item, where, unknown = _plan_item(subscription, catalogue)
        domains, warnings, refused = _custom_domains(subscription, plan, platform_zone)
        requested = _requested_slug(subscription, session, customer)
        period_end = _period(item, where, "end") or _period(subscription, "", "end")
        grace_end = _grace_end(subscription, item, where, plan) if status == "past_due" else None
        if grace_end is not None and grace_end <= now:
            lifecycle = Lifecycle.SUSPENDED
        return Apply(
            subscription_id=subscription_id,
            customer_id=read_id(subscription, "customer", "cus"),
            livemode=livemode,
            spec=TenantSpec(
                lifecycle=lifecycle,
                plan=plan.name,
                subscription_status=status,
                quantity=_quantity(item, where),
                custom_domains=domains,
                current_period_end=period_end,
                trial_ends_at=_instant(subscription, "trial_end") if status == "trialing" else None,
                grace_ends_at=grace_end,
                closes_at=_closes_at(subscription, period_end),
            ),
            requested_slug=requested,
            display_name=_display_name(subscription, session, customer) or requested or subscription_id,
            warnings=(*unknown, *warnings),
            refused=refused,
        )
    except Unparseable as error:
        if lifecycle is Lifecycle.ACTIVE:
            raise
        return Turn(subscription_id, customer_id, livemode, lifecycle, status, error.under("subscription"))


def _plan_item(
    subscription: dict[str, Any], catalogue: Catalogue
) -> tuple[Plan, dict[str, Any], str, list[str]]:
    """The one item that is a plan, its place, and a warning for each that the catalogue does not know."""
    items = dig(subscription, "items", "data")
    if not isinstance(items, list) or not items:
        raise Unparseable("items.data", "a list of one item or more", items)
    if dig(subscription, "items", "has_more"):
        raise Unparseable("items.has_more", "all items in one list", True)
    found: tuple[Plan, dict[str, Any], str] | None = None
    unknown: list[Unparseable] = []
    for index, item in enumerate(items):
        where = f"items.data[{index}]."
        price_id, lookup_key = _price(item, where)
        plan = catalogue.plan_for_price(price_id, lookup_key)
        if plan is None and catalogue.addon_for_price(price_id, lookup_key) is None:
            key = f" (lookup key {safe_repr(lookup_key)})" if lookup_key else ""
            unknown.append(Unparseable(f"{where}price", f"a price of the catalogue{key}", price_id))
        if plan is not None and found is not None:
            raise Unparseable(f"{where}price", f"no second plan beside {found[0].name}", plan.name)
        if plan is not None:
            found = plan, item, where
    if found is None:
        raise unknown[0] if unknown else Unparseable("items.data", "an item that is a plan", "add-ons alone")
    return *found, [str(error) for error in unknown]


def _price(item: Any, where: str) -> tuple[str, str | None]:
    """The price's id and lookup key: an object, an id, or the `plan` of older API versions."""
    name = "plan" if dig(item, "price") is None else "price"
    price = dig(item, name)
    price_id = dig(price, "id") if isinstance(price, dict) else price
    lookup_key = dig(price, "lookup_key")
    if not isinstance(price_id, str):
        raise Unparseable(f"{where}{name}", "a price or its id", price_id)
    if lookup_key is not None and not isinstance(lookup_key, str):
        raise Unparseable(f"{where}{name}.lookup_key", "text or null", lookup_key)
    return price_id, lookup_key


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


def _grace_end(subscription: dict[str, Any], item: dict[str, Any], where: str, plan: Plan) -> datetime | None:
    """None where the object does not say since when: nothing is guessed, and the customer is served."""
    owed = _open_invoices(subscription)
    since = min((at for at, _ in owed), default=None)
    since = since or _period(item, where, "start") or _period(subscription, "", "start")
    never_paid = any(first for _, first in owed)
    grace = timedelta(0) if never_paid else timedelta(days=plan.dunning_grace_days)
    return None if since is None else min(since, _LAST_DAY - grace) + grace


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


def _custom_domains(
    subscription: dict[str, Any], plan: Plan, platform_zone: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[RefusedDomain, ...]]:
    """The good ones among the requests, as many as the plan allows; a warning and a refusal for every
    other."""
    good: dict[str, None] = {}
    warnings: list[str] = []
    refused: list[RefusedDomain] = []
    for key in ("custom_domain", "custom_domains"):
        requested = read_text(dig(subscription, "metadata", key), limit=_MAX_METADATA) or ""
        for raw in filter(None, map(str.strip, requested.split(","))):
            try:
                good[validate_custom_domain(raw, platform_zone)] = None
            except Invalid as error:
                warnings.append(f"metadata.{key}: {error}")
                refused.append(RefusedDomain(raw[:80], f"can't be used: expected {error.expected}"))
    domains = tuple(good)
    if domains[plan.custom_domains :]:
        left_out = ", ".join(domains[plan.custom_domains :])
        warnings.append(
            f"custom_domains: plan {plan.name} allows {plan.custom_domains}, left out: {left_out}"
        )
    beyond = f"is one too many: plan {plan.name} allows {plan.custom_domains}"
    refused += [RefusedDomain(host, beyond) for host in domains[plan.custom_domains :]]
    return domains[: plan.custom_domains], tuple(warnings), tuple(dict.fromkeys(refused))


def _requested_slug(subscription: dict[str, Any], session: Any, customer: Any) -> str | None:
    fields = dig(session, "custom_fields")
    return _first_text(
        dig(subscription, "metadata", "slug"),
        dig(session, "metadata", "slug"),
        *(
            dig(field, "text", "value")
            for field in (fields if isinstance(fields, list) else ())
            if dig(field, "key") == "slug"
        ),
        dig(subscription, "customer", "metadata", "slug"),
        dig(customer, "metadata", "slug"),
    )


def _display_name(subscription: dict[str, Any], session: Any, customer: Any) -> str | None:
    return _first_text(
        dig(subscription, "metadata", "name"),
        dig(session, "metadata", "name"),
        dig(subscription, "customer", "name"),
        dig(customer, "name"),
        dig(session, "customer_details", "name"),
    )


def _first_text(*candidates: Any) -> str | None:
    return next(filter(None, map(read_text, candidates)), None)
