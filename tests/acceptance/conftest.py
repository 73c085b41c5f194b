"""One house for all acceptance tests: the local cloud and the product's own processes, as in the demo.

Leases are short here, so that a test which kills a worker need not wait half a minute for the next.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stripe
from rich.console import Console

from controlplane.cli.demo.house import DemoHouse
from localcloud.stripe.catalogue import create_prices
from tests.acceptance.customers import Customers

SETTINGS = {"CONTROLPLANE_LEASE_SECONDS": "10", "CONTROLPLANE_HEARTBEAT_SECONDS": "2"}


@pytest.fixture(scope="session")
def house() -> Iterator[DemoHouse]:
    with DemoHouse(Console(), settings=SETTINGS) as opened:
        yield opened


@pytest.fixture(scope="session")
def customers(house: DemoHouse) -> Iterator[Customers]:
    client = stripe.StripeClient(
        house.cloud.credentials.stripe_api_key,
        base_addresses={"api": house.environment()["CONTROLPLANE_STRIPE_API_BASE"]},
    )
    prices = create_prices(client, {"starter_monthly": 4900, "team_monthly": 49_900})
    opened = Customers(house, client, prices)
    yield opened
    opened.close()
