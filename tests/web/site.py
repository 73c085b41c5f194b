"""The web application over a real registry, and the small things that its tests say often."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import stripe
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from controlplane.domain.catalogue import Catalogue, Isolation, Plan
from controlplane.domain.job import JobKind, Lane
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Lifecycle, TenantSpec
from controlplane.services import tenants
from controlplane.settings import WebSettings
from controlplane.store.registry import Registry
from controlplane.wake_up import WakeUp
from controlplane.web.app import create_app
from dataplane.tenant_config import issued, sign

SECRET = "whsec_current"
OLD_SECRET = "whsec_previous"
ZONE = "tenants.example"
KEY_ID, KEY = "k1", b"k" * 32
CATALOGUE = Catalogue(
    1,
    {
        "team": Plan(
            name="team",
            isolation=Isolation.SHARED,
            min_acu=0.5,
            max_acu=4,
            backup_retention_days=7,
            pool_size=5,
            connection_limit=20,
            retention_days=30,
            slots=10,
        )
    },
)


ROLES = {"operator": "operator", "second": "operator", "viewer": "viewer", "dataplane": "dataplane"}
"""Callers and their roles: two operators, since some things take two."""
TOKENS = {name: f"{name}-token-of-22-characters" for name in ROLES}
ENVIRONMENT = {
    "CONTROLPLANE_REGISTRY_URL": "postgresql://127.0.0.1/nowhere",
    "CONTROLPLANE_BROKER_URL": "redis://127.0.0.1:1/0",
    "CONTROLPLANE_STRIPE_WEBHOOK_SECRETS": f"{SECRET},{OLD_SECRET}",
    "CONTROLPLANE_STRIPE_LIVEMODE": "false",
    "CONTROLPLANE_PLATFORM_ZONE": ZONE,
    "CONTROLPLANE_CONFIG_SIGNING_KEYS": f"{KEY_ID}:{base64.b64encode(KEY).decode()}",
    "CONTROLPLANE_API_TOKENS": ",".join(f"{name}-bot:{role}:{TOKENS[name]}" for name, role in ROLES.items()),
}


@dataclass
class Site:
    """`wake_ups`: the lanes that the broker was sent, in order. `settings`: variables over those of
    ENVIRONMENT."""

    registry: Registry
    wake_ups: list[Lane] = field(default_factory=list)
    broker_down: bool = False
    clock: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = WebSettings.from_environment({**ENVIRONMENT, **self.settings})
        notify = WakeUp(self._publish, gap=0)
        self.app: Flask = create_app(self.registry, settings, notify, entry, clock=self._now)

    def _publish(self, lane: Lane) -> None:
        if self.broker_down:
            raise ConnectionError("no broker")
        self.wake_ups.append(lane)

    def _now(self) -> float:
        return time.time() if self.clock is None else self.clock

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def get(self, path: str, *, role: str = "viewer") -> TestResponse:
        return self.client.get(path, headers=bearer(role))

    def post(self, path: str, body: Any = None, *, role: str = "operator") -> TestResponse:
        return self.client.post(path, json=body, headers=bearer(role))

    def deliver(self, body: bytes, **signing: Any) -> TestResponse:
        return self.client.post("/webhooks/stripe", data=body, headers=signed(body, **signing))

    def found(self, subscription: str, *, name: str = "Acme", domains: tuple[str, ...] = ()) -> str:
        """Found a tenant as billing does; its id."""
        tenant_id = tenant_id_for(subscription)
        wanted = TenantSpec(Lifecycle.ACTIVE, "team", "active", custom_domains=domains)
        request = tenants.Request(tenant_id, f"cus_{subscription}", name, name, wanted, None)
        with self.registry.connection() as conn, conn.transaction():
            tenants.bring_to(conn, request, CATALOGUE, actor="billing", reason="a test")
        return tenant_id

    def closed(self, subscription: str) -> str:
        """Found a tenant and end it as billing does; its id."""
        tenant_id = self.found(subscription)
        wanted = TenantSpec(Lifecycle.CLOSED, "team", "canceled")
        request = tenants.Request(tenant_id, f"cus_{subscription}", "Acme", None, wanted, None)
        with self.registry.connection() as conn, conn.transaction():
            tenants.bring_to(conn, request, CATALOGUE, actor="billing", reason="a test")
        return tenant_id

    def jobs(self, *kinds: JobKind) -> list[tuple[JobKind, str]]:
        """Those of these kinds that a worker would take now, with what each is about, in the order in which
        they were asked for."""
        waiting = self.rows(
            "SELECT kind, subject FROM job WHERE state = 'waiting' AND due_at <= clock_timestamp()"
            " AND kind = ANY(%s) ORDER BY id",
            list(kinds or JobKind),
        )
        return [(JobKind(job["kind"]), job["subject"]) for job in waiting]

    def rows(self, statement: str, *args: Any) -> list[dict[str, Any]]:
        with self.registry.connection() as conn:
            done = conn.execute(statement.encode(), args)
            return done.fetchall() if done.description else []


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


def entry(payload: Mapping[str, Any]) -> str:
    return sign(issued(payload, at=time.time()), key_id=KEY_ID, key=KEY)


def event(event_id: str = "evt_1", **changes: Any) -> bytes:
    """A `customer.subscription.created` of Stripe's shape, changed at the top level."""
    body = {
        "id": event_id,
        "object": "event",
        "type": "customer.subscription.created",
        "api_version": "2026-10-28",
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": {"id": "sub_1", "object": "subscription"}},
    }
    return json.dumps(body | changes).encode()


def signed(body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    header = stripe.WebhookSignature.generate_signature_header(
        body.decode("utf-8", "replace"), secret, int(time.time() if at is None else at)
    )
    return {"Stripe-Signature": header, "Content-Type": "application/json"}
