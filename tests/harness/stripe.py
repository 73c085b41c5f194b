"""A running Stripe fake server, an SDK client for it, and a webhook receiver, for provider tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import stripe
from werkzeug.serving import make_server

from controlplane.localcloud.servers.fake_http.server import QuietHandler
from controlplane.localcloud.servers.fake_http.store import ObjectStore
from controlplane.localcloud.servers.http_service import HttpService
from controlplane.localcloud.stripe.account import Account, Settings
from controlplane.localcloud.stripe.catalogue import create_prices, subscribe
from controlplane.localcloud.stripe.client import StripeControl
from controlplane.localcloud.stripe.delivery import Deliverer
from controlplane.localcloud.stripe.server import make_app

KEY = "sk_test_canary0123456789abcdefghijkl"
PLANS = {"shared": 1900, "dedicated": 9900}


@dataclass
class StripeFixture:
    """`url`: where the fake server listens. `prices`: lookup key → price id. `service`: its process,
    where it has one."""

    url: str
    client: stripe.StripeClient
    control: StripeControl
    prices: Mapping[str, str]
    service: HttpService | None = None

    def subscribe(self, *, plan: str = "shared", **metadata: str) -> stripe.Subscription:
        return subscribe(
            self.client,
            customer_name="Acme",
            email="billing@acme.dev",
            price=self.prices[plan],
            metadata=metadata,
        )

    def crash(self) -> None:
        """Kill the fake server's process, and start it again."""
        assert self.service is not None
        self.service.kill()
        self.service.start()

    def customer(self, card: str | None = "pm_card_visa", **fields: Any) -> str:
        """A new customer's id; `card` None: nothing to pay with."""
        paying: dict[str, Any] = (
            {"payment_method": card, "invoice_settings": {"default_payment_method": card}} if card else {}
        )
        return self.client.v1.customers.create({"email": "billing@acme.dev", **paying, **fields}).id

    def events(self, subscription_id: str) -> list[str]:
        """The types of the subscription's own events, oldest first."""
        found = self.client.v1.events.list({"types": ["customer.subscription.*"], "limit": 100})
        return [
            event.type.removeprefix("customer.subscription.")
            for event in reversed(list(found.auto_paging_iter()))
            if event.data.object["id"] == subscription_id
        ]


@contextmanager
def run_stripe(data_dir: Path, *arguments: str) -> Iterator[StripeFixture]:
    """As it is run outside of tests: a process of its own."""
    service = HttpService(
        "controlplane.localcloud.stripe",
        data_dir,
        arguments=arguments,
        environment={"LOCALCLOUD_STRIPE_API_KEY": KEY},
    )
    with service, _fixture(service.url) as fixture:
        fixture.service = service
        yield fixture


@contextmanager
def run_stripe_here(**settings: Any) -> Iterator[StripeFixture]:
    """In a thread, for tests that each want a new one: starts in milliseconds. `settings` as in
    `controlplane.localcloud.stripe.account.Settings`."""
    store = ObjectStore(None)
    account = Account(store, Settings(api_key=KEY, **settings))
    deliverer = Deliverer(account)
    server = make_server("127.0.0.1", 0, make_app(account), threaded=True, request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    deliverer.start()
    thread.start()
    try:
        with _fixture(f"http://127.0.0.1:{server.server_port}") as fixture:
            yield fixture
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        deliverer.stop()
        store.close()


@contextmanager
def _fixture(url: str) -> Iterator[StripeFixture]:
    with StripeControl(url) as control:
        client = make_client(url)
        yield StripeFixture(url, client, control, create_prices(client, PLANS))


def make_client(url: str, *, key: str = KEY, retries: int = 0) -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": url}, max_network_retries=retries)


def plain(found: Any) -> Any:
    """What was answered, as JSON; `to_dict` of the SDK makes decimals of some numbers."""
    return json.loads(found.last_response.body)


@dataclass
class Hook:
    """One webhook request as it came in."""

    path: str
    body: bytes
    signature: str


@dataclass
class Receiver:
    """A webhook endpoint of the test's own. `statuses` are answered in turn, then 200."""

    url: str
    hooks: list[Hook] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bodies(self) -> list[bytes]:
        return [hook.body for hook in self.hooks]


@contextmanager
def run_receiver() -> Iterator[Receiver]:
    receiver = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiver.lock:
                receiver.hooks.append(Hook(self.path, body, self.headers["Stripe-Signature"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/webhooks/stripe"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
