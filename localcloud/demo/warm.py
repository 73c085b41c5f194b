"""`controlplane demo --warm`: clusters made ahead of demand, and how soon a customer is served then."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controlplane.domain.catalogue import parse_catalogue
from controlplane.localcloud.demo.processes import CATALOGUE, DemoFailed
from controlplane.localcloud.demo.scenario import (
    PRICES,
    Customer,
    Scenario,
)
from controlplane.localcloud.demo.trace import Trace, trace_of
from controlplane.localcloud.stripe.catalogue import create_prices
from controlplane.store import cluster, report
from controlplane.store.report import About

WARM = {"team": 1, "starter": 1}
"""Plan → free slots."""
FIRST_PAGE_WITHIN = 15.0
"""Seconds from the payment of a dedicated tenant on a ready cluster, its Terraform stack included."""


@contextmanager
def warm_catalogue() -> Iterator[Mapping[str, str]]:
    """The product's settings with a copy of the demo's catalogue that asks for warm slots."""
    text = re.sub(r"(?m)^warm_slots = .*\n", "", CATALOGUE.read_text())
    for plan, slots in WARM.items():
        text = text.replace(f"[plans.{plan}]\n", f"[plans.{plan}]\nwarm_slots = {slots}\n")
    found = parse_catalogue(text, source="the demo's catalogue")
    if any(found.plan(plan).warm_slots != slots for plan, slots in WARM.items()):
        raise DemoFailed(f"the demo's catalogue has not all of the plans {', '.join(WARM)}")
    with tempfile.TemporaryDirectory(prefix="controlplane-demo-") as folder:
        path = Path(folder) / "plans.toml"
        path.write_text(text)
        yield {"CONTROLPLANE_PLAN_CATALOGUE": str(path)}


class WarmScenario(Scenario):
    def run(self) -> None:
        """Raises DemoFailed where something does not hold."""
        prices = create_prices(self._stripe, PRICES)
        self._say("\nNobody has paid yet. The warm pool makes a cluster for the team plan, one for starter.")
        self._wait_for_pool()
        acme = Customer("Acme Corporation", "acme", "team_monthly", domain="notes.acme.dev")
        self._say("\nAcme pays for a dedicated cluster, and one is ready.")
        self._subscribe([acme], prices)
        bolt, cobalt = (
            Customer("Bolt & Sons", "bolt", "starter_monthly"),
            Customer("Cobalt Ltd", "cobalt", "starter_monthly"),
        )
        self._say("\nBolt and Cobalt pay for the shared plan, while the pool replaces what Acme took.")
        self._subscribe([bolt, cobalt], prices)
        everybody = [acme, bolt, cobalt]
        self._keep_apart(everybody)
        traces = {
            customer.slug: trace_of(self._processes.registry, customer.tenant_id) for customer in everybody
        }
        self._summarise(everybody, traces)
        self._judge_first_page(acme, traces["acme"])

    def _wait_for_pool(self) -> None:
        started = time.monotonic()
        while True:
            classes = self._classes()
            if classes and all(
                cluster_class["free"] >= cluster_class["warm_slots"] for cluster_class in classes
            ):
                break
            if failed := self._processes.failed_process():
                raise DemoFailed(f"{failed} has ended")
            if time.monotonic() - started > self._timeout:
                raise DemoFailed(f"the warm pool is not ready after {self._timeout:.0f} s: {classes}")
            time.sleep(0.5)
        with self._processes.registry.connection() as conn:
            ready = cluster.page(conn, after=None, limit=10)
        for row in ready:
            self._say(f"  ✓ {row.id} ({row.spec.isolation.value}) is ready, {row.slots - row.used} free")
        self._say(f"  after {time.monotonic() - started:.0f} s, before anybody paid")

    def _classes(self) -> list[dict[str, Any]]:
        """Those that are asked for; none before the first look."""
        with self._processes.registry.connection() as conn:
            found = report.read(conn, About.POOL)
        return (
            []
            if found is None
            else [cluster_class for cluster_class in found.content["classes"] if cluster_class["warm_slots"]]
        )

    def _judge_first_page(self, customer: Customer, trace: Trace) -> None:
        total = (customer.usable or 0.0) - customer.paid
        self._say(
            f"{customer.name}, a dedicated cluster made ahead of demand: {total:.1f} s from paid to the first"
            f" page, {trace.secret:.1f} s of it until its secret was made."
        )
        for name, seconds in sorted(trace.steps.items(), key=lambda item: -item[1]):
            self._say(f"  {seconds:6.2f} s  {name}")
        if trace.waited_for_cluster:
            raise DemoFailed(f"{customer.slug} waited for a cluster although one was ready")
        if total > FIRST_PAGE_WITHIN:
            raise DemoFailed(
                f"{customer.slug}: the first page came {total:.1f} s after the payment, at most"
                f" {FIRST_PAGE_WITHIN:.0f} s are allowed on a machine with nothing else to do"
                f" ({trace.secret:.1f} s were Terraform's)"
            )
