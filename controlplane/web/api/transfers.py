"""How a tenant's last transfer is shown."""

from __future__ import annotations

from typing import Any

from controlplane.domain.transfer import TransferKind
from controlplane.store.transfer import TransferRow
from controlplane.web.api import render


def rendered(row: TransferRow | None) -> dict[str, Any] | None:
    """The tenant's last transfer. `pause_seconds`: for how long no write was taken. `restore`: what it brings
    back, where it does, and `cluster`, which was made for that."""
    if row is None:
        return None
    return {
        "id": row.id,
        "kind": row.kind.value,
        "to": row.destination,
        "phase": row.phase.value,
        "reason": row.reason,
        "actor": row.actor,
        "from_placement": row.source,
        "to_placement": row.target,
        "restore": None
        if row.kind is not TransferKind.RESTORE
        else {
            "at": render.moment(row.at),
            "snapshot": row.snapshot,
            "placement": row.lived_on,
            "cluster": row.restored_cluster,
            "release": row.release,
            "opened_at": render.moment(row.opened_at),
        },
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
        "copied_at": render.moment(row.copied_at),
        "cut_at": render.moment(row.cut_at),
        "source_kept_until": render.moment(row.keep_until) if row.finished_at is None else None,
        "finished_at": render.moment(row.finished_at),
    }
