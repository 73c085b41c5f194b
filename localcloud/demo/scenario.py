"""What the demo tells: customers pay, become tenants, and each is served from its own database."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import stripe
from rich.console import Console
from rich.live import Live
from rich.table import Table

from controlplane.domain.errors import NotFound
from controlplane.domain.placement import tenant_id_for
from controlplane.localcloud.demo.processes import DemoFailed, DemoProcesses
from controlplane.localcloud.demo.trace import Trace, trace_of
from controlplane.localcloud.demo.view import progress_table
from controlplane.localcloud.stripe.catalogue import create_prices, subscribe
from controlplane.services import tenants

PRICES = {"starter_monthly": 4900, "enterprise_monthly": 249_000, "team_monthly": 49_900}
BEYOND_TERRAFORM_AT_MOST = 5.0
"""Seconds that a tenant on a ready cluster may take besides Terraform's own run."""


@dataclass(slots=True)
class Customer:
    """`id`, `price`: Stripe's. `paid`, `usable`: monotonic seconds; `usable` at the first good page on its
    own host."""

    name: str
    slug: str
    lookup_key: str
    domain: str | None = None
    id: str = ""
    price: str = ""
    subscription: str = ""
    paid: float = 0.0
    usable: float | None = None
    page: dict[str, object] = field(default_factory=dict)

    @property
    def tenant_id(self) -> str:
        return tenant_id_for(self.subscription)


