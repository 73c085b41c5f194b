"""Custom hostnames: create, list, get, edit, delete."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.localcloud.cloudflare import checks, fallback_origin
from controlplane.localcloud.cloudflare.errors import CloudflareError
from controlplane.localcloud.cloudflare.progress import shown
from controlplane.localcloud.cloudflare.zone import Zone
from controlplane.localcloud.servers.fake_http.store import Object

KIND, HOST = "hostname", "host"
# The API's description calls identifiers 32 characters long, the `id` filter 36; real ones are UUIDs.
IDENTIFIER = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
HOST_FILTERS: dict[str, Callable[[str, str], bool]] = {
    "hostname": lambda host, wanted: host == wanted,
    "hostname.exact": lambda host, wanted: host == wanted,
    "hostname.contain": lambda host, wanted: wanted in host,
    "hostname.startsWith": lambda host, wanted: host.startswith(wanted),
}
MIN_PER_PAGE, PER_PAGE, MAX_PER_PAGE = 5, 20, 50


def create(zone: Zone, body: dict[str, Any]) -> dict[str, Any]:
    host = checks.hostname(body.get("hostname"))
    ssl = checks.ssl(body.get("ssl"))
    metadata = checks.metadata(body.get("custom_metadata"), allowed=zone.metadata)
    origin = checks.origin(body.get("custom_origin_server"), known=zone.origins)
    if zone.store.get(HOST, host) is not None:
        raise CloudflareError(1406)
    if zone.quota == 0:
        raise CloudflareError(1404)
    if zone.store.count(KIND) >= zone.quota:
        raise CloudflareError(1405)
    now = time.time()
    record: Object = {
        "id": str(uuid.uuid4()),
        "hostname": host,
        "ssl": ssl,
        "ssl_id": str(uuid.uuid4()),
        "ssl_token": secrets.token_urlsafe(32),
        "token": str(uuid.uuid4()),
        "custom_metadata": metadata,
        "custom_origin_server": origin,
        "created_at": now,
        "checked_from": now,
        "ssl_from": now,
        "stuck": False,
        "forced": {},
        "errors": [],
    }
    _save(zone, record)
    zone.store.put(HOST, host, {"id": record["id"]}, created=now)
    return view(zone, record)


def retrieve(zone: Zone, key: str) -> dict[str, Any]:
    return view(zone, find(zone, key))


def edit(zone: Zone, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """Change settings; certificate settings that stay the same ask for another validation."""
    record = find(zone, key)
    if "ssl" in body:
        ssl = checks.ssl(body["ssl"])
        _check_again(record, anew=ssl["method"] != record["ssl"]["method"])
        record["ssl"] = ssl
    if "custom_metadata" in body:
        record["custom_metadata"] = checks.metadata(body["custom_metadata"], allowed=zone.metadata)
    if "custom_origin_server" in body:
        record["custom_origin_server"] = checks.origin(body["custom_origin_server"], known=zone.origins)
    _save(zone, record)
    return view(zone, record)


def delete(zone: Zone, key: str) -> dict[str, Any]:
    record = find(zone, key)
    zone.store.delete(KIND, key)
    zone.store.delete(HOST, record["hostname"])
    return {"id": key}


def index(zone: Zone, query: Mapping[str, str]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One page of what matches, and the `result_info` that describes it."""
    number, size = (
        _integer(query, "page", 1, 1, 10**6),
        _integer(query, "per_page", PER_PAGE, MIN_PER_PAGE, MAX_PER_PAGE),
    )
    key = query.get("id")
    by_host = [name for name in HOST_FILTERS if name in query]
    if key is not None and not IDENTIFIER.match(key):
        raise CloudflareError(1435)
    if (key is not None and by_host) or len(by_host) > 1:
        raise CloudflareError(1438)

    def matches(item: dict[str, Any]) -> bool:
        return (
            key in (None, item["id"])
            and all(HOST_FILTERS[name](item["hostname"], query[name].lower()) for name in by_host)
            and query.get("hostname_status", item["status"]) == item["status"]
            and query.get("ssl_status", item["ssl"]["status"]) == item["ssl"]["status"]
            and query.get("ssl", "1") != "0"
        )

    found = [item for item in (view(zone, record) for record in zone.store.oldest(KIND)) if matches(item)]
    if query.get("order") == "ssl_status":
        found.sort(key=lambda item: str(item["ssl"]["status"]))
    if query.get("direction") == "desc":
        found.reverse()
    page = found[(number - 1) * size : number * size]
    info = {
        "page": number,
        "per_page": size,
        "count": len(page),
        "total_count": len(found),
        "total_pages": -(-len(found) // size),
    }
    return page, info


def find(zone: Zone, key: str) -> Object:
    """Raises CloudflareError 1435 for what is no id, 1436 where there is none."""
    if not IDENTIFIER.match(key):
        raise CloudflareError(1435)
    record = zone.store.get(KIND, key)
    if record is None:
        raise CloudflareError(1436)
    return record


def find_host(zone: Zone, host: str) -> Object:
    """Raises CloudflareError 1436."""
    kept = zone.store.get(HOST, host.lower())
    if kept is None:
        raise CloudflareError(1436)
    return find(zone, kept["id"])


def force(zone: Zone, host: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Stop a hostname's validation (`stuck`), fix its statuses, or set the errors it shows."""
    record = find_host(zone, host)
    record["stuck"] = wanted.get("stuck", record["stuck"])
    record["errors"] = wanted.get("errors", record["errors"])
    for name in ("status", "ssl_status"):
        if name in wanted:
            record["forced"][name] = wanted[name]
    if wanted.get("stuck") is False:
        _check_again(record, anew=True)
    _save(zone, record)
    return view(zone, record)


def view(zone: Zone, record: Object) -> dict[str, Any]:
    return shown(record, now=time.time(), timings=zone.timings, fallback=fallback_origin.in_service(zone))


def _check_again(record: Object, *, anew: bool) -> None:
    """Another validation: what had failed or timed out starts over; `anew` so does the certificate."""
    now = time.time()
    failed = bool(record["forced"])
    record["forced"] = {}
    if failed or anew:
        record.update(ssl_from=now, ssl_token=secrets.token_urlsafe(32))
    if failed:
        record["checked_from"] = now


def _save(zone: Zone, record: Object) -> None:
    zone.store.put(KIND, record["id"], record, created=record["created_at"])


def _integer(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name, str(default))
    if not re.fullmatch(r"\d{1,7}", text) or not low <= int(text) <= high:
        raise CloudflareError(1400, f"{name}: expected {low} to {high}.")
    return int(text)
