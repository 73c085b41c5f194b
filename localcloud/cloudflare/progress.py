"""What time does to a custom hostname: two states that move on their own, and records that come late.

    status      pending ───────────────────────────▶ active
    ssl.status  initializing ▶ pending_validation ▶ pending_issuance ▶ pending_deployment ▶ active

Pure: the stored hostname and the time in, the hostname as the API shows it out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controlplane.localcloud.cloudflare.zone import Timings
from controlplane.localcloud.servers.fake_http.store import Object

# Shares of the time between the records' appearance and the certificate.
VALIDATED, ISSUED = 0.6, 0.8
NO_FALLBACK = "Zone does not have a fallback origin set."
NOT_OWNED = (
    "None of the A or AAAA records are owned by this account and the pre-generated ownership "
    "verification token was not found."
)
HOSTNAME_STATUSES = (
    "active",
    "pending",
    "active_redeploying",
    "moved",
    "pending_deletion",
    "deleted",
    "pending_blocked",
    "pending_migration",
    "pending_provisioned",
    "provisioned",
    "blocked",
)
SSL_STATUSES = (
    "initializing",
    "pending_validation",
    "deleted",
    "pending_issuance",
    "pending_deployment",
    "pending_deletion",
    "pending_expiration",
    "expired",
    "active",
    "initializing_timed_out",
    "validation_timed_out",
    "issuance_timed_out",
    "deployment_timed_out",
    "deletion_timed_out",
)


def status(record: Object, *, now: float, timings: Timings, fallback: bool) -> str:
    """The hostname's status; `fallback`: does the zone have a fallback origin in service?"""
    forced: str | None = record["forced"].get("status")
    if forced is not None:
        return forced
    proven = not record["stuck"] and now - record["checked_from"] >= timings.ownership
    return "active" if proven and fallback else "pending"


def ssl_status(record: Object, *, now: float, timings: Timings) -> str:
    forced: str | None = record["forced"].get("ssl_status")
    if forced is not None:
        return forced
    waited = now - record["ssl_from"]
    if waited < timings.records:
        return "initializing"
    share = (waited - timings.records) / max(timings.certificate - timings.records, 1e-9)
    if record["stuck"] or share < VALIDATED:
        return "pending_validation"
    if share < 1:
        return "pending_issuance" if share < ISSUED else "pending_deployment"
    return "active"


def shown(record: Object, *, now: float, timings: Timings, fallback: bool) -> dict[str, Any]:
    """The custom hostname as the API answers it."""
    state = status(record, now=now, timings=timings, fallback=fallback)
    certificate = ssl_status(record, now=now, timings=timings)
    host, token = record["hostname"], record["token"]
    ssl = {
        **record["ssl"],
        "id": record["ssl_id"],
        "status": certificate,
    }
    if certificate in ("pending_validation", "validation_timed_out"):
        ssl["validation_records"] = [_validation_record(record)]
        if record["stuck"] and record["errors"]:
            ssl["validation_errors"] = [{"message": message} for message in record["errors"]]
    answer: dict[str, Any] = {
        "id": record["id"],
        "hostname": host,
        "ssl": ssl,
        "status": state,
        "created_at": stamp(record["created_at"]),
    }
    for key in ("custom_metadata", "custom_origin_server"):
        if record[key] is not None:
            answer[key] = record[key]
    if state != "active":
        answer["ownership_verification"] = {
            "type": "txt",
            "name": f"_cf-custom-hostname.{host}",
            "value": token,
        }
        answer["ownership_verification_http"] = {
            "http_url": f"http://{host}/.well-known/cf-custom-hostname-challenge/{record['id']}",
            "http_body": token,
        }
        errors = record["errors"] or ([NOT_OWNED] if record["stuck"] else [])
        errors = errors if fallback else [NO_FALLBACK, *errors]
        if errors:
            answer["verification_errors"] = errors
    return answer


def stamp(moment: float) -> str:
    """RFC 3339, as the API writes times."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def _validation_record(record: Object) -> dict[str, Any]:
    host, token = record["hostname"], record["ssl_token"]
    if record["ssl"]["method"] == "txt":
        return {"txt_name": f"_acme-challenge.{host}", "txt_value": token, "status": "pending"}
    if record["ssl"]["method"] == "http":
        return {
            "http_url": f"http://{host}/.well-known/acme-challenge/{token}",
            "http_body": token,
            "status": "pending",
        }
    return {"emails": [f"{box}@{host}" for box in ("administrator", "webmaster")], "status": "pending"}
