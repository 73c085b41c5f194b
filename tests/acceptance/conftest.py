"""One harness for all acceptance tests: the local cloud and the product's own processes, as in the demo.

Leases are short here, so that a test which kills a worker need not wait half a minute for the next.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stripe
from rich.console import Console

from controlplane.localcloud.demo.processes import DemoProcesses
from controlplane.localcloud.stripe.catalogue import create_prices
from tests.acceptance.customers import Customers

SETTINGS = {
    "CONTROLPLANE_LEASE_SECONDS": "10",
    "CONTROLPLANE_HEARTBEAT_SECONDS": "2",
    "CONTROLPLANE_REPUBLISH_INTERVAL": "3600",  # or it may write again what a test takes away to be found
}


@pytest.fixture(scope="session")
def harness() -> Iterator[DemoProcesses]:
    with DemoProcesses(Console(), settings=SETTINGS) as opened:
        yield opened


@pytest.fixture(scope="session")
def customers(harness: DemoProcesses) -> Iterator[Customers]:
    client = stripe.StripeClient(
        harness.cloud.credentials.stripe_api_key,
        base_addresses={"api": harness.environment()["CONTROLPLANE_STRIPE_API_BASE"]},
    )
    prices = create_prices(client, {"starter_monthly": 4900, "team_monthly": 49_900})
    opened = Customers(harness, client, prices)
    yield opened
    opened.close()
