"""The HTTP side: keys, request ids, idempotency, fault switches, error envelopes, one table of routes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from controlplane.localcloud.servers.fake_http.faults import ApiFault, ApiFaults
from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import (
    charges,
    checkout,
    control,
    customers,
    events,
    invoices,
    payment_methods,
    prices,
    products,
    subscriptions,
    versions,
    webhook_endpoints,
)
from controlplane.localcloud.stripe.account import Account, Request, new_id
from controlplane.localcloud.stripe.clock import DAY
from controlplane.localcloud.stripe.errors import StripeError, fault, no_route, unauthorised
from controlplane.localcloud.stripe.expand import expand
from controlplane.localcloud.stripe.params import Params, parse

Handler = Callable[..., Object]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/customers", customers.create),
    ("GET", "/v1/customers", customers.index),
    ("GET", "/v1/customers/<key>", customers.retrieve),
    ("POST", "/v1/customers/<key>", customers.update),
    ("DELETE", "/v1/customers/<key>", subscriptions.delete_customer),
    ("GET", "/v1/payment_methods/<key>", payment_methods.retrieve),
    ("POST", "/v1/payment_methods/<key>/attach", payment_methods.attach),
    ("POST", "/v1/products", products.create),
    ("GET", "/v1/products", products.index),
    ("GET", "/v1/products/<key>", products.retrieve),
    ("POST", "/v1/products/<key>", products.update),
    ("POST", "/v1/prices", prices.create),
    ("GET", "/v1/prices", prices.index),
    ("GET", "/v1/prices/<key>", prices.retrieve),
    ("POST", "/v1/prices/<key>", prices.update),
    ("POST", "/v1/subscriptions", subscriptions.create),
    ("GET", "/v1/subscriptions", subscriptions.index),
    ("GET", "/v1/subscription_items", subscriptions.items),
    ("GET", "/v1/subscriptions/<key>", subscriptions.retrieve),
    ("POST", "/v1/subscriptions/<key>", subscriptions.update),
    ("DELETE", "/v1/subscriptions/<key>", subscriptions.cancel),
    ("POST", "/v1/subscriptions/<key>/resume", subscriptions.resume),
    ("GET", "/v1/charges/<key>", charges.retrieve),
    ("GET", "/v1/invoices", invoices.index),
    ("GET", "/v1/invoices/<key>", invoices.retrieve),
    ("POST", "/v1/invoices/<key>/pay", subscriptions.pay_invoice),
    ("POST", "/v1/checkout/sessions", checkout.create),
    ("GET", "/v1/checkout/sessions", checkout.index),
    ("GET", "/v1/checkout/sessions/<key>", checkout.retrieve),
    ("GET", "/v1/checkout/sessions/<key>/line_items", checkout.line_items),
    ("POST", "/v1/checkout/sessions/<key>/expire", checkout.expire),
    ("GET", "/v1/events", events.index),
    ("GET", "/v1/events/<key>", events.retrieve),
    ("POST", "/v1/webhook_endpoints", webhook_endpoints.create),
    ("GET", "/v1/webhook_endpoints", webhook_endpoints.index),
    ("GET", "/v1/webhook_endpoints/<key>", webhook_endpoints.retrieve),
    ("POST", "/v1/webhook_endpoints/<key>", webhook_endpoints.update),
    ("DELETE", "/v1/webhook_endpoints/<key>", webhook_endpoints.delete),
)


def make_app(account: Account) -> Flask:
    """The fake server as a WSGI application; deliveries need a `Deliverer` beside it."""
    app = Flask("controlplane.localcloud.stripe")
    faults = ApiFaults()
    app.register_blueprint(control.blueprint(account, faults))

    def before() -> ResponseReturnValue | None:
        if not request.path.startswith("/v1/"):
            return None
        g.request_id = new_id("req", 14)
        chosen = faults.take(method=request.method, path=request.path, when="before")
        return None if chosen is None else _faulty(chosen)

    def after(response: Response) -> Response:
        if "request_id" not in g:
            return response
        chosen = faults.take(method=request.method, path=request.path, when="after")
        if chosen is not None:
            response = _faulty(chosen) or response
        response.headers["Request-Id"] = g.request_id
        response.headers["Stripe-Version"] = _version(account)
        if key := request.headers.get("Idempotency-Key"):
            response.headers["Idempotency-Key"] = key
        return response

    def refused(error: StripeError) -> ResponseReturnValue:
        return error.envelope(g.get("request_id", "")), error.status

    def astray(error: HTTPException) -> ResponseReturnValue:
        return refused(no_route(request.method, request.path)) if error.code in (404, 405) else error

    app.before_request(before)
    app.after_request(after)
    app.register_error_handler(StripeError, refused)
    app.register_error_handler(HTTPException, astray)
    for method, path, handler in ROUTES:
        app.add_url_rule(
            path,
            f"{method} {path}",
            _endpoint(account, handler),
            methods=[method],
            provide_automatic_options=False,
        )
    return app


def _endpoint(account: Account, handler: Handler) -> Callable[..., Response]:
    def answer(**path: str) -> Response:
        _authenticate(account)
        pairs = list(request.args.items(multi=True)) + list(request.form.items(multi=True))
        values = parse(pairs)
        idempotency = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        with account.answering(Request(g.request_id, idempotency)):
            kept = _replay(account, idempotency, pairs)
            if kept is not None:
                body, replayed = kept, True
            else:
                params = Params(values)
                paths = params.strings("expand") or []
                found = handler(account, params, **path)
                body, replayed = json.loads(json.dumps(found)), False
                expand(account, body, paths)
                body = versions.render(body, _version(account))
                _remember(account, idempotency, pairs, body)
        response = Response(json.dumps(body, indent=2), mimetype="application/json")
        if replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    return answer


def _authenticate(account: Account) -> None:
    given = request.authorization
    key = given.token or given.username if given is not None else None
    if not key:
        raise unauthorised(
            "You did not provide an API key. You need to provide your API key in the Authorization header, "
            "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        )
    expected = account.settings.api_key
    fits = key == expected if expected is not None else key.startswith(("sk_test_", "rk_test_"))
    if not fits:
        tail = key[-4:] if key.startswith("sk_test_") and len(key) > 20 else ""
        raise unauthorised(f"Invalid API Key provided: {'*' * 12}{tail}")


def _version(account: Account) -> str:
    wanted = request.headers.get("Stripe-Version", "")
    if wanted and not versions.VERSION.match(wanted):
        raise StripeError(f"Invalid Stripe API version: {wanted[:40]}")
    return wanted or account.settings.api_version


def _faulty(chosen: ApiFault) -> Response | None:
    """Wait, then answer with the fault's status; None where it only delays."""
    time.sleep(chosen.delay_seconds)
    if chosen.status is None:
        return None
    body = json.dumps(fault(chosen.status).envelope(g.request_id))
    response = Response(body, status=chosen.status, mimetype="application/json")
    if chosen.retry_after is not None:
        response.headers["Retry-After"] = f"{chosen.retry_after:g}"
    return response


def _digest(pairs: list[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps([request.path, sorted(pairs)]).encode()).hexdigest()


def _replay(account: Account, key: str | None, pairs: list[tuple[str, str]]) -> Any | None:
    """The answer that this idempotency key got before."""
    kept = account.store.get("idempotency", key) if key else None
    if kept is None:
        return None
    if kept["digest"] != _digest(pairs):
        raise StripeError(
            "Keys for idempotent requests can only be used with the same parameters they were first "
            "used with.",
            kind="idempotency_error",
        )
    return kept["body"]


def _remember(account: Account, key: str | None, pairs: list[tuple[str, str]], body: Any) -> None:
    if key:
        now = account.clock.now()
        account.store.prune("idempotency", before=now - DAY)
        account.store.put("idempotency", key, {"digest": _digest(pairs), "body": body}, created=now)
