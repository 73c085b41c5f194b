"""The web application: Stripe's webhook, the API, the health checks."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Flask

from controlplane.settings import WebSettings
from controlplane.store.registry import Registry
from controlplane.web import body, health, problem, request_log, stripe_webhook
from controlplane.web.api import (
    actions,
    clusters,
    contracts,
    events,
    exports,
    fleet,
    notifications,
    operations,
    pool,
    previews,
    purges,
    rehearsals,
    releases,
    rollouts,
    routes,
    schema,
    summary,
    tenants,
)
from controlplane.web.auth import Guard
from controlplane.web.edge import Edge, Notify, Sign


def create_app(
    registry: Registry,
    settings: WebSettings,
    notify: Notify,
    sign: Sign,
    *,
    clock: Callable[[], float] = time.time,
) -> Flask:
    """`notify` never raises and holds nobody up. `sign` makes
    the entry of `/v1/resolve`. `clock`: seconds since 1970."""
    app = Flask("controlplane", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = body.READ_LIMIT
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # it would redirect to the host that the client has named
    edge = Edge(
        registry=registry,
        guard=Guard(settings.api_tokens, notify),
        notify=notify,
        sign=sign,
        clock=clock,
        zone=settings.platform_zone,
    )
    request_log.install(app)
    problem.install(app)
    app.register_blueprint(health.blueprint(edge))
    app.register_blueprint(stripe_webhook.blueprint(edge, settings))
    for resource in (tenants, actions, previews, operations, events, clusters, pool):
        app.register_blueprint(resource.blueprint(edge))
    for resource in (contracts, routes, summary, purges, exports, notifications, fleet):
        app.register_blueprint(resource.blueprint(edge))
    for resource in (releases, rehearsals, rollouts, schema):
        app.register_blueprint(resource.blueprint(edge))
    return app