class Scenario:
    """`timeout`: seconds for all tenants of a chapter to become usable."""

    def __init__(self, processes: DemoProcesses, console: Console, *, timeout: float) -> None:
        self._processes = processes
        self._console = console
        self._timeout = timeout
        self._stripe = stripe.StripeClient(
            processes.cloud.credentials.stripe_api_key,
            base_addresses={"api": processes.cloud.environment()["CONTROLPLANE_STRIPE_API_BASE"]},
        )
        self._http = httpx.Client(timeout=10)
        self._printed: set[str] = set()
        self._customers: dict[str, Customer] = {}

    def run(self) -> None:
        """Raises DemoFailed where something does not hold."""
        prices = create_prices(self._stripe, PRICES)
        acme = Customer("Acme Corporation", "acme", "team_monthly", domain="notes.acme.dev")
        bolt = Customer("Bolt & Sons", "bolt", "starter_monthly")
        self._say("\nTwo customers pay: Acme for a dedicated cluster, Bolt for a place on a shared one.")
        self._subscribe([acme, bolt], prices)
        self._say("\nA third pays for the shared plan: its cluster is ready, so it does not wait for Aurora.")
        cobalt = Customer("Cobalt Ltd", "cobalt", "starter_monthly")
        self._subscribe([cobalt], prices)
        everybody = [acme, bolt, cobalt]
        self._keep_apart(everybody)
        traces = {
            customer.slug: trace_of(self._processes.registry, customer.tenant_id) for customer in everybody
        }
        self._summarise(everybody, traces)
        self._judge(cobalt, traces["cobalt"])
        self._leave_and_return(cobalt)

    def where_to_go_next(self) -> None:
        bolt, environment = self._customers["bolt"], self._processes.write_environment()
        self._say("\nIt goes on running. In a browser (names under .localhost lead to this machine):")
        for slug in ("acme", "bolt", "cobalt"):
            self._say(f"  http://{self._host(slug)}:{self._processes.app_port}/")
        self._say("\nWhat support and who runs it see, in another terminal (README.md, For support):")
        self._say(f"  set -a; . {environment}; set +a")
        for command in ("tenants list", "tenants show acme", "tenants reprovision acme --dry-run"):
            self._say(f"  .venv/bin/controlplane {command}")
        for command in ("doctor", "verify"):
            self._say(f"  .venv/bin/controlplane {command}")
        self._say("\nWhat a customer does, there too: Bolt cancels at Stripe, and comes back.")
        stripe_at = (
            'curl -sSu "$CONTROLPLANE_STRIPE_API_KEY:" "$CONTROLPLANE_STRIPE_API_BASE/v1/subscriptions'
        )
        self._say(f'  {stripe_at}/{bolt.subscription}" -X DELETE')
        self._say(f'  {stripe_at}" -d customer={bolt.id} -d "items[0][price]={bolt.price}"')
        self._say("\nLogs are in " + str(self._processes.cloud.data_dir))
        self._say("Ctrl-C ends it; nothing is left running.")

    # ------------------------------------------------------------------------------- subscribing

    def _subscribe(self, customers: list[Customer], prices: dict[str, str]) -> None:
        for customer in customers:
            metadata = {"slug": customer.slug, "name": customer.name}
            if customer.domain is not None:
                metadata["custom_domain"] = customer.domain
            customer.paid, customer.price = time.monotonic(), prices[customer.lookup_key]
            bought = subscribe(
                self._stripe,
                customer_name=customer.name,
                email=f"billing@{customer.slug}.dev",
                price=customer.price,
                metadata=metadata,
            )
            customer.id, customer.subscription = str(bought.customer), bought.id
            self._customers[customer.slug] = customer
        self._wait(customers)

    def _wait(self, customers: list[Customer]) -> None:
        deadline = time.monotonic() + self._timeout
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            while any(customer.usable is None for customer in customers):
                for customer in customers:
                    if customer.usable is None:
                        self._try_page(customer)
                rows = [(c.name, c.tenant_id, c.paid, c.usable) for c in customers]
                live.update(progress_table(self._processes.registry, rows, self._printed, self._console))
                if failed := self._processes.failed_process():
                    raise DemoFailed(f"{failed} has ended")
                if time.monotonic() > deadline:
                    raise DemoFailed(f"not usable after {self._timeout:.0f} s: {self._unfinished(customers)}")
                time.sleep(0.25)

    def _try_page(self, customer: Customer) -> None:
        answer = self._get(customer.slug)
        if answer.status_code == httpx.codes.OK:
            customer.usable = time.monotonic()
            customer.page = answer.json()
        elif answer.status_code not in (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE):
            raise DemoFailed(f"{self._host(customer.slug)} answered {answer.status_code}")

    def _unfinished(self, customers: list[Customer]) -> str:
        states = []
        for customer in customers:
            if customer.usable is not None:
                continue
            try:
                with self._processes.registry.connection() as conn:
                    row = tenants.show(conn, customer.tenant_id)
                last = row.operations[0] if row.operations else None
                states.append(f"{customer.slug}: {row.tenant.phase}, {last and (last.error or last.state)}")
            except NotFound:
                states.append(f"{customer.slug}: its event has not been handled")
        return "; ".join(states)

    # ---------------------------------------------------------------------------- what it shows

    def _keep_apart(self, customers: list[Customer]) -> None:
        """Each writes a note; each must see its own and nobody else's."""
        for customer in customers:
            url = f"http://127.0.0.1:{self._processes.app_port}/notes"
            headers = {"Host": self._host(customer.slug), "Accept": "application/json"}
            posted = self._http.post(url, json={"body": f"only for {customer.name}"}, headers=headers)
            if posted.status_code not in (httpx.codes.OK, httpx.codes.CREATED, httpx.codes.SEE_OTHER):
                raise DemoFailed(f"{customer.slug}: writing a note answered {posted.status_code}")
        for customer in customers:
            page = self._get(customer.slug)
            others = [other for other in customers if other is not customer and other.name in page.text]
            if others or customer.name not in page.text:
                raise DemoFailed(f"{customer.slug} sees notes of {[o.slug for o in others]}, or not its own")
            customer.page = page.json()
        databases = {str(customer.page["database"]) for customer in customers}
        if len(databases) != len(customers):
            raise DemoFailed(f"{len(customers)} tenants share the databases {databases}")
        unknown = self._get("nobody").status_code
        if unknown != httpx.codes.NOT_FOUND:
            raise DemoFailed(f"an unknown host answered {unknown} instead of 404")

    def _summarise(self, customers: list[Customer], traces: dict[str, Trace]) -> None:
        homes = Table(title="\nWhere they live", title_justify="left")
        for column in ("tenant", "plan", "database", "on cluster"):
            homes.add_column(column, no_wrap=True)
        times = Table(title="\nFrom paid to usable, in seconds", title_justify="left")
        for column in ("tenant", "paid → usable", "cluster", "its secret", "all the rest"):
            times.add_column(column, justify="left" if column == "tenant" else "right", no_wrap=True)
        for customer in customers:
            trace = traces[customer.slug]
            total = (customer.usable or 0.0) - customer.paid
            homes.add_row(customer.slug, trace.plan, str(customer.page["database"]), trace.cluster)
            waited = trace.waited_for_cluster
            times.add_row(
                customer.slug,
                f"{total:.1f}",
                f"{trace.cluster_stack:.1f}" if waited else "was ready",
                f"{trace.secret:.1f}",
                "beside it" if waited else f"{total - trace.terraform:.1f}",
            )
        self._console.print(homes)
        self._console.print(times)
        self._say("Cluster and secrets are Terraform's own runs, by the cluster's operation.")
        self._say("Every tenant wrote a note and sees its own alone; an unknown host is answered with 404.\n")

    def _judge(self, customer: Customer, trace: Trace) -> None:
        total = (customer.usable or 0.0) - customer.paid
        beyond = total - trace.terraform
        self._say(
            f"{customer.name}, on a ready cluster: {total:.1f} s from paid to usable,"
            f" {trace.terraform:.1f} s of it Terraform, {beyond:.1f} s all the rest."
        )
        for name, seconds in sorted(trace.steps.items(), key=lambda item: -item[1]):
            self._say(f"  {seconds:6.2f} s  {name}")
        if trace.waited_for_cluster:
            raise DemoFailed("the third tenant waited for a cluster although one was ready")
        if beyond > BEYOND_TERRAFORM_AT_MOST:
            raise DemoFailed(
                f"{beyond:.1f} s beyond Terraform's own run, at most {BEYOND_TERRAFORM_AT_MOST} s are allowed"
            )

    def _leave_and_return(self, customer: Customer) -> None:
        """Stripe never revives a subscription: who returns has a new one, and must find what it had."""
        self._say(f"\n{customer.name} cancels, and subscribes anew.")
        self._stripe.v1.subscriptions.cancel(customer.subscription)
        self._until(customer, lambda status, _text: status == httpx.codes.NOT_FOUND)
        self._say(f"  ✓ {self._host(customer.slug)} is answered with 404, its data is kept")
        paid = time.monotonic()
        again = self._stripe.v1.subscriptions.create(
            {"customer": customer.id, "items": [{"price": customer.price}]}
        )
        self._until(customer, lambda status, text: status == httpx.codes.OK and customer.name in text)
        seconds = time.monotonic() - paid
        self._say(f"  ✓ {again.id} is for the same tenant: its note is there again after {seconds:.1f} s")

    def _until(self, customer: Customer, holds: Callable[[int, str], bool]) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            answer = self._get(customer.slug)
            if holds(answer.status_code, answer.text):
                return
            if time.monotonic() > deadline:
                raise DemoFailed(f"{self._host(customer.slug)} still answers {answer.status_code}")
            time.sleep(0.1)

    # ----------------------------------------------------------------------------------- helpers

    def _get(self, slug: str) -> httpx.Response:
        headers = {"Host": self._host(slug), "Accept": "application/json"}
        return self._http.get(f"http://127.0.0.1:{self._processes.app_port}/", headers=headers)

    def _host(self, slug: str) -> str:
        return f"{slug}.{self._processes.cloud.zone}"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)
