"""What no real Stripe has: play the customer and the bank, move time, break things, look inside.

All below `/_localcloud`, without a key: the server listens on loopback only.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from controlplane.localcloud.servers.fake_http.faults import (
    ApiFaults,
    BadControl,
    number,
)
from controlplane.localcloud.stripe import (
    charges,
    checkout_visit,
    delivery_queue,
    lifecycle,
    webhook_endpoints,
)
from controlplane.localcloud.stripe.account import Account, Request
from controlplane.localcloud.stripe.clock import DAY
from controlplane.localcloud.stripe.subscription_object import STATUSES

STATES = ("pending", "held", "sending", "delivered", "failed", "dropped")
MAX_ADVANCE_SECONDS = 10 * 366 * DAY


def blueprint(account: Account, api_faults: ApiFaults) -> Blueprint:
    """The control calls of this account."""
    routes = Blueprint("control", __name__, url_prefix="/_localcloud")
    _add_faults(routes, account, api_faults)
    _add_billing(routes, account)
    _add_deliveries(routes, account)

    @routes.errorhandler(BadControl)
    def bad(error: BadControl) -> ResponseReturnValue:
        return {"error": str(error)}, 400

    @routes.get("/health")
    def health() -> ResponseReturnValue:
        answer = {"status": "ok", "service": "stripe", "events": account.store.count("event")}
        return (answer, 200) if account.failure is None else ({**answer, "status": account.failure}, 503)

    return routes


def _add_faults(routes: Blueprint, account: Account, api_faults: ApiFaults) -> None:
    @routes.get("/faults")
    def show_faults() -> ResponseReturnValue:
        return {"api": api_faults.describe(), "deliveries": account.faults.describe()}

    @routes.post("/faults")
    def set_faults() -> ResponseReturnValue:
        body = _body("api", "deliveries")
        if "api" in body:
            api_faults.set(body["api"])
        if "deliveries" in body:
            account.faults.set(body["deliveries"])
        return show_faults()

    @routes.delete("/faults")
    def clear_faults() -> ResponseReturnValue:
        api_faults.set([])
        account.faults.set({})
        return show_faults()


def _add_billing(routes: Blueprint, account: Account) -> None:
    @routes.get("/clock")
    def clock() -> ResponseReturnValue:
        return {"now": account.clock.now(), "ahead_seconds": account.clock.offset}

    @routes.post("/clock")
    def advance() -> ResponseReturnValue:
        body = _body("advance_seconds")
        seconds = number("advance_seconds", body.get("advance_seconds"), low=0, high=MAX_ADVANCE_SECONDS)
        with account.answering(Request()):
            account.advance(seconds)
            happened = lifecycle.advance(account)
            checkout_visit.expire_due(account)
        account.work.set()
        return {"now": account.clock.now(), "ahead_seconds": account.clock.offset, "happened": happened}

    @routes.post("/subscriptions/<key>/status")
    def force(key: str) -> ResponseReturnValue:
        status = _body("status").get("status")
        if status not in STATUSES:
            raise BadControl(f"status: expected one of {', '.join(STATUSES)}, got {status!r}")
        with account.answering(Request()):
            return jsonify(lifecycle.force(account, key, status))

    @routes.post("/subscriptions/<key>/dispute")
    def dispute(key: str) -> ResponseReturnValue:
        warning = _body("warning").get("warning", False)
        if not isinstance(warning, bool):
            raise BadControl(f"warning: expected true or false, got {warning!r}")
        with account.answering(Request()):
            return jsonify(charges.dispute(account, key, warning=warning))

    @routes.post("/checkout/sessions/<key>/complete")
    def complete(key: str) -> ResponseReturnValue:
        form = _body("email", "name", "card", "delayed", "custom_fields")
        with account.answering(Request()):
            return jsonify(checkout_visit.complete(account, key, form))

    @routes.post("/checkout/sessions/<key>/payment")
    def settle(key: str) -> ResponseReturnValue:
        succeeded = _body("succeeded").get("succeeded")
        if not isinstance(succeeded, bool):
            raise BadControl(f"succeeded: expected true or false, got {succeeded!r}")
        with account.answering(Request()):
            return jsonify(checkout_visit.settle(account, key, succeeded=succeeded))

    @routes.post("/webhook_endpoints/<key>/roll_secret")
    def roll(key: str) -> ResponseReturnValue:
        overlap = number(
            "overlap_seconds", _body("overlap_seconds").get("overlap_seconds", DAY), low=0, high=DAY
        )
        with account.store.transaction():
            return {"secret": webhook_endpoints.roll_secret(account, key, overlap=overlap)}


def _add_deliveries(routes: Blueprint, account: Account) -> None:
    @routes.get("/deliveries")
    def deliveries() -> ResponseReturnValue:
        found = list(account.store.oldest(delivery_queue.KIND))
        for name in ("state", "event", "endpoint"):
            wanted = request.args.get(name)
            found = [item for item in found if wanted in (None, item[name])]
        return {"data": found}

    @routes.get("/deliveries/counts")
    def counts() -> ResponseReturnValue:
        known = account.store.tally(delivery_queue.KIND, "state")
        return {state: known.get(state, 0) for state in STATES}

    @routes.post("/deliveries/release")
    def release() -> ResponseReturnValue:
        seed = _body("seed").get("seed")
        if seed is not None:
            seed = int(number("seed", seed, low=0, high=2**31))
        with account.store.transaction():
            return {"released": delivery_queue.release(account, seed=seed)}

    @routes.post("/events/<key>/resend")
    def resend(key: str) -> ResponseReturnValue:
        with account.store.transaction():
            account.find("event", key)
            endpoints = list(account.store.oldest("webhook_endpoint"))
            for endpoint in endpoints:
                delivery_queue.add(account, key, endpoint["id"], state="pending", copy=1)
        return {"queued": len(endpoints)}


def _body(*known: str) -> dict[str, Any]:
    body = request.get_json(silent=True, force=True) if request.data else {}
    if not isinstance(body, dict):
        raise BadControl("body: expected a JSON object")
    if unknown := sorted(set(body) - set(known)):
        raise BadControl(f"{unknown[0]}: unknown, expected one of {', '.join(known)}")
    return body
