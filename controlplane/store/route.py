"""Routes: what each host should serve, and since which epoch.

The epoch comes from one sequence over all tenants. It is drawn when the payload changes, before the
cache is written, and stays when the same payload is written again; so of two entries for one host the
newer is known, whoever writes last, and even when the host has gone from one tenant to another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict
from controlplane.store.registry import Connection, one

EPOCH_STEP = 1_000_000
"""How far beyond the sequence an epoch in the cache may be and still be honest, of a registry restored
from a backup: ten changes of each of 100,000 hosts. `dataplane.tenant_config` has the same number."""


def decide(conn: Connection, host: str, tenant_id: str, payload: Mapping[str, Any]) -> int:
    """Record the payload (without epoch) and return its epoch, a new one only if it changed. It is drawn with
    the row locked, so a host's epochs only rise.

    Raises Conflict where the host is another tenant's and not given up (its payload is not "gone").
    """
    row = conn.execute(
        "INSERT INTO route AS r (host, tenant_id, payload, epoch)"
        " VALUES (%(host)s, %(tenant)s, %(payload)s, nextval('epoch'))"
        " ON CONFLICT (host) DO UPDATE SET tenant_id = excluded.tenant_id, payload = excluded.payload,"
        "   decided_at = clock_timestamp(),"
        "   epoch = CASE WHEN r.payload = excluded.payload AND r.tenant_id = excluded.tenant_id"
        "                THEN r.epoch ELSE nextval('epoch') END"
        " WHERE r.tenant_id = excluded.tenant_id OR r.payload->>'status' = 'gone'"
        " RETURNING epoch",
        {"host": host, "tenant": tenant_id, "payload": Jsonb(dict(payload))},
    ).fetchone()
    if row is None:
        raise Conflict(f"host {host} is routed to another tenant")
    return int(row["epoch"])


def find(conn: Connection, host: str, *, lock: bool = False) -> tuple[dict[str, Any], int] | None:
    """(payload, epoch)."""
    wanted = SQL("SELECT payload, epoch FROM route WHERE host = %s {}").format(SQL("FOR UPDATE" * lock))
    row = conn.execute(wanted, [host]).fetchone()
    return None if row is None else (row["payload"], row["epoch"])


def get(conn: Connection, host: str, *, lock: bool = False) -> tuple[dict[str, Any], int]:
    """As `find`. Raises NotFound."""
    return one(find(conn, host, lock=lock), f"the route of host {host}")


def draw(conn: Connection) -> int:
    """A new epoch, for a tombstone of a host that has no row."""
    return int(one(conn.execute("SELECT nextval('epoch') AS epoch").fetchone())["epoch"])


def newest_epoch(conn: Connection) -> int:
    """The last that was drawn, over all tenants."""
    return int(one(conn.execute("SELECT last_value FROM epoch").fetchone())["last_value"])


def of_tenant(conn: Connection, tenant_id: str) -> dict[str, tuple[dict[str, Any], int]]:
    """host → (payload, epoch)."""
    rows = conn.execute(
        "SELECT host, payload, epoch FROM route WHERE tenant_id = %s ORDER BY host", [tenant_id]
    )
    return {row["host"]: (row["payload"], row["epoch"]) for row in rows}


def all_routes(conn: Connection) -> Iterator[dict[str, Any]]:
    """Every payload with its epoch, streamed; without those that were given up more than a week ago,
    whose tombstones have left the cache too."""
    with conn.transaction(), conn.cursor("all_routes") as cur:
        cur.execute(
            "SELECT payload, epoch FROM route WHERE payload->>'status' <> 'gone'"
            " OR decided_at > clock_timestamp() - interval '7 days' ORDER BY host"
        )
        for row in cur:
            yield {**row["payload"], "epoch": row["epoch"]}


def redraw(conn: Connection, host: str, *, beyond: int) -> int:
    """A new epoch for the host, above `beyond`: for a registry that was restored from a backup and
    finds entries in the cache that are newer than its own sequence.

    `beyond` comes from outside, and the sequence is that of all tenants: raises Conflict where it is more
    than EPOCH_STEP beyond the sequence.
    """
    newest = newest_epoch(conn)
    if beyond > newest + EPOCH_STEP:
        raise Conflict(
            f"epoch {beyond} of {host}: expected at most {newest + EPOCH_STEP}, {EPOCH_STEP} beyond the last"
            " that was drawn; it is forged, overwrite it"
        )
    if beyond > newest:
        conn.execute("SELECT setval('epoch', %s)", [beyond])
    row = conn.execute(
        "UPDATE route SET epoch = nextval('epoch') WHERE host = %s RETURNING epoch", [host]
    ).fetchone()
    return int(one(row)["epoch"])
