"""The record: all that the registry knows of a tenant or a cluster, by one statement.

The engine reads it before every step, so what stands in it is of one moment, and a change of mind takes
effect at the next step. What tables and columns are for stands with each noun's own file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controlplane.domain.placement import Placement
from controlplane.domain.status import HostnameStatus
from controlplane.store.cluster import ClusterRow
from controlplane.store.contract import LIVE_OF_TENANT
from controlplane.store.data_copy import NEEDED, CopyRow
from controlplane.store.placement import Login
from controlplane.store.purge import PurgeRow
from controlplane.store.registry import Connection, Together, one
from controlplane.store.stack import StackRow
from controlplane.store.tenant import REDIRECTS, RETENTION_LEFT, TenantRow
from controlplane.store.transfer import TransferRow


@dataclass(frozen=True, slots=True)
class Around:
    """What is counted, listed or measured. `routed`: the hosts that were ever routed to it, with the status
    decided last. `releasing`: the secret of a placement that it has left is still there. Seconds:
    `next_poll` of its hostnames, `retention_left` of a closed tenant, `copy_left` of what its purge keeps,
    `redirects` of each former slug. `live`: of a closed tenant, its contracts that have not ended."""

    routed: dict[str, str] = field(
        metadata={
            "sql": "(SELECT coalesce(jsonb_object_agg(host, payload->>'status'), '{}') FROM route"
            " WHERE tenant_id = t.id)"
        }
    )
    hostnames: tuple[HostnameStatus, ...] = field(
        metadata={
            "sql": "(SELECT coalesce(jsonb_agg(jsonb_build_object('host', host, 'id', provider_id,"
            " 'status', status, 'ssl_status', ssl_status, 'poll_due', next_poll_at <= clock_timestamp(),"
            " 'refused', refused IS NOT NULL) ORDER BY host), '[]') FROM hostname WHERE tenant_id = t.id)",
            "read": lambda found: tuple(HostnameStatus(**host) for host in found),
        }
    )
    releasing: bool = field(
        metadata={"sql": "EXISTS (SELECT FROM placement WHERE tenant_id = t.id AND state = 'released')"}
    )
    next_poll: float | None = field(
        metadata={
            "sql": "(SELECT greatest(min(extract(epoch FROM next_poll_at - clock_timestamp())::float8), 0)"
            " FROM hostname WHERE tenant_id = t.id AND refused IS NULL"
            " AND NOT (status = 'active' AND ssl_status = 'active') HAVING count(*) > 0)"
        }
    )
    retention_left: float | None = field(metadata={"sql": RETENTION_LEFT})
    redirects: dict[str, float] = field(metadata={"sql": REDIRECTS})
    copy_left: float | None = field(
        metadata={
            "sql": "CASE WHEN copy.state = 'kept' THEN"
            " greatest(extract(epoch FROM copy.kept_until - clock_timestamp())::float8, 0) END"
        }
    )
    live: list[tuple[str, str | None]] = field(
        metadata={
            "sql": "CASE WHEN t.closed_at IS NULL THEN '[]' ELSE (SELECT coalesce(jsonb_agg("  # noqa: S608 — ours
            "  jsonb_build_object('id', c.id, 'status', c.terms->>'status')"
            f"  ORDER BY c.first_event_at, c.id), '[]') FROM contract c WHERE {LIVE_OF_TENANT}) END",
            "read": lambda found: [(one["id"], one["status"]) for one in found],
        }
    )


def _residence(alias: str, suffix: str) -> dict[str, tuple[type[Any], str]]:
    """What belongs to a placement: its cluster, that one's two stacks as they were confirmed, its login."""
    return {
        f"cluster{suffix}": (ClusterRow, f"FROM cluster WHERE id = {alias}.cluster_id"),
        f"cluster_stack{suffix}": (StackRow, f"FROM stack WHERE workspace = {alias}.cluster_id"),
        f"stack{suffix}": (StackRow, f"FROM stack WHERE workspace = 'placements/' || {alias}.cluster_id"),
        f"app{suffix}": (Login, f"FROM placement WHERE id = {alias}.id"),
    }


_OF_TENANT = Together(
    t=(TenantRow, "FROM tenant WHERE id = %(id)s"),
    home=(Placement, "FROM placement WHERE tenant_id = t.id AND state = 'current'"),
    **_residence("home", ""),
    transfer=(TransferRow, "FROM transfer WHERE tenant_id = t.id AND finished_at IS NULL"),
    last_transfer=(
        TransferRow,
        "FROM transfer WHERE tenant_id = t.id AND kind = 'move' ORDER BY id DESC LIMIT 1",
    ),
    restored=(ClusterRow, "FROM cluster WHERE id = transfer.restored_cluster"),
    there=(Placement, "FROM placement WHERE tenant_id = t.id AND state IN ('target', 'source')"),
    **_residence("there", "_there"),
    purge=(PurgeRow, "FROM purge WHERE tenant_id = t.id AND state <> 'withdrawn'"),
    leaving=(ClusterRow, "FROM cluster WHERE id = purge.content->>'cluster'"),
    copy=(CopyRow, "FROM data_copy WHERE purge_id = purge.id"),
    around=(Around, ""),
)


@dataclass(frozen=True, slots=True)
class OnCluster:
    """`snapshot`: is there one of it, a purge's or a rollout's, or one being made? `placements`: those that
    its second stack is to have; `released`: those that it is to lose, each with by whose word. `begun`: a run
    of that stack may have left something behind."""

    snapshot: bool = field(metadata={"sql": NEEDED})
    placements: list[str] = field(
        metadata={
            "sql": "ARRAY(SELECT id FROM placement WHERE cluster_id = c.id"
            " AND state NOT IN ('released', 'purged') ORDER BY id)"
        }
    )
    released: dict[str, str] = field(
        metadata={
            "sql": "(SELECT coalesce(jsonb_object_agg(id, released_by), '{}') FROM placement"
            " WHERE cluster_id = c.id AND state = 'released')"
        }
    )
    begun: bool = field(
        metadata={
            "sql": "EXISTS (SELECT FROM terraform_run WHERE ended_at IS NULL"
            " AND workspace = 'placements/' || c.id)"
        }
    )


_OF_CLUSTER = Together(
    c=(ClusterRow, "FROM cluster WHERE id = %(id)s"),
    stack=(StackRow, "FROM stack WHERE workspace = c.id"),
    second=(StackRow, "FROM stack WHERE workspace = 'placements/' || c.id"),
    placed=(OnCluster, ""),
)


def of_tenant(conn: Connection, tenant_id: str) -> dict[str, Any]:
    """By the names above. Raises NotFound."""
    return one(_OF_TENANT.fetch(conn, {"id": tenant_id}), f"tenant {tenant_id}")


def of_cluster(conn: Connection, cluster_id: str) -> dict[str, Any]:
    """`c`, `stack`, `second` (that of its placements), `placed`. Raises NotFound."""
    return one(_OF_CLUSTER.fetch(conn, {"id": cluster_id}), f"cluster {cluster_id}")
