"""Rehearse a release: migrate copies of the most divergent tenants and say what it took.

A copy that can't be made because its original is in use is passed over for the next one of its kind. A
migration that fails on a copy is a result and no failure of the rehearsal: that is what it is for.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from controlplane import task_names
from controlplane.domain.errors import ControlPlaneError, Retryable
from controlplane.domain.placement import Placement
from controlplane.domain.release import MigrationFailed, Release
from controlplane.domain.rollout import Spec
from controlplane.store import rehearsal, release
from controlplane.store.rehearsal import CandidateRow
from controlplane.workers.engine.context import Context
from controlplane.workers.providers.ports import Bounds, ClusterEndpoint

log = logging.getLogger(__name__)

TASK = task_names.REHEARSE
HOLD = 3600.0  # seconds for one copy
ATTEMPTS = 3
TRIED_AT_MOST = 5  # for each copy that was asked for


def work(ctx: Context) -> int | None:
    """Carry out a rehearsal that is due; its id, None where there is none. Raises LeaseLost where another
    worker has taken it meanwhile."""
    with ctx.registry.connection() as conn:
        row = rehearsal.take(conn, holder=ctx.holder, seconds=HOLD)
        if row is None:
            return None
        wanted = release.load(conn, row.release)
        candidates = rehearsal.candidates(conn, row.release)
    if row.attempts > ATTEMPTS:
        _finish(ctx, row.id, f"given up after {ATTEMPTS} attempts that did not end")
        return row.id
    migrated = 0
    for candidate in candidates[: row.copies * TRIED_AT_MOST]:
        if migrated == row.copies:
            break
        result = _rehearse(ctx, candidate, wanted)
        migrated += not result["busy"]
        with ctx.registry.connection() as conn:
            rehearsal.add_result(conn, row.id, result, holder=ctx.holder, seconds=HOLD)
    none = "no tenant has an older release" if not candidates else "every original was in use"
    _finish(ctx, row.id, None if migrated else none)
    return row.id


def _finish(ctx: Context, rehearsal_id: int, error: str | None) -> None:
    with ctx.registry.connection() as conn:
        rehearsal.finish(conn, rehearsal_id, holder=ctx.holder, error=error)


def _rehearse(ctx: Context, candidate: CandidateRow, wanted: Release) -> dict[str, Any]:
    placed = Placement(candidate.tenant_id, candidate.number, candidate.cluster_id)
    spec = Spec()
    result: dict[str, Any] = {
        "tenant": candidate.tenant_id,
        "slug": candidate.slug,
        "from_release": candidate.release,
        "alike": candidate.alike,
        "busy": False,
        "error": None,
        "statement": None,
    }
    try:
        done = ctx.providers.databases.rehearse(
            ClusterEndpoint(**candidate.endpoint),
            ctx.providers.secrets.read(placed.migrator_secret),
            placed,
            wanted,
            Bounds(spec.lock_timeout, spec.statement_timeout),
        )
    except MigrationFailed as error:
        return result | {"error": str(error), "statement": error.statement}
    except Retryable as error:
        return result | {"error": str(error), "busy": True}
    except ControlPlaneError as error:
        return result | {"error": str(error)}
    return result | {
        "seconds": round(done.seconds, 3),
        "size": done.size,
        "files": [asdict(run) for run in done.files],
        "locks": [asdict(lock) for lock in done.locks],
    }
