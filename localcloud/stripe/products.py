"""Products: what is sold."""

from __future__ import annotations

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import events, lists
from controlplane.localcloud.stripe.account import Account, difference, new_id
from controlplane.localcloud.stripe.params import Params

KIND = "product"
URL = "/v1/products"


def create(account: Account, params: Params) -> Object:
    now = account.clock.stamp()
    product: Object = {
        "id": new_id("prod", 14),
        "object": KIND,
        "active": True,
        "created": now,
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "name": params.required("name"),
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": now,
        "url": None,
    }
    _apply(product, params)
    params.finish()
    account.save(product)
    events.emit(account, "product.created", product)
    return product


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return account.find(KIND, key)


def update(account: Account, params: Params, key: str) -> Object:
    product = account.find(KIND, key)
    before = dict(product)
    if params.has("name"):
        product["name"] = params.required("name")
    _apply(product, params)
    params.finish()
    if changed := difference(before, product):
        product["updated"] = account.clock.stamp()
        account.save(product)
        events.emit(account, "product.updated", product, previous=changed)
    return product


def index(account: Account, params: Params) -> Object:
    active = params.boolean("active")
    ids = params.strings("ids")
    return lists.page(
        account.store,
        params,
        KIND,
        url=URL,
        matches=lambda product: (
            (active is None or product["active"] == active) and (ids is None or product["id"] in ids)
        ),
    )


def _apply(product: Object, params: Params) -> None:
    if params.has("active"):
        product["active"] = params.boolean("active")
    if params.has("description"):
        product["description"] = params.string("description") or None
    product["metadata"] = params.metadata(product["metadata"])
