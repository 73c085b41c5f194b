"""Writes a deletion certificate: what there was, by whose word it went, what is left of it and until when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controlplane import certificate
from controlplane.store import data_copy
from controlplane.store.data_copy import Backup, CopyRow
from controlplane.store.purge import PurgeRow
from controlplane.store.tenant import TenantRow
from controlplane.workers.engine.context import Context

REMAINS = (
    "the registry's row of the tenant: id, slug and customer number, so that neither id nor slug is given"
    " to anybody else",
    "the audit trail and, for 90 days, the log of the operations",
    "what Stripe keeps of the subscription, which is Stripe's",
)


def certificate_of(
    ctx: Context,
    row: TenantRow,
    purged: PurgeRow,
    deletion_proof: list[dict[str, Any]],
) -> dict[str, Any]:
    """Signed where the worker has a key for it."""
    with ctx.registry.connection() as conn:
        copies = data_copy.kept_of_tenant(conn, row.id)
        backups = data_copy.backups_of(conn, row.id)
    document = {
        "type": "deletion-certificate",
        "version": 1,
        "issuer": {"environment": ctx.platform.environment, "zone": ctx.platform.zone},
        "issued_at": _moment(datetime.now(UTC)),
        "tenant": {"id": row.id, "slug": row.slug, "customer": row.customer_id},
        "existed": {
            "created_at": _moment(row.created_at),
            "ready_at": _moment(row.ready_at),
            "closed_at": _moment(row.closed_at),
            "retention_until": _moment(row.purge_after),
        },
        "deleted": {"content": purged.content, "begun_at": _moment(purged.begun_at)},
        "order": {
            "purge": purged.id,
            "reason": purged.reason,
            "digest": purged.digest,
            "requested_by": purged.requested_by,
            "requested_at": _moment(purged.requested_at),
            "approved_by": purged.approved_by,
            "approved_at": _moment(purged.approved_at),
        },
        "deletion_proof": [{k: v for k, v in line.items() if k != "left"} for line in deletion_proof],
        "kept": [*(_kept(copy) for copy in copies), *(_backup(backup) for backup in backups)],
        "remains": list(REMAINS),
    }
    return certificate.issue(document, ctx.certificate_key)


def _kept(copy: CopyRow) -> dict[str, Any]:
    manifest = copy.manifest or {}
    return {
        "kind": copy.kind,
        "name": copy.name,
        "sha256": manifest.get("sha256"),
        "rows": manifest.get("tables"),
        "until": _moment(copy.kept_until),
    }


def _backup(backup: Backup) -> dict[str, Any]:
    return {
        "kind": backup.kind,
        "name": backup.name,
        "sha256": None,
        "rows": None,
        "until": _moment(backup.until),
    }


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds")
