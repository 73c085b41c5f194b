"""The HTTP side: token, envelope, limits, fault switches, and the routes."""

from __future__ import annotations

import secrets
import time
from typing import Any

from flask import Flask, Response, g, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from controlplane.localcloud.cloudflare import control, fallback_origin, hostnames
from controlplane.localcloud.cloudflare.errors import CODES, CloudflareError, failure, success
from controlplane.localcloud.cloudflare.limiter import Limiter
from controlplane.localcloud.cloudflare.zone import Zone
from controlplane.localcloud.servers.fake_http.faults import ApiFault, ApiFaults

PREFIX = "/client/v4"
BASE = f"{PREFIX}/zones/<zone_id>/custom_hostnames"


def make_app(zone: Zone) -> Flask:
    """The fake server as a WSGI application. SDKs are pointed at `<url>/client/v4`."""
    app = Flask("controlplane.localcloud.cloudflare")
    faults = ApiFaults()
    limiter = Limiter(zone.limits)
    app.register_blueprint(control.blueprint(zone, faults, limiter))
    _add_guards(app, zone, faults, limiter)
    _add_hostnames(app, zone)
    _add_zone_settings(app, zone)
    return app


def _add_guards(app: Flask, zone: Zone, faults: ApiFaults, limiter: Limiter) -> None:
    def before() -> ResponseReturnValue | None:
        if not request.path.startswith(PREFIX):
            return None
        g.standing = limiter.count()
        if g.standing.retry_after is not None:
            raise CloudflareError(10100)
        chosen = faults.take(method=request.method, path=request.path, when="before")
        answer = None if chosen is None else _faulty(chosen)
        if answer is not None:
            return answer
        _authenticate(zone)
        with zone.lock:
            unsuccessful, zone.unsuccessful = zone.unsuccessful > 0, max(0, zone.unsuccessful - 1)
        return failure(1500, CODES[1500][1]) if unsuccessful else None

    def after(response: Response) -> Response:
        if "standing" not in g:
            return response
        chosen = faults.take(method=request.method, path=request.path, when="after")
        if chosen is not None:
            response = _faulty(chosen) or response
        for name, value in g.standing.headers().items():
            response.headers.setdefault(name, value)
        response.headers["cf-ray"] = f"{secrets.token_hex(8)}-LOC"
        return response

    def refused(error: CloudflareError) -> ResponseReturnValue:
        return failure(error.code, str(error)), error.status

    def astray(error: HTTPException) -> ResponseReturnValue:
        return refused(CloudflareError(7003)) if error.code in (404, 405) else error

    app.before_request(before)
    app.after_request(after)
    app.register_error_handler(CloudflareError, refused)
    app.register_error_handler(HTTPException, astray)


def _add_hostnames(app: Flask, zone: Zone) -> None:
    @app.post(BASE)
    def create(zone_id: str) -> ResponseReturnValue:
        _own(zone, zone_id)
        with zone.answering():
            return jsonify(success(hostnames.create(zone, _body()))), 201

    @app.get(BASE)
    def index(zone_id: str) -> ResponseReturnValue:
        _own(zone, zone_id)
        with zone.answering():
            page, info = hostnames.index(zone, request.args)
        return jsonify(success(page, result_info=info))

    @app.get(f"{BASE}/<key>")
    def retrieve(zone_id: str, key: str) -> ResponseReturnValue:
        _own(zone, zone_id)
        return jsonify(success(hostnames.retrieve(zone, key)))

    @app.patch(f"{BASE}/<key>")
    def edit(zone_id: str, key: str) -> ResponseReturnValue:
        _own(zone, zone_id)
        with zone.answering():
            return jsonify(success(hostnames.edit(zone, key, _body()))), 202

    @app.delete(f"{BASE}/<key>")
    def delete(zone_id: str, key: str) -> ResponseReturnValue:
        """The one answer without an envelope."""
        _own(zone, zone_id)
        with zone.answering():
            return jsonify(hostnames.delete(zone, key))


def _add_zone_settings(app: Flask, zone: Zone) -> None:
    @app.get(f"{BASE}/quota")
    def quota(zone_id: str) -> ResponseReturnValue:
        _own(zone, zone_id)
        used = zone.store.count(hostnames.KIND)
        found = {
            "allocated": zone.quota,
            "hard_cap": zone.quota,
            "used": used,
            "exceeded": used > zone.quota,
        }
        return jsonify(success(found))

    @app.get(f"{BASE}/fallback_origin")
    def show(zone_id: str) -> ResponseReturnValue:
        _own(zone, zone_id)
        return jsonify(success(fallback_origin.retrieve(zone)))

    @app.put(f"{BASE}/fallback_origin")
    def put(zone_id: str) -> ResponseReturnValue:
        _own(zone, zone_id)
        with zone.answering():
            return jsonify(success(fallback_origin.update(zone, _body())))

    @app.delete(f"{BASE}/fallback_origin")
    def remove(zone_id: str) -> ResponseReturnValue:
        _own(zone, zone_id)
        with zone.answering():
            return jsonify(success(fallback_origin.delete(zone)))


def _authenticate(zone: Zone) -> None:
    given = request.authorization
    if given is None:
        raise CloudflareError(1403)
    if given.type != "bearer" or not secrets.compare_digest(
        (given.token or "").encode(), zone.token.encode()
    ):
        raise CloudflareError(10000)


def _own(zone: Zone, zone_id: str) -> None:
    if zone_id != zone.id:
        raise CloudflareError(9109)


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True, force=True)
    if not isinstance(body, dict):
        raise CloudflareError(1400)
    return body


def _faulty(chosen: ApiFault) -> Response | None:
    """Wait, then answer with the fault's status; None where it only delays."""
    time.sleep(chosen.delay_seconds)
    if chosen.status is None:
        return None
    code = 10100 if chosen.status == 429 else 1500
    response = jsonify(failure(code, CODES[code][1]))
    response.status_code = chosen.status
    if chosen.retry_after is not None:
        response.headers["retry-after"] = f"{chosen.retry_after:g}"
    return response
