"""Webhook endpoints and their signing secrets.

A secret is shown once, in the answer that makes the endpoint. Rolling one (on Stripe a click in the
dashboard) leaves the old secret valid for a while, and every delivery then carries a signature of each.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import lists
from controlplane.localcloud.stripe.account import Account, new_id
from controlplane.localcloud.stripe.errors import StripeError, missing
from controlplane.localcloud.stripe.params import Params
from controlplane.localcloud.stripe.versions import VERSION

KIND = "webhook_endpoint"
URL = "/v1/webhook_endpoints"
MAX_ENDPOINTS = 16


def create(account: Account, params: Params) -> Object:
    url = _loopback(params.required("url"))
    wanted = params.strings("enabled_events")
    version = params.string("api_version")
    endpoint: Object = {
        "id": new_id("we"),
        "object": KIND,
        "api_version": version or None,
        "application": None,
        "created": account.clock.stamp(),
        "description": params.string("description") or None,
        "enabled_events": wanted,
        "livemode": False,
        "metadata": params.metadata({}),
        "status": "enabled",
        "url": url,
    }
    params.finish()
    if not wanted:
        raise missing("enabled_events")
    if version and not VERSION.match(version):
        raise StripeError(f"Invalid API version: {version[:40]}", param="api_version")
    if account.store.count(KIND) >= MAX_ENDPOINTS:
        raise StripeError(f"You have reached the maximum of {MAX_ENDPOINTS} test webhook endpoints.")
    account.save(endpoint)
    secret = _new_secret()
    _keep(account, endpoint["id"], [{"secret": secret, "expires_at": None}])
    return {**endpoint, "secret": secret}


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return account.find(KIND, key)


def update(account: Account, params: Params, key: str) -> Object:
    endpoint = account.find(KIND, key)
    if params.has("url"):
        endpoint["url"] = _loopback(params.required("url"))
    if params.has("enabled_events"):
        endpoint["enabled_events"] = params.strings("enabled_events")
    if params.has("disabled"):
        endpoint["status"] = "disabled" if params.boolean("disabled") else "enabled"
    if params.has("description"):
        endpoint["description"] = params.string("description") or None
    endpoint["metadata"] = params.metadata(endpoint["metadata"])
    params.finish()
    account.save(endpoint)
    return endpoint


def delete(account: Account, params: Params, key: str) -> Object:
    account.find(KIND, key)
    params.finish()
    account.store.delete(KIND, key)
    account.store.delete("webhook_secret", key)
    return {"id": key, "object": KIND, "deleted": True}


def index(account: Account, params: Params) -> Object:
    return lists.page(account.store, params, KIND, url=URL, matches=lambda _endpoint: True)


def roll_secret(account: Account, key: str, *, overlap: float) -> str:
    """A new secret; the ones before it stay valid for `overlap` seconds (Stripe: up to a day)."""
    account.find(KIND, key)
    edge = account.clock.now() + overlap
    kept = [
        {"secret": entry["secret"], "expires_at": min(edge, entry["expires_at"] or edge)}
        for entry in _secrets(account, key)
    ]
    secret = _new_secret()
    _keep(account, key, [{"secret": secret, "expires_at": None}, *kept])
    return secret


def live_secrets(account: Account, key: str) -> list[str]:
    """The secrets that sign now, newest first."""
    now = account.clock.now()
    return [
        entry["secret"]
        for entry in _secrets(account, key)
        if entry["expires_at"] is None or entry["expires_at"] > now
    ]


def _secrets(account: Account, key: str) -> list[Object]:
    kept = account.store.get("webhook_secret", key)
    return [] if kept is None else kept["secrets"]


def _keep(account: Account, key: str, entries: list[Object]) -> None:
    account.store.put("webhook_secret", key, {"secrets": entries}, created=account.clock.now())


def _new_secret() -> str:
    return new_id("whsec", 32)


def _loopback(url: str) -> str:
    """Signed test events with made-up customers must not leave this machine by a typing mistake."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost" or host.endswith(".localhost")
    if parts.scheme not in ("http", "https") or not inside:
        raise StripeError("Invalid URL: this fake server delivers to http(s) on loopback only.", param="url")
    return url
