"""Stripe through its official SDK: the current state of what customers pay for.

Read only: the control plane never changes anything at Stripe. A webhook says that something changed,
this says what it is now (I12). Objects leave as the JSON that Stripe sent, because an SDK object is
neither a dict nor stable over SDK versions.

The engine's backoff is the retry loop, so the SDK's own retries are off: three tries inside one
step would hide an outage from it and triple the load of a rate limit. A listing's next page alone is tried
again here, since the engine could only begin the whole of it anew. After Stripe's pages "Errors", "Rate
limits" and "Pagination".
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import stripe

from controlplane.domain.errors import Invalid, NeedsHuman, NotFound, Retryable
from controlplane.workers.providers import retry_after

CONNECT_SECONDS = 5.0
PAGE_SIZE = 100
PAGE_TRIES = 4
LONGEST_PAUSE = 30.0
_ID = re.compile(r"[A-Za-z0-9_]{1,255}")
_KEY = re.compile(r"[A-Za-z0-9_]{8,255}")


class StripeBilling:
    """Implements `ports.Billing`.

    Every method raises Retryable (429 with `after` from Retry-After, 5xx, network, timeout),
    NotFound (404), NeedsHuman("stripe-credentials") (401, 403) or NeedsHuman("stripe-refusal") (any
    other 4xx: the request itself is at fault, time will not repair it). No message holds the key.
    """

    def __init__(
        self,
        api_key: str,
        api_base: str = "",
        *,
        timeout: float = 15.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`api_base`: empty for Stripe itself, else as http://127.0.0.1:12111. `timeout`: seconds that
        Stripe may stay silent. Raises Invalid."""
        if not _KEY.fullmatch(api_key):
            # An HTTP library would quote a malformed key in its error.
            raise Invalid("api_key", "a Stripe secret or restricted key: letters, digits and underscores")
        self._sleep = sleep
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base} if api_base else {},
            http_client=stripe.RequestsClient(timeout=(min(CONNECT_SECONDS, timeout), timeout)),
            max_network_retries=0,
        )

    def subscription(self, subscription_id: str) -> dict[str, Any]:
        """With its items and their prices."""
        retrieve = self._client.v1.subscriptions.retrieve
        return self.whole(self._get("subscription", subscription_id, retrieve))

    def checkout_of(self, subscription_id: str) -> dict[str, Any] | None:
        """The checkout session that it was bought in; None where it was bought without one."""
        _check_id("subscription_id", subscription_id)
        query = {"subscription": subscription_id, "limit": 1}
        found = self._one_page("checkout sessions", query, self._client.v1.checkout.sessions.list)
        return next(iter(found["data"]), None)

    def customer(self, customer_id: str) -> dict[str, Any]:
        """A deleted customer is `{"id", "object", "deleted": true}`."""
        return self._get("customer", customer_id, self._client.v1.customers.retrieve)

    def charge(self, charge_id: str) -> dict[str, Any]:
        return self._get("charge", charge_id, self._client.v1.charges.retrieve)

    def subscriptions_of(self, customer_id: str) -> list[dict[str, Any]]:
        """All of them, ended ones too, newest first."""
        _check_id("customer_id", customer_id)
        query = {"customer": customer_id, "status": "all"}
        return [
            self.whole(found)
            for found in self._pages("subscriptions", query, self._client.v1.subscriptions.list)
        ]

    def subscriptions(self, status: str | None = "all") -> Iterator[dict[str, Any]]:
        """The account's subscriptions with this status, newest first, a page at a time, as Stripe lists
        them: see `whole`. None: all that were not canceled."""
        listing, query = self._client.v1.subscriptions.list, {} if status is None else {"status": status}
        return self._pages("subscriptions", query, listing, tries=PAGE_TRIES)

    def prices(self) -> Iterator[dict[str, Any]]:
        """The account's recurring prices, archived ones too; not those that were made within a subscription
        or checkout, which Stripe lists nowhere. No worker asks for them, so `refused` does not either."""
        for active in (True, False):
            query = {"active": active, "type": "recurring"}
            yield from self._pages("prices", query, self._client.v1.prices.list, tries=PAGE_TRIES)

    def whole(self, found: dict[str, Any], *, tries: int = 1) -> dict[str, Any]:
        """The same with all of its items, of which Stripe shows ten, and with its open invoices, where it is
        past due: Stripe names the latest one alone, which says nothing of an older one that is open. `tries`:
        of each page."""
        v1, whole = self._client.v1, dict(found)
        if found["items"]["has_more"]:
            query = {"subscription": found["id"]}
            pages = self._pages("items", query, v1.subscription_items.list, tries=tries)
            whole["items"] = {**found["items"], "data": list(pages), "has_more": False}
        if found.get("status") == "past_due":
            query = {"subscription": found["id"], "status": "open"}
            whole["open_invoices"] = list(self._pages("invoices", query, v1.invoices.list, tries=tries))
        return whole

    def refused(self) -> list[str]:
        """Which of the permissions that a worker needs our key has not, by Stripe's names. Raises
        Retryable."""
        v1 = self._client.v1
        needed: dict[str, Callable[[Any], Any]] = {
            "Subscriptions": v1.subscriptions.list,
            "Invoices": v1.invoices.list,
            "Customers": v1.customers.list,
            "Checkout Sessions": v1.checkout.sessions.list,
        }
        found = []
        for name, listing in needed.items():
            try:
                self._one_page(name, {"limit": 1}, listing)
            except NeedsHuman:
                found.append(name)
        return found

    def _get(self, noun: str, key: str, fetch: Callable[[str], Any]) -> dict[str, Any]:
        _check_id(noun.replace(" ", "_") + "_id", key)
        with _translated(f"{noun} {key}"):
            return _plain(fetch(key))

    def _pages(
        self, noun: str, query: Mapping[str, Any], fetch: Callable[[Any], Any], *, tries: int = 1
    ) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = self._page(noun, {**query, **after, "limit": PAGE_SIZE}, fetch, tries)
            yield from page["data"]
            if not page["has_more"] or not page["data"]:
                return
            after = {"starting_after": page["data"][-1]["id"]}

    def _page(
        self, noun: str, query: Mapping[str, Any], fetch: Callable[[Any], Any], tries: int
    ) -> dict[str, Any]:
        """Tried again after as long as Stripe says."""
        for tried in range(1, tries):
            try:
                return self._one_page(noun, query, fetch)
            except Retryable as error:
                self._sleep(min(error.after or float(tried), LONGEST_PAUSE))
        return self._one_page(noun, query, fetch)

    def _one_page(self, noun: str, query: Mapping[str, Any], fetch: Callable[[Any], Any]) -> dict[str, Any]:
        with _translated(noun):
            return _plain(fetch(query))


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
