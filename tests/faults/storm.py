"""A storm of billing events: customers who change their minds, and a Stripe that delivers as it does.

Every event is a change of the object behind it, made before the event is sent; deliveries are doubled,
late and out of order. They go through the product's own webhook, signed, and one that is not answered
2xx is delivered again, as Stripe would.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import re
import time
from collections.abc import Iterator

from controlplane import wsgi
from controlplane.workers.jobs.comparison import listed
from tests import builders
from tests.harness.engine import Harness
from tests.web.site import ENVIRONMENT, signed

STATUSES = ("active", "active", "active", "past_due", "unpaid", "paused", "trialing")
_TENANT = re.compile(r"t-[a-z2-7]{12}")
AGAIN = 2.0
"""Seconds until a delivery that failed is made again. Stripe waits longer; nothing depends on it."""


class Storm:
    """`events` about `tenants` customers over `seconds`. `step` delivers what is due."""

    def __init__(
        self,
        harness: Harness,
        *,
        registry_url: str,
        broker_url: str,
        tenants: int,
        events: int,
        seconds: float,
        seed: int,
    ) -> None:
        self._harness = harness
        self._rng = random.Random(seed)
        places = {"CONTROLPLANE_REGISTRY_URL": registry_url, "CONTROLPLANE_BROKER_URL": broker_url}
        self._client = wsgi.create(ENVIRONMENT | places).test_client()
        order = [number % tenants for number in range(events)]
        self._rng.shuffle(order)
        self._changes: Iterator[tuple[float, int]] = iter(
            [(seconds * place / events, number) for place, number in enumerate(order)]
        )
        self._next = next(self._changes, None)
        self._due: list[tuple[float, int, bytes]] = []
        self._began = time.monotonic()
        self._numbers = self._pushed = 0
        self._quantity = dict.fromkeys(range(tenants), 0)
        self._ended: set[int] = set()
        self.sent: set[str] = set()
        self.deliveries = self.refused = 0

    @property
    def over(self) -> bool:
        return self._next is None and not self._due

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def step(self, *, until: float = math.inf) -> int:
        """Make every change and delivery whose time has come; how many deliveries there were. Those that
        are left at `until`, on the monotonic clock, wait for the next: to be refused takes seconds."""
        now = self.elapsed
        while self._next is not None and self._next[0] <= now:
            self._change(*self._next)
            self._next = next(self._changes, None)
        before = self.deliveries
        while self._due and self._due[0][0] <= now and time.monotonic() < until:
            _, number, body = heapq.heappop(self._due)
            self._deliver(number, body)
        return self.deliveries - before

    def _change(self, at: float, customer: int) -> None:
        rng = self._rng
        first = self._quantity[customer] == 0
        self._quantity[customer] += 1
        if not first and customer not in self._ended and rng.random() < 0.005:
            self._ended.add(customer)
        status = "canceled" if customer in self._ended else rng.choice(STATUSES)
        subscription = self._harness.subscribe(
            customer,
            plan="dedicated" if customer % 50 == 0 else "shared",
            status="active" if first else status,
            quantity=self._quantity[customer],
        )
        self._numbers += 1
        event_id = f"evt_{self._numbers:08d}"
        what = "created" if first else "deleted" if status == "canceled" else "updated"
        event = builders.event(
            f"customer.subscription.{what}",
            builders.subscription(id=subscription, customer=f"cus_{customer:08d}"),
            id=event_id,
            created=int(time.time()),
        )
        self.sent.add(event_id)
        body = json.dumps(event).encode()
        late = rng.expovariate(1 / 2.0) if rng.random() < 0.3 else 0.0
        for again in range(rng.choice((1, 1, 1, 1, 2, 3))):
            self._push(at + late + again * rng.random(), body)

    def _push(self, at: float, body: bytes) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (at, self._pushed, body))

    def _deliver(self, number: int, body: bytes) -> None:
        self.deliveries += 1
        answer = self._client.post("/webhooks/stripe", data=body, headers=signed(body))
        if answer.status_code != 200:
            self.refused += 1
            heapq.heappush(self._due, (self.elapsed + AGAIN, number, body))


def out_of_step(harness: Harness) -> list[str]:
    """Subscriptions of which the registry does not hold what Stripe's current object says; empty where all
    are."""
    return [
        f"{found.id} is {found.item['status']}"
        for batch in listed(harness.ctx)
        for found in batch
        if not found.in_step
    ]


def broken(harness: Harness) -> list[str]:
    """The harness's violations, but for what a killed Terraform run made for a tenant that was then
    suspended or closed: it has its row, and the state learns of it when the tenant comes back or goes."""
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute("SELECT id FROM tenant WHERE spec->>'lifecycle' <> 'active'").fetchall()
    resting = {row["id"] for row in rows}
    return [
        found
        for found in harness.violations()
        if not (found.endswith("is in no Terraform state") and resting & set(_TENANT.findall(found)))
    ]
