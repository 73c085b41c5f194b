"""The zone's fallback origin: where traffic of custom hostnames goes. Without one, none gets active."""

from __future__ import annotations

import time
from typing import Any

from controlplane.localcloud.cloudflare.errors import CloudflareError
from controlplane.localcloud.cloudflare.progress import stamp
from controlplane.localcloud.cloudflare.zone import Zone
from controlplane.localcloud.servers.fake_http.store import Object

KIND, KEY = "fallback_origin", "zone"


def retrieve(zone: Zone) -> dict[str, Any]:
    record = zone.store.get(KIND, KEY)
    if record is None:
        raise CloudflareError(1436, "The zone has no fallback origin.")
    return _view(zone, record)


def update(zone: Zone, body: dict[str, Any]) -> dict[str, Any]:
    origin = body.get("origin")
    if not isinstance(origin, str) or not 0 < len(origin) <= 255:
        raise CloudflareError(1400, "origin: expected a hostname of up to 255 characters.")
    now = time.time()
    before = zone.store.get(KIND, KEY)
    record: Object = {
        "origin": origin,
        "created_at": before["created_at"] if before else now,
        "updated_at": now,
    }
    zone.store.put(KIND, KEY, record, created=now)
    return _view(zone, record)


def delete(zone: Zone) -> dict[str, Any]:
    gone = {**retrieve(zone), "status": "pending_deletion"}
    zone.store.delete(KIND, KEY)
    return gone


def in_service(zone: Zone) -> bool:
    record = zone.store.get(KIND, KEY)
    return record is not None and _view(zone, record)["status"] == "active"


def _view(zone: Zone, record: Object) -> dict[str, Any]:
    deployed = time.time() - record["updated_at"] >= zone.timings.records
    return {
        "origin": record["origin"],
        "status": "active" if deployed else "initializing",
        "errors": [],
        "created_at": stamp(record["created_at"]),
        "updated_at": stamp(record["updated_at"]),
    }
