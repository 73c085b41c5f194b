"""What would a pass do, a move, a restore, an upgrade? The same look and plan, and Terraform's own plan, but
no act."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from controlplane.domain.catalogue import Plan
from controlplane.domain.errors import Pending, Refused, Retryable
from controlplane.domain.job import Job, Trouble
from controlplane.domain.placement import Placement
from controlplane.domain.planner.transfer import steps_of_move, steps_of_restore
from controlplane.domain.steps import Step, StepName
from controlplane.domain.transfer import RestoreRequest
from controlplane.services import transfers
from controlplane.store import cluster, preview, stack
from controlplane.store import record as store_record
from controlplane.store.preview import Requested
from controlplane.store.record import OnCluster
from controlplane.store.registry import Connection
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.converge import plan_for_tenant
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.engine.stacks import cluster_variables, placements_variables
from controlplane.workers.providers.ports import StackRun
from controlplane.workers.steps.restored_cluster import find_origin
from controlplane.workers.steps.transfer import require_followable

AGAIN, GIVE_UP = 5.0, 600.0  # seconds: until the next try, and from the request to the last


def work_out(ctx: Context, hold: Hold) -> None:
    """Work out one preview and record it."""
    with ctx.registry.connection() as conn:
        requested = preview.requested(conn, int(hold.job.subject))
        busy = preview.waits_for(conn, requested.tenant_id, requested.cluster_id)
    try:
        if busy is not None:
            raise Pending(busy, after=AGAIN)
        steps, changes = _work_out(ctx, requested)
    except Retryable as error:
        if requested.age < GIVE_UP:
            raise Pending(str(error), after=AGAIN) from error
        raise Refused(str(error)) from error
    with hold.recording() as conn:
        preview.finish(conn, requested.id, steps=steps, changes=changes)
        hold.finish(conn)


def trouble(conn: Connection, failed: Job, what: Trouble) -> None:
    if what.after is None:
        preview.fail(conn, int(failed.subject), error=what.message)


def _work_out(ctx: Context, requested: Requested) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    tenant_id, asked = requested.tenant_id, requested.transfer
    if tenant_id is None:
        return _what_if_upgraded(ctx, str(requested.cluster_id), str(requested.release))
    if asked is None:
        return _what_if(ctx, tenant_id)
    if "to" in asked:
        return _what_if_moved(ctx, tenant_id, asked["to"]), []
    return _what_if_restored(ctx, tenant_id, RestoreRequest.from_json(asked)), []


def _what_if(ctx: Context, tenant_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    record, steps = plan_for_tenant(ctx, tenant_id)
    changes: list[dict[str, Any]] = []
    placed, home = record.placement, record.cluster
    if placed is not None and home is not None and record.row.spec.lifecycle.value == "active":
        release = home.release or ctx.providers.terraform.publish().digest
        with ctx.registry.connection() as conn:
            on: OnCluster = store_record.of_cluster(conn, home.id)["placed"]
        variables = placements_variables(ctx.platform, home, on.placements)
        found = _changes(ctx, "placements", home.id, release, variables)
        changes = [change for change in found if f'"{placed.id}"' in change["address"]]
    if changes and not any(step.name is StepName.AWAIT_SECRET for step in steps):
        steps = [Step(StepName.AWAIT_SECRET, "its secret has drifted"), *steps]
    return [_rendered(step) for step in steps], changes


def _what_if_upgraded(
    ctx: Context, cluster_id: str, release: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Both its stacks."""
    with ctx.registry.connection() as conn:
        known = store_record.of_cluster(conn, cluster_id)
        [new] = stack.releases(conn, prefix=release)
    row, on = known["c"], known["placed"]
    why = f"release {'none' if row.release is None else row.release[:12]} → {release[:12]}"
    then = replace(row, release=release, declares=new.variables)
    changes = _changes(ctx, "cluster", row.id, release, cluster_variables(ctx.platform, then))
    steps = [Step(StepName.APPLY_CLUSTER_STACK, why, row.id)]
    if on.placements:
        variables = placements_variables(ctx.platform, then, on.placements)
        changes += _changes(ctx, "placements", row.id, release, variables)
        steps.append(Step(StepName.APPLY_PLACEMENTS_STACK, why, row.id))
    return [_rendered(step) for step in steps], changes


def _changes(
    ctx: Context, name: str, workspace: str, release: str, variables: dict[str, Any]
) -> list[dict[str, Any]]:
    run = StackRun(name, workspace, release, {**variables, "operation_id": "preview"})
    return [asdict(change) for change in ctx.providers.terraform.plan(run)]


def _rendered(step: Step) -> dict[str, Any]:
    return {"name": step.name, "target": step.label, "reason": step.reason}


def _what_if_moved(ctx: Context, tenant_id: str, to: str) -> list[dict[str, Any]]:
    """First what a pass would do anyhow, then the move. Raises NeedsHuman where it can't be made."""
    record, steps = plan_for_tenant(ctx, tenant_id)
    if record.plan is None or record.placement is None:
        raise Retryable(f"{tenant_id} has no plan or no placement")
    require_followable(ctx, record)
    place = _place(ctx, record.placement, record.plan, to, elsewhere=True)
    moving = steps_of_move(f"to {place}", f"its home is {record.placement.cluster_id}")
    return [_rendered(step) for step in (*steps, *moving)]


def _what_if_restored(ctx: Context, tenant_id: str, requested: RestoreRequest) -> list[dict[str, Any]]:
    """Raises NeedsHuman where AWS can't restore this."""
    record, steps = plan_for_tenant(ctx, tenant_id)
    if record.plan is None or record.placement is None or record.cluster is None:
        raise Retryable(f"{tenant_id} has no plan or no placement")
    home, origin = find_origin(ctx, tenant_id, requested)
    kind = record.cluster.spec.isolation
    with ctx.registry.connection() as conn:
        then = cluster.get(conn, home.cluster_id)
    place = _place(ctx, record.placement, record.plan, kind.value, elsewhere=False)
    source = f"{origin.cluster_id} {requested}" + (", with everybody's rows on it" if then.slots > 1 else "")
    restoring = steps_of_restore(source, f"to {place}", record.placement.id)
    return [_rendered(step) for step in (*steps, *restoring)]


def _place(ctx: Context, home: Placement, plan: Plan, requested: str, *, elsewhere: bool) -> str:
    """Where its new placement would be, in words."""
    with ctx.registry.connection() as conn, conn.transaction():
        where = transfers.find_place(conn, ctx.catalogue, plan, requested, home, elsewhere=elsewhere)
    made = f"a new {where.spec.isolation.value} cluster, which has to be made first"
    return where.cluster_id or made
