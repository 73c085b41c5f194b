"""Events: what changed, when, through which call; each is queued for every endpoint that wants it."""

from __future__ import annotations

import json
from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import delivery_queue, lists
from controlplane.localcloud.stripe.account import EVENTS_KEPT_SECONDS, Account, new_id
from controlplane.localcloud.stripe.event_types import covers
from controlplane.localcloud.stripe.params import Params

URL = "/v1/events"


def emit(account: Account, kind: str, body: Object, *, previous: dict[str, Any] | None = None) -> Object:
    """Record an event of type `kind` about `body` as it is now, and queue its deliveries."""
    data: dict[str, Any] = {"object": json.loads(json.dumps(body))}
    if previous is not None:
        data["previous_attributes"] = previous
    event: Object = {
        "id": new_id("evt"),
        "object": "event",
        "api_version": account.settings.api_version,
        "created": account.clock.stamp(),
        "data": data,
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": account.request.id, "idempotency_key": account.request.idempotency_key},
        "type": kind,
    }
    account.store.prune("event", before=account.clock.now() - EVENTS_KEPT_SECONDS)
    account.save(event)
    delivery_queue.enqueue(account, event)
    return event


def retrieve(account: Account, params: Params, key: str) -> Object:
    params.finish()
    return account.find("event", key)


def index(account: Account, params: Params) -> Object:
    """Newest first, the last 30 days; `type`, `types[]` (also `customer.*`) and `created` narrow it."""
    kind = params.string("type")
    kinds = params.strings("types") or ([kind] if kind else ["*"])
    created = params.range("created")
    return lists.page(
        account.store,
        params,
        "event",
        url=URL,
        matches=lambda event: created(event["created"]) and covers(kinds, event["type"]),
    )
