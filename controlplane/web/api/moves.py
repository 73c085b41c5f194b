"""How a tenant's last move, or restore, is shown."""

from __future__ import annotations

from typing import Any

from controlplane.store.move import MoveRow
from controlplane.store.restore import RestoreRow
from controlplane.web.api import render


def rendered(row: MoveRow | None, restore: RestoreRow | None) -> dict[str, Any] | None:
    """The tenant's last move. `pause_seconds`: for how long no write was taken. `restore`: what it restores,
    where it is one."""
    if row is None:
        return None
    return {
        "id": row.id,
        "kind": row.kind.value,
        "restore": _restore(restore),
        "to": row.destination,
        "phase": row.phase.value,
        "reason": row.reason,
        "actor": row.actor,
        "from_placement": row.source,
        "to_placement": row.target,
        "rows": row.copied_rows,
        "bytes": row.copied_bytes,
        "pause_seconds": None if row.pause_seconds is None else round(row.pause_seconds, 3),
        "compared": None
        if row.compared is None
        else {
            "when": row.checked,
            "tables": len(row.compared),
            "rows": sum(table["rows"] for table in row.compared),
            "differing": row.differing,
        },
        "created_at": render.moment(row.created_at),
        "moved_at": render.moment(row.moved_at),
        "source_kept_until": render.moment(row.keep_until) if row.finished_at is None else None,
        "finished_at": render.moment(row.finished_at),
    }


def _restore(row: RestoreRow | None) -> dict[str, Any] | None:
    """Of the tenant's last move, where that is a restore. `cluster`: the one that was made for it."""
    if row is None:
        return None
    return {
        "at": render.moment(row.at),
        "snapshot": row.snapshot,
        "placement": row.number,
        "cluster": row.cluster_id,
        "release": row.release,
        "opened_at": render.moment(row.opened_at),
        "copied_at": render.moment(row.copied_at),
    }
