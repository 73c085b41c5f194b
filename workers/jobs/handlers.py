"""Who does a job of which kind: the one list that every worker goes by, with a broker and without.

A kind that is added to `domain/job.py` stands here as well, and nowhere else; a test compares the two.
"""

from __future__ import annotations

from controlplane.domain.job import JobKind
from controlplane.workers.engine import converge
from controlplane.workers.engine.run import Handler, Handlers
from controlplane.workers.jobs import exports, intake, preview, rehearsals, rollouts, snapshots
from controlplane.workers.schedule import duties

HANDLERS: Handlers = {
    JobKind.INTAKE: Handler(intake.handle, intake.trouble),
    JobKind.TENANT: Handler(converge.converge_tenant, converge.trouble),
    JobKind.CLUSTER: Handler(converge.converge_cluster, converge.trouble),
    JobKind.PREVIEW: Handler(preview.work_out, preview.trouble),
    JobKind.EXPORT: Handler(exports.work, exports.trouble),
    JobKind.REHEARSAL: Handler(rehearsals.work, rehearsals.trouble),
    JobKind.ROLLOUT: Handler(rollouts.handle),
    JobKind.MEMBER: rollouts.MEMBER,
    JobKind.SNAPSHOT: Handler(snapshots.work),
    **{kind: Handler(duties.handler(kind)) for kind in duties.DUTIES},
}
