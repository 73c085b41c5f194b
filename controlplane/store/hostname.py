"""Custom domains of tenants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.store.registry import Connection, select


@dataclass(frozen=True, slots=True)
class HostnameRow:
    """`records`: what the customer must put into its DNS."""

    host: str
    tenant_id: str
    provider_id: str | None
    status: str
    ssl_status: str
    records: list[dict[str, Any]]
    errors: list[str]
    refused: str | None


def want(conn: Connection, host: str, tenant_id: str) -> str:
    """Claim the host for this tenant; whose it is afterwards (another tenant's claim stands)."""
    conn.execute(
        "INSERT INTO hostname (host, tenant_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", [host, tenant_id]
    )
    row = conn.execute("SELECT tenant_id FROM hostname WHERE host = %s", [host]).fetchone()
    return tenant_id if row is None else str(row["tenant_id"])


def owner(conn: Connection, host: str) -> str | None:
    """The tenant that has this host."""
    row = conn.execute("SELECT tenant_id FROM hostname WHERE host = %s", [host]).fetchone()
    return None if row is None else str(row["tenant_id"])


def free_of_refused(conn: Connection, tenant_ids: Sequence[str]) -> dict[str, set[str]]:
    """By tenant, the custom domains that it did not get and that are nobody else's by now."""
    rows = conn.execute(
        "SELECT t.id, d->>'host' AS host FROM tenant t, jsonb_array_elements(t.refused_domains) d"
        " WHERE t.id = ANY(%s)"
        " AND NOT EXISTS (SELECT FROM hostname h WHERE h.host = d->>'host' AND h.tenant_id <> t.id)",
        [list(tenant_ids)],
    )
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["id"], set()).add(row["host"])
    return found


def of_tenant(conn: Connection, tenant_id: str) -> list[HostnameRow]:
    return select(
        conn, HostnameRow, "FROM hostname WHERE tenant_id = %s ORDER BY host", [tenant_id]
    ).fetchall()


def record(
    conn: Connection,
    host: str,
    *,
    provider_id: str,
    status: str,
    ssl_status: str,
    records: list[dict[str, Any]],
    errors: list[str],
    poll_after: float,
) -> None:
    """Record what Cloudflare says; asked again after `poll_after` seconds or a tenth of the domain's
    age, at most an hour: who has waited for a week won't notice the minute."""
    conn.execute(
        "UPDATE hostname SET provider_id = %s, status = %s, ssl_status = %s, records = %s, errors = %s,"
        " refused = NULL, next_poll_at = clock_timestamp() + least(interval '1 hour',"
        "   greatest(make_interval(secs => %s), (clock_timestamp() - created_at) / 10)) WHERE host = %s",
        [provider_id, status, ssl_status, Jsonb(records), Jsonb(errors), poll_after, host],
    )


def refuse(conn: Connection, host: str, *, reason: str) -> None:
    """Cloudflare will not take it; the tenant is not held up, the reason is shown."""
    conn.execute("UPDATE hostname SET refused = %s WHERE host = %s", [reason[:500], host])


def remove(conn: Connection, host: str) -> None:
    conn.execute("DELETE FROM hostname WHERE host = %s", [host])
