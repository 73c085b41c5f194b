"""Customers: who pays, with what, and whether the payment goes through."""

from __future__ import annotations

import json
import secrets

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import events, lists, payment_methods
from controlplane.localcloud.stripe.account import Account, difference, new_id
from controlplane.localcloud.stripe.params import Params

KIND = "customer"
URL = "/v1/customers"
ADDRESS = ("city", "country", "line1", "line2", "postal_code", "state")


def create(account: Account, params: Params) -> Object:
    customer: Object = {
        "id": new_id("cus", 14),
        "object": KIND,
        "address": None,
        "balance": 0,
        "created": account.clock.stamp(),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": secrets.token_hex(4).upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }
    method = params.string("payment_method")
    if method:
        method = payment_methods.attached(account, method, customer["id"], param="payment_method")["id"]
    _apply(account, customer, params, attached=method)
    params.finish()
    account.save(customer)
    events.emit(account, "customer.created", customer)
    return customer


def retrieve(account: Account, params: Params, key: str) -> Object:
    """A deleted customer still answers, with `deleted` and nothing else."""
    params.finish()
    kept = account.store.get(KIND, key)
    return kept if kept is not None and kept.get("deleted") else account.find(KIND, key)


def update(account: Account, params: Params, key: str) -> Object:
    customer = account.find(KIND, key)
    before = json.loads(json.dumps(customer))
    _apply(account, customer, params, attached=None)
    params.finish()
    if changed := difference(before, customer):
        account.save(customer)
        events.emit(account, "customer.updated", customer, previous=changed)
    return customer


def index(account: Account, params: Params) -> Object:
    email = params.string("email")
    created = params.range("created")
    return lists.page(
        account.store,
        params,
        KIND,
        url=URL,
        matches=lambda customer: (
            not customer.get("deleted")
            and (email is None or customer["email"] == email)
            and created(customer["created"])
        ),
    )


def pays_with(account: Account, customer: str) -> str | None:
    """The customer's default payment method."""
    method: str | None = account.find(KIND, customer)["invoice_settings"]["default_payment_method"]
    return method


def set_delinquent(account: Account, key: str, delinquent: bool) -> None:
    customer = account.find(KIND, key)
    if customer["delinquent"] != delinquent:
        customer["delinquent"] = delinquent
        account.save(customer)
        events.emit(account, "customer.updated", customer, previous={"delinquent": not delinquent})


def _apply(account: Account, customer: Object, params: Params, *, attached: str | None) -> None:
    for key in ("name", "email", "phone", "description"):
        if params.has(key):
            customer[key] = params.string(key, limit=512) or None
    if params.has("address"):
        address = params.object("address")
        customer["address"] = address and {key: address.string(key) for key in ADDRESS}
    customer["metadata"] = params.metadata(customer["metadata"])
    settings = params.object("invoice_settings")
    if settings is None:
        return
    method = settings.string("default_payment_method")
    if method is not None:
        name = settings.name("default_payment_method")
        # A test card named twice in one call, as `payment_method` and as the default, is one card.
        chosen = attached or (
            payment_methods.attached(account, method, customer["id"], param=name)["id"] if method else None
        )
        customer["invoice_settings"]["default_payment_method"] = chosen
