"""What a customer does and sees: subscribe in Stripe, open the page on one's own host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import stripe

from controlplane.domain.placement import tenant_id_for
from controlplane.localcloud.demo.processes import DemoProcesses
from controlplane.localcloud.stripe.catalogue import subscribe
from controlplane.services import operations, tenants
from controlplane.store import operation, tenant

T = TypeVar("T")


class Customers:
    def __init__(self, harness: DemoProcesses, client: stripe.StripeClient, prices: dict[str, str]) -> None:
        self.harness = harness
        self.stripe = client
        self._prices = prices
        self._http = httpx.Client(timeout=10)

    def close(self) -> None:
        self._http.close()

    def subscribe(self, slug: str, plan: str, **metadata: str) -> str:
        """The subscription's id."""
        subscription = subscribe(
            self.stripe,
            customer_name=slug.title(),
            email=f"billing@{slug}.dev",
            price=self._prices[plan],
            metadata={"slug": slug, "name": slug.title(), **metadata},
        )
        return str(subscription.id)

    def host(self, slug: str) -> str:
        return f"{slug}.{self.harness.cloud.zone}"

    def page(self, slug: str) -> httpx.Response:
        """The JSON form of the sample application's page, asked for by host name."""
        return self._http.get(
            f"http://127.0.0.1:{self.harness.app_port}/",
            headers={"Host": self.host(slug), "Accept": "application/json"},
        )

    def write(self, slug: str, body: str) -> None:
        self._http.post(
            f"http://127.0.0.1:{self.harness.app_port}/notes",
            json={"body": body},
            headers={"Host": self.host(slug), "Accept": "application/json"},
        ).raise_for_status()

    def wait_for_page(self, slug: str, *, timeout: float) -> dict[str, Any]:
        """The first good page. Until then nothing but 404 and an honest 503 may be answered."""

        def good() -> dict[str, Any] | None:
            answer = self.page(slug)
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) > 0
            else:
                assert answer.status_code in (200, 404), answer.text
            return answer.json() if answer.status_code == 200 else None

        return wait_for(good, timeout=timeout, what=lambda: f"{slug}: {self.state(slug)}")

    def wait_until_reconciled(self, subscription: str, *, timeout: float) -> tenant.TenantRow:
        def reconciled() -> tenant.TenantRow | None:
            with self.harness.registry.connection() as conn:
                row = tenant.find(conn, tenant_id_for(subscription))
                if row is None or row.generation != row.observed_generation:
                    return None
                open_ = conn.execute(
                    "SELECT FROM operation WHERE resource_id = %s AND state IN ('waiting', 'running')",
                    [row.id],
                ).fetchone()
            return row if open_ is None else None

        return wait_for(reconciled, timeout=timeout, what=lambda: self.state(subscription))

    def wait_for_step(
        self, resource_id: str, name: str, *, timeout: float, event: str | None = None, after: int = 0
    ) -> None:
        """Until the resource is in this step (and, with `event`, in which such a Terraform event came) of an
        operation with an id above `after`."""

        def there() -> bool | None:
            with self.harness.registry.connection() as conn:
                for row in operation.page(conn, before=None, limit=3, resource_id=resource_id):
                    detail = operations.show(conn, row.id)
                    for step in detail.steps if row.id > after else []:
                        if step.name == name and (event is None or self._has_event(detail, step.seq, event)):
                            return True
            return None

        wait_for(there, timeout=timeout, what=lambda: f"{resource_id} did not come to {name}", every=0.01)

    @staticmethod
    def _has_event(detail: operations.OperationDetail, seq: int, event: str) -> bool:
        return any(e.seq == seq and f"{e.kind} {e.address}".startswith(event) for e in detail.events)

    def state(self, name: str) -> str:
        with self.harness.registry.connection() as conn:
            rows = tenant.page(conn, after=None, limit=50)
            found = [
                (
                    row.slug,
                    str(row.phase),
                    [(o.state, o.error) for o in tenants.show(conn, row.id).operations],
                )
                for row in rows
            ]
        return f"{name} not reached; {found}"


def wait_for(
    look: Callable[[], T | None], *, timeout: float, what: Callable[[], str], every: float = 0.1
) -> T:
    deadline = time.monotonic() + timeout
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:.0f} s: {what()}")
        time.sleep(every)
    return found
