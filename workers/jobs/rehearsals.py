"""Rehearse a release: migrate copies of the most divergent tenants and say what it took.

A copy that can't be made because its original is in use is passed over for the next one of its kind. A
migration that fails on a copy is a result and no failure of the rehearsal: that is what it is for.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from controlplane.domain.errors import ControlPlaneError, Retryable
from controlplane.domain.job import Job, Trouble
from controlplane.domain.placement import Placement
from controlplane.domain.release import MigrationFailed, Release
from controlplane.domain.rollout import Spec
from controlplane.store import rehearsal, release
from controlplane.store.registry import Connection
from controlplane.store.rehearsal import CandidateRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.providers.ports import Bounds, ClusterEndpoint

TRIED_AT_MOST = 5  # for each copy that was asked for


def work(ctx: Context, hold: Hold) -> None:
    with hold.recording() as conn:
        row = rehearsal.begin(conn, int(hold.job.subject))
        wanted = release.load(conn, row.release)
        candidates = rehearsal.candidates(conn, row.release)
    migrated = 0
    for candidate in candidates[: row.copies * TRIED_AT_MOST]:
        if migrated == row.copies:
            break
        result = _rehearse(ctx, candidate, wanted)
        migrated += not result["busy"]
        with hold.recording() as conn:
            rehearsal.add_result(conn, row.id, result)
    none = "no tenant has an older release" if not candidates else "every original was in use"
    with hold.recording() as conn:
        rehearsal.finish(conn, row.id, error=None if migrated else none)


def trouble(conn: Connection, failed: Job, what: Trouble) -> None:
    if what.after is None:
        rehearsal.finish(conn, int(failed.subject), error=what.message)


def _rehearse(ctx: Context, candidate: CandidateRow, wanted: Release) -> dict[str, Any]:
    placed = Placement(candidate.placement, candidate.tenant_id, candidate.cluster_id)
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
