"""The acts that a clone has beside those of any tenant: to be placed, and to get the rows of its source."""

from __future__ import annotations

from controlplane.domain.errors import NeedsHuman, Pending
from controlplane.domain.steps import StepName
from controlplane.services import tenants
from controlplane.store import audit, tenant
from controlplane.workers.engine.record import endpoint_of, load_tenant
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.providers.ports import Home, MoveRun
from controlplane.workers.steps.registry import tenant_step

RUNBOOK = "clone"


@tenant_step(
    StepName.PLACE_TENANT,
    "finds a clone a free slot, or records a new cluster",
    again="a second observation finds the placement",
)
def place_tenant(work: TenantWork) -> None:
    with work.recording() as conn:
        row = tenant.get(conn, work.record.row.id, lock=True)
        plan = work.ctx.catalogue.plan(row.spec.plan)
        tenants.place(conn, row.id, plan, actor=work.job.actor)


@tenant_step(
    StepName.COPY_SOURCE,
    "every row of the source in one snapshot and one transaction, before the clone is served",
    again="rows that are not recorded as copied are copied anew",
    long=True,
)
def copy_source(work: TenantWork) -> None:
    """Before it is served: whoever finds a clone whose rows are not recorded as copied copies them anew."""
    run = MoveRun(fencing_token=work.job.fencing_token, stopped=work.hold.lost)
    copied = work.ctx.providers.moves.clone(_source(work), Home(work.at, work.placement), run)
    with work.recording() as conn:
        tenant.mark_cloned(conn, work.record.row.id)
        message = f"{copied.summary}, compared: the same"
        work.note(conn, kind="copied", action="clone", message=message, seconds=copied.seconds)
        audit.append(
            conn,
            actor=work.job.actor,
            action="tenant.cloned",
            resource=work.record.row.id,
            detail={"of": work.record.row.clone_of, "rows": copied.rows},
        )


def _source(work: TenantWork) -> Home:
    clone_of = work.record.row.clone_of
    record = None if clone_of is None else load_tenant(work.ctx, clone_of)
    if record is None or record.placement is None or record.cluster is None:
        raise NeedsHuman(f"{clone_of} has no database to clone any more", runbook=RUNBOOK)
    at = endpoint_of(record.cluster)
    if at is None:
        raise Pending("the source's cluster has no endpoint", after=work.ctx.platform.cluster_poll)
    return Home(at, record.placement)
