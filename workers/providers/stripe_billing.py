"""Stripe through its official SDK: the current state of what customers pay for.

Read only: the control plane never changes anything at Stripe. A webhook says that something changed,
this says what it is now (I12). Objects leave as the JSON that Stripe sent, because an SDK object is
neither a dict nor stable over SDK versions.

The engine's backoff is the one retry loop, so the SDK's own retries are off: three tries inside one
step would hide an outage from it and triple the load of a rate limit. After Stripe's pages "Errors",
"Rate limits" and "Pagination".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import stripe

from controlplane.domain.errors import Invalid, NeedsHuman, NotFound, Retryable
from controlplane.workers.providers import retry_after

CONNECT_SECONDS = 5.0
PAGE_SIZE = 100
MAX_OBJECTS = 100_000
MAX_EVENT_TYPES = 20
_ID = re.compile(r"[A-Za-z0-9_]{1,255}")
_KEY = re.compile(r"[A-Za-z0-9_]{8,255}")


class StripeBilling:
    """Implements `ports.Billing`.

    Every method raises Retryable (429 with `after` from Retry-After, 5xx, network, timeout),
    NotFound (404), NeedsHuman("stripe-credentials") (401, 403) or NeedsHuman("stripe-refusal") (any
    other 4xx: the request itself is at fault, time will not repair it). No message holds the key.
    """

    def __init__(self, api_key: str, api_base: str = "", *, timeout: float = 15.0) -> None:
        """`api_base`: empty for Stripe itself, else as http://127.0.0.1:12111. `timeout`: seconds that
        Stripe may stay silent. Raises Invalid."""
        if not _KEY.fullmatch(api_key):
            # An HTTP library would quote a malformed key in its error.
            raise Invalid("api_key", "a Stripe secret or restricted key: letters, digits and underscores")
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base} if api_base else {},
            http_client=stripe.RequestsClient(timeout=(min(CONNECT_SECONDS, timeout), timeout)),
            max_network_retries=0,
        )

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        """With its items and their prices."""
        retrieve = self._client.v1.subscriptions.retrieve
        return self._with_debt(self._get("subscription", subscription_id, retrieve))

    def checkout_session(self, session_id: str) -> dict[str, Any]:
        return self._get("checkout session", session_id, self._client.v1.checkout.sessions.retrieve)

    def customer(self, customer_id: str) -> dict[str, Any]:
        """A deleted customer is `{"id", "object", "deleted": true}`."""
        return self._get("customer", customer_id, self._client.v1.customers.retrieve)

    def subscriptions_of(self, customer_id: str) -> list[dict[str, Any]]:
        """All of them, ended ones too, newest first."""
        _check_id("customer_id", customer_id)
        return list(self._subscriptions({"customer": customer_id, "status": "all"}))

    def subscriptions(self, status: str = "all") -> Iterator[dict[str, Any]]:
        """The account's subscriptions with this status, newest first, a page at a time.

        At most 100,000, then NeedsHuman("billing-listing-limit")."""
        return self._subscriptions({"status": status})

    def events_since(self, created_after: datetime, types: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The events of these types from that second on (inclusive), newest first, a page at a time.

        Stripe keeps 30 days. `types`: 1 to 20 exact types. At most 100,000, then
        NeedsHuman("billing-listing-limit")."""
        if not 1 <= len(types) <= MAX_EVENT_TYPES:
            raise Invalid("types", f"1 to {MAX_EVENT_TYPES} event types", got=len(types))
        if created_after.tzinfo is None:
            raise Invalid("created_after", "a time with its zone", got=created_after.isoformat())
        query: dict[str, Any] = {"created": {"gte": int(created_after.timestamp())}, "types": list(types)}
        return self._pages("events", query, self._client.v1.events.list)

    def _subscriptions(self, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return map(self._with_debt, self._pages("subscriptions", query, self._client.v1.subscriptions.list))

    def _with_debt(self, found: dict[str, Any]) -> dict[str, Any]:
        """Stripe names the latest invoice alone, which says nothing of an older one that is open."""
        if found.get("status") == "past_due":
            query = {"subscription": found["id"], "status": "open"}
            found["open_invoices"] = list(self._pages("invoices", query, self._client.v1.invoices.list))
        return found

    def _get(self, noun: str, key: str, fetch: Callable[[str], Any]) -> dict[str, Any]:
        _check_id(noun.replace(" ", "_") + "_id", key)
        with _translated(f"{noun} {key}"):
            return _plain(fetch(key))

    def _pages(
        self, noun: str, query: Mapping[str, Any], fetch: Callable[[Any], Any]
    ) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        yielded = 0
        while True:
            with _translated(noun):
                page = _plain(fetch({**query, **after, "limit": PAGE_SIZE}))
            for item in page["data"]:
                if yielded >= MAX_OBJECTS:
                    raise NeedsHuman(
                        f"Stripe: more than {MAX_OBJECTS} {noun} in one listing",
                        runbook="billing-listing-limit",
                    )
                yielded += 1
                yield item
            if not page["has_more"] or not page["data"]:
                return
            after = {"starting_after": page["data"][-1]["id"]}


def _plain(found: Any) -> dict[str, Any]:
    """The JSON that Stripe sent, as dicts and lists.

    The one place where SDK objects are turned into data: `StripeObject` has no `.get`, `dict()` of it
    fails, and its `to_dict()` re-encodes numbers, so the answer's own body is what is kept. A proxy's
    page with status 200 gets past the SDK as a list or a string: Retryable."""
    response = getattr(found, "last_response", None)
    body = json.loads(response.body) if response is not None else None
    if not isinstance(body, dict) or "object" not in body:
        raise Retryable("Stripe's answer is none of Stripe's objects")
    return body


def _check_id(field: str, value: str) -> None:
    """An empty id would turn a lookup into a listing."""
    if not _ID.fullmatch(value):
        raise Invalid(field, "a Stripe id", got=value[:60])


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except stripe.StripeError as error:
        raise _meaning(what, error) from error


def _meaning(what: str, error: stripe.StripeError) -> Exception:
    """Who acts next. Messages are our own: Stripe's may quote part of the key."""
    status = error.http_status
    if isinstance(error, stripe.APIConnectionError) or status is None:
        return Retryable(f"Stripe can't be reached ({what})")
    trace = f"{what}: HTTP {status} {error.code or ''}".rstrip() + f", request {error.request_id}"
    if status < 400 or status in (409, 429) or status >= 500 or isinstance(error, stripe.RateLimitError):
        return Retryable(f"Stripe: {trace}", after=retry_after.seconds(error.headers))
    if status == 404:
        return NotFound(f"Stripe knows no {what}")
    if status in (401, 403):
        return NeedsHuman(f"Stripe refuses our key: {trace}", runbook="stripe-credentials")
    return NeedsHuman(f"Stripe refuses the request: {trace}", runbook="stripe-refusal")
