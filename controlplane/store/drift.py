"""The registry's own side of the drift report, read in one snapshot."""

from __future__ import annotations

from datetime import datetime

from controlplane.domain.placement import Placement
from controlplane.domain.systems import ClusterEntry, HostnameEntry, Registry, TenantEntry
from controlplane.domain.tenant import Lifecycle
from controlplane.store.registry import Connection, one


def now(conn: Connection) -> datetime:
    found: datetime = one(conn.execute("SELECT clock_timestamp() AS now").fetchone())["now"]
    return found


def read(conn: Connection, *, since: datetime) -> Registry:
    """`since`: when the reading of the other systems began; whatever was worked on from then on is busy."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        tenants = conn.execute(
            "SELECT t.id, t.spec->>'lifecycle' AS lifecycle, t.ready_at IS NOT NULL AS made,"
            " ARRAY(SELECT id FROM contract WHERE tenant_id = t.id ORDER BY id) AS contracts,"
            " t.clone_of IS NOT NULL AS internal FROM tenant t"
        ).fetchall()
        placements = conn.execute(
            "SELECT id, tenant_id, cluster_id, state FROM placement WHERE state <> 'purged'"
        ).fetchall()
        clusters = conn.execute(
            "SELECT c.id, c.ready_at IS NOT NULL AS made, c.destroyed_at IS NOT NULL AS destroyed,"
            " c.keeps_key, c.spec ? 'origin' AS restored, r.tenant_id AS restored_for,"
            " c.spec ? 'origin' AND (r.id IS NULL OR r.copied_at IS NOT NULL"
            "  OR r.phase IN ('reversible', 'confirmed', 'aborted')) AS left_over,"
            " ARRAY(SELECT change->>'address' FROM jsonb_array_elements(s.drift) AS change) AS drift"
            " FROM cluster c LEFT JOIN transfer r ON r.restored_cluster = c.id"
            " LEFT JOIN stack s ON s.workspace = c.id"
        ).fetchall()
        hostnames = conn.execute(
            "SELECT host, tenant_id, provider_id IS NOT NULL AS registered FROM hostname"
        ).fetchall()
        routes = conn.execute("SELECT host, payload, epoch FROM route").fetchall()
        busy = conn.execute(
            "SELECT DISTINCT resource_id FROM operation"
            " WHERE state IN ('waiting', 'running') OR finished_at >= %s"
            " UNION SELECT id FROM tenant WHERE generation <> observed_generation"
            " UNION SELECT unnest(ARRAY[subject, contract_id]) FROM stripe_event"
            "  WHERE state = 'received' OR handled_at >= %s",
            [since, since],
        ).fetchall()
    placed = [(row["state"], Placement(row["id"], row["tenant_id"], row["cluster_id"])) for row in placements]
    return Registry(
        tenants={
            row["id"]: TenantEntry(
                row["id"], Lifecycle(row["lifecycle"]), row["made"], tuple(row["contracts"]), row["internal"]
            )
            for row in tenants
        },
        current={found.tenant_id: found for state, found in placed if state == "current"},
        placements=[found for _, found in placed],
        clusters={row["id"]: ClusterEntry(**row | {"drift": tuple(row["drift"])}) for row in clusters},
        hostnames={row["host"]: HostnameEntry(**row) for row in hostnames},
        routes={row["host"]: {**row["payload"], "epoch": row["epoch"]} for row in routes},
        busy=frozenset(row["resource_id"] for row in busy),
    )
