"""Stripe's webhook: verified, stored, notified, answered; nothing is decided here.

The insert is durable before the 200, so what Stripe was answered is received is received (I1). A
registry that is down answers 503 and Stripe delivers again. What Stripe has signed and nobody can
use is kept and answered 200 as well, or it would come back for three days.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request

from controlplane.domain.job import Lane
from controlplane.services import billing
from controlplane.settings import WebSettings
from controlplane.web import body
from controlplane.web.edge import Edge
from controlplane.web.problem import problem
from controlplane.web.signature import BadSignature, Malformed, verify_stripe


def blueprint(edge: Edge, settings: WebSettings) -> Blueprint:
    views = Blueprint("webhooks", __name__, url_prefix="/webhooks")
    secrets, livemode = tuple(settings.stripe_webhook_secrets), settings.stripe_livemode
    account = settings.stripe_account

    @views.post("/stripe")
    def stripe() -> Response:
        raw = body.read()
        try:
            event = verify_stripe(raw, request.headers.get("Stripe-Signature"), secrets, edge.clock())
            _check_version(event)
        except BadSignature as error:
            return problem(400, "bad_signature", str(error))
        except Malformed as error:
            return _keep(edge, raw, error)
        with edge.registry.connection() as conn:
            recorded = billing.record_event(conn, event, raw, livemode=livemode, account=account)
        if recorded.due:
            edge.notify(Lane.QUICK)
        return jsonify({"event": recorded.event_id, "new": recorded.new})

    return views


def _check_version(event: Mapping[str, Any]) -> None:
    if not isinstance(event.get("api_version"), str | None):
        raise Malformed("api_version: expected text or null", event_id=event["id"])


def _keep(edge: Edge, raw: bytes, why: Malformed) -> Response:
    """Under a name made from its bytes: an id that a body which can't be trusted claims could be
    another event's, which would then count as received already."""
    name = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    reason = str(why) if why.event_id is None else f"{why} (event {why.event_id})"
    with edge.registry.connection() as conn:
        billing.keep_body(conn, name, raw, reason=reason)
    return jsonify({"event": name, "parked": reason})
