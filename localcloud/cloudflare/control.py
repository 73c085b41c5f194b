"""What no real Cloudflare has: break things, stop a validation, change limits, look inside.

All below `/_localcloud`, without a token: the server listens on loopback only.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from controlplane.localcloud.cloudflare import hostnames
from controlplane.localcloud.cloudflare.limiter import Limiter
from controlplane.localcloud.cloudflare.progress import HOSTNAME_STATUSES, SSL_STATUSES
from controlplane.localcloud.cloudflare.zone import Limits, Zone
from controlplane.localcloud.servers.fake_http.faults import (
    ApiFaults,
    BadControl,
    number,
)


def blueprint(zone: Zone, api_faults: ApiFaults, limiter: Limiter) -> Blueprint:
    """The control calls of this zone."""
    routes = Blueprint("control", __name__, url_prefix="/_localcloud")

    @routes.errorhandler(BadControl)
    def bad(error: BadControl) -> ResponseReturnValue:
        return {"error": str(error)}, 400

    @routes.get("/health")
    def health() -> ResponseReturnValue:
        return {"status": "ok", "service": "cloudflare", "hostnames": zone.store.count(hostnames.KIND)}

    @routes.get("/faults")
    def show_faults() -> ResponseReturnValue:
        return {"api": api_faults.describe(), "unsuccessful": zone.unsuccessful}

    @routes.post("/faults")
    def set_faults() -> ResponseReturnValue:
        body = _body("api", "unsuccessful")
        if "api" in body:
            api_faults.set(body["api"])
        if "unsuccessful" in body:
            zone.unsuccessful = int(number("unsuccessful", body["unsuccessful"], low=0, high=10**6))
        return show_faults()

    @routes.delete("/faults")
    def clear_faults() -> ResponseReturnValue:
        api_faults.set([])
        zone.unsuccessful = 0
        return show_faults()

    @routes.post("/zone")
    def set_zone() -> ResponseReturnValue:
        """`quota`, `metadata` (does the plan have it?), `rate_limit`, `rate_window`."""
        body = _body("quota", "metadata", "rate_limit", "rate_window")
        if "quota" in body:
            zone.quota = int(number("quota", body["quota"], low=0, high=10**7))
        if "metadata" in body:
            zone.metadata = _boolean("metadata", body["metadata"])
        if "rate_limit" in body or "rate_window" in body:
            now = limiter.limits
            limiter.set(
                Limits(
                    int(number("rate_limit", body.get("rate_limit", now.requests), low=1, high=10**6)),
                    number("rate_window", body.get("rate_window", now.window), low=0.1, high=3600),
                )
            )
        return {"quota": zone.quota, "metadata": zone.metadata, "rate_limit": limiter.limits.requests}

    @routes.post("/hostnames/<host>")
    def force(host: str) -> ResponseReturnValue:
        wanted = _body("stuck", "status", "ssl_status", "errors")
        if "stuck" in wanted:
            _boolean("stuck", wanted["stuck"])
        for name, allowed in (("status", HOSTNAME_STATUSES), ("ssl_status", SSL_STATUSES)):
            if name in wanted and wanted[name] not in allowed:
                raise BadControl(f"{name}: expected one of {', '.join(allowed)}, got {wanted[name]!r}")
        errors = wanted.get("errors", [])
        if not isinstance(errors, list) or not all(isinstance(item, str) for item in errors):
            raise BadControl("errors: expected a list of strings")
        with zone.answering():
            return jsonify(hostnames.force(zone, host, wanted))

    return routes


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadControl(f"{name}: expected true or false, got {value!r}")
    return value


def _body(*known: str) -> dict[str, Any]:
    body = request.get_json(silent=True, force=True)
    if not isinstance(body, dict):
        raise BadControl("body: expected a JSON object")
    if unknown := sorted(set(body) - set(known)):
        raise BadControl(f"{unknown[0]}: unknown, expected one of {', '.join(known)}")
    return body
