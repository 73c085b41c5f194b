"""How full clusters are."""

from __future__ import annotations

from controlplane.store.registry import Connection


def used_slots(conn: Connection, cluster_ids: list[str]) -> dict[str, int]:
    """Tenants placed on each of these clusters; those without any are left out."""
    rows = conn.execute(
        "SELECT cluster_id, count(*) AS n FROM placement"
        " WHERE state IN ('current', 'target', 'source') AND cluster_id = ANY(%s) GROUP BY cluster_id",
        [cluster_ids],
    ).fetchall()
    return {row["cluster_id"]: row["n"] for row in rows}
