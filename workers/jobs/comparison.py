"""The comparison with Stripe: a webhook that never came is found here.

Stripe retries for three days and then forgets; an endpoint that was misconfigured for longer, or a
secret that was rolled badly, loses events for good. So every subscription is listed from time to time
and held against the registry. The same pure decision as for an event says what its customer's tenants should
be; only where the two differ is anything fetched or written, by the same path as for an event.

A customer whose objects can't be read holds up no other: it is named in the result, which is kept and shown.
And where news was found here of which no event came until the next comparison, somebody is told that webhooks
are missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from controlplane.domain.contract import Contract, Park
from controlplane.domain.errors import ControlPlaneError, LeaseLost
from controlplane.domain.stripe_json import ANY, id_or_none
from controlplane.services import billing
from controlplane.store import contract, event, hostname, report
from controlplane.store.contract import Heard
from controlplane.store.report import About
from controlplane.workers.engine.context import Context
from controlplane.workers.jobs.intake import apply_customer, created, park, read

log = logging.getLogger(__name__)

BATCH = 100
REASON = "comparison with Stripe"
NAMED = 20
"""Customers that a result names of each sort."""


class Pace:
    """At most `burst` calls at once, and `per_second` in the long run: Stripe takes 100 a second of a live
    account and 25 of a test one, of all who ask, and a comparison must not take them from who pays just
    now."""

    def __init__(
        self,
        *,
        per_second: float = 20.0,
        burst: int = 100,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._per_second, self._burst, self._clock, self._sleep = per_second, burst, clock, sleep
        self._left, self._at = float(burst), clock()

    def wait(self, calls: int) -> None:
        """Until so many may be made."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._per_second, self._burst) - calls
        self._at = now
        if self._left < 0:
            self._sleep(-self._left / self._per_second)


CALLS_OF_A_CUSTOMER = 2
"""Its subscriptions, its name."""


@dataclass(slots=True)
class Compared:
    """`failed`: why, by customer or, of one that can't be read, by subscription. `news`: customers of whom
    Stripe had something that no event had told of."""

    subscriptions: int = 0
    out_of_step: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        first = [{"customer": name, "reason": why} for name, why in list(self.failed.items())[:NAMED]]
        return {
            "subscriptions": self.subscriptions,
            "out_of_step": self.out_of_step,
            "failed": {"count": len(self.failed), "first": first},
            "news": self.news[:NAMED],
        }


@dataclass(frozen=True, slots=True)
class Listed:
    """A subscription of the listing. `customer`: None where that can't be read, and `unread` says why.
    `in_step`: the registry holds what it says; `news`: it says something that the registry had not read.
    `failed`: why it could not be held against it."""

    item: Mapping[str, Any]
    customer: str | None
    unread: Park | None = None
    in_step: bool = True
    news: bool = False
    failed: str | None = None

    @property
    def id(self) -> str:
        return str(self.item["id"])


def compare(ctx: Context, pace: Pace | None = None) -> Compared:
    """Hold every subscription against the registry and repair what differs. Raises Retryable and
    NeedsHuman where Stripe does not list them."""
    found, pace = Compared(), pace or Pace()
    for batch in listed(ctx, pace):
        found.subscriptions += len(batch)
        found.out_of_step += sum(not each.in_step for each in batch)
        for each in batch:
            if each.failed is not None:
                found.failed[each.customer or each.id] = each.failed
            elif each.unread is not None and not each.in_step:
                park(ctx, [Heard(each.id, created(each.item))], each.unread)
        wrong = {each.customer: None for each in batch if not each.in_step and each.failed is None}
        for customer_id in filter(None, wrong):
            log.warning("the contracts of %s are not as Stripe has them", customer_id)
            pace.wait(CALLS_OF_A_CUSTOMER)
            _apply(ctx, customer_id, found)
        news = {each.customer: None for each in batch if each.news and each.customer is not None}
        found.news += [name for name in news if name is not None and name not in found.failed]
    _keep(ctx, found)
    return found


def _apply(ctx: Context, customer_id: str, found: Compared) -> None:
    try:
        apply_customer(ctx, customer_id, reason=REASON)
    except LeaseLost:
        raise
    except ControlPlaneError as error:
        log.warning("the contracts of %s could not be applied: %s", customer_id, error)
        found.failed[customer_id] = str(error)


def _keep(ctx: Context, found: Compared) -> None:
    """The result, and a word to somebody where no event has come of what the last one found."""
    with ctx.registry.connection() as conn, conn.transaction():
        before = report.read(conn, About.COMPARISON)
        if before is None:
            found.news.clear()  # of an account that had customers before: nobody was to tell of them
        else:
            unheard = event.unheard(conn, before.content["news"], since=before.observed_at)
            billing.tell_of_missing_events(conn, unheard, day=datetime.now(UTC).date())
        report.write(conn, About.COMPARISON, found.to_json())


def listed(ctx: Context, pace: Pace | None = None) -> Iterator[list[Listed]]:
    """All subscriptions, a batch at a time, each held against the registry."""
    items, pace = iter(ctx.providers.billing.subscriptions()), pace or Pace()
    while batch := list(islice(items, BATCH)):
        pace.wait(1)
        yield _hold_against(ctx, batch, pace)


def _hold_against(ctx: Context, batch: Sequence[dict[str, Any]], pace: Pace) -> list[Listed]:
    by_customer: dict[str | None, dict[str, Contract | Park]] = {}
    failed: dict[str, str] = {}
    for item in batch:
        if item.get("status") == "past_due":
            pace.wait(1)
        try:
            whole = ctx.providers.billing.whole(item)
        except LeaseLost:
            raise
        except ControlPlaneError as error:
            failed[str(item["id"])] = str(error)
            continue
        by_customer.setdefault(id_or_none(item, "customer", ANY), {})[str(item["id"])] = read(ctx, whole)
    nobodys = by_customer.pop(None, {})
    with ctx.registry.connection() as conn:
        accounts = billing.accounts(conn, list(filter(None, by_customer)))
        free = hostname.free_of_refused(conn, [t for a in accounts.values() for t in a.tenants])
        differing = set(nobodys) - contract.parked_of(conn, list(nobodys))
    news: set[str] = set()
    for customer_id, account in accounts.items():
        fetched = by_customer[customer_id]
        news |= account.news(fetched)
        differing |= billing.out_of_step(
            account, fetched, ctx.catalogue, zone=ctx.platform.zone, now=datetime.now(UTC), free=free
        )
    return [_listed(item, nobodys, differing, news, failed) for item in batch]


def _listed(
    item: dict[str, Any],
    nobodys: Mapping[str, Contract | Park],
    differing: set[str],
    news: set[str],
    failed: Mapping[str, str],
) -> Listed:
    name = str(item["id"])
    unread = nobodys.get(name)
    return Listed(
        item,
        id_or_none(item, "customer", ANY),
        unread if isinstance(unread, Park) else None,
        in_step=name not in differing,
        news=name in news,
        failed=failed.get(name),
    )
