"""The engine: one loop for everything that happens to a tenant or a cluster.

    (look → plan → apply the first step → record)* → reconciled

There is no cursor. Whatever a killed worker left half done, its successor sees by looking. A pass ends
when nothing is left to do, when something outside needs time (Pending), when it failed in a way that
time may repair (Retryable), or when a person must decide (NeedsHuman). The spec is read anew before every
step, so a change of mind takes effect at the next one. A tenant's job begins in the quick lane and goes over
to the long one before the first step that may take minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from controlplane.domain.errors import ControlPlaneError, LeaseLost, NeedsHuman, Pending, Retryable
from controlplane.domain.job import PERIODIC_OBSERVATION, Job, JobKind, Lane, Trouble
from controlplane.domain.planner import TenantGoal, plan_cluster, plan_tenant
from controlplane.domain.status import ClusterStatus, TenantStatus
from controlplane.domain.steps import Step, StepState
from controlplane.domain.tenant import Lifecycle
from controlplane.store import (
    cluster,
    data_copy,
    history,
    hostname,
    job,
    restore,
    step,
    tenant,
)
from controlplane.store.registry import Connection, RegistryUnavailable
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.goal import TenantRecord, cluster_goal, tenant_goal
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.engine.observe import load_tenant, observe_cluster, observe_tenant
from controlplane.workers.engine.step_context import ClusterWork, TenantWork
from controlplane.workers.steps.registry import BOTH_PLACEMENTS, CLUSTER_ACTS, LONG, TENANT_ACTS

SAME_STEP_AT_MOST = 3


def converge_tenant(ctx: Context, hold: Hold) -> None:
    _loop(ctx, hold, _look_at_tenant)


def converge_cluster(ctx: Context, hold: Hold) -> None:
    _loop(ctx, hold, _look_at_cluster)


def trouble(conn: Connection, failed: Job, what: Trouble) -> None:
    """A person is notified where one should know."""
    if what.runbook is not None:
        attention = tenant.set_attention if failed.kind is JobKind.TENANT else cluster.set_attention
        attention(conn, failed.subject, reason=what.message, runbook=what.runbook)


Apply = Callable[[int], None]
Next = tuple[Step, Apply] | None
"""The first step that is left with the act that takes its number in the log; None when reconciled."""


def _loop(ctx: Context, hold: Hold, look: Callable[[Context, Hold], Next]) -> None:
    taken: Counter[Step] = Counter()
    while (following := look(ctx, hold)) is not None:
        next_step, act = following
        hold.check()
        if next_step.name in LONG and hold.job.lane is Lane.QUICK:
            with ctx.registry.connection() as conn:
                hold.put_back(conn, lane=Lane.LONG)
            return
        taken[next_step] += 1
        if taken[next_step] > SAME_STEP_AT_MOST:
            raise Retryable(f"{next_step.name} {next_step.target} did not take: {next_step.reason}")
        _take(hold, next_step, act)


def _take(hold: Hold, next_step: Step, act: Apply) -> None:
    with hold.recording() as conn:
        seq = step.begin(conn, hold.job, next_step)
    try:
        act(seq)
    except Pending as error:
        _end_step(hold, seq, StepState.WAITING, str(error))
        raise
    except (LeaseLost, RegistryUnavailable):
        raise
    except ControlPlaneError as error:
        _end_step(hold, seq, StepState.FAILED, str(error))
        raise
    except Exception as error:
        _end_step(hold, seq, StepState.FAILED, type(error).__name__)
        raise
    _end_step(hold, seq, StepState.DONE, None)


def _end_step(hold: Hold, seq: int, state: StepState, error: str | None) -> None:
    with hold.recording() as conn:
        step.end(conn, hold.job, seq, state, error=None if error is None else error[:1000])


# --------------------------------------------------------------------------------------- tenants


def plan_for_tenant(
    ctx: Context, tenant_id: str, *, wake: bool = True
) -> tuple[TenantRecord, TenantStatus, list[Step]]:
    """What is known, what is observed, what is left to do; changes nothing. `wake`: see `observe_tenant`."""
    record = load_tenant(ctx, tenant_id)
    status = observe_tenant(ctx, record, wake=wake)
    return record, status, plan_tenant(_goal(ctx, record, status), status)


def _goal(ctx: Context, record: TenantRecord, status: TenantStatus) -> TenantGoal:
    release = record.row.release or ctx.release
    return tenant_goal(ctx.platform, record, status, release=release, stack_version=ctx.stacks["tenant"])


def _look_at_tenant(ctx: Context, hold: Hold) -> Next:
    record, status, steps = plan_for_tenant(
        ctx, hold.job.subject, wake=hold.job.reason != PERIODIC_OBSERVATION
    )
    if not steps:
        return _mark_tenant_reconciled(ctx, hold, record, status)
    goal = _goal(ctx, record, status)

    def act(seq: int) -> None:
        TENANT_ACTS[steps[0].name](_in_its_place(TenantWork(ctx, hold, steps[0], seq, record, goal)))

    return steps[0], act


def _in_its_place(work: TenantWork) -> TenantWork:
    """A step of the placement beside is taken there, by the act that takes it for the current one."""
    if work.step.placement is None or work.step.name in BOTH_PLACEMENTS:
        return work
    if work.record.secondary is None or work.goal.secondary is None:
        raise NeedsHuman(f"{work.record.row.id} has no second placement", runbook="internal-error")
    return replace(work, record=work.record.secondary, goal=work.goal.secondary)


def _mark_tenant_reconciled(ctx: Context, hold: Hold, record: TenantRecord, status: TenantStatus) -> Next:
    row = record.row
    with hold.recording() as conn:
        tenant.set_status(conn, row.id, status.to_json())
        reconciled = tenant.mark_reconciled(
            conn, row.id, generation=row.generation, observe_in=_observe_in(ctx, conn, record, status)
        )
        if reconciled:
            hold.finish(conn, recorded=history.worth_keeping(conn, hold.job))
    if not reconciled:
        return _look_at_tenant(ctx, hold)
    return None


def _observe_in(ctx: Context, conn: Connection, record: TenantRecord, status: TenantStatus) -> float | None:
    """Seconds until the next periodic observation; None where there is nothing left to look at."""
    if record.row.purged_at is not None:
        return None if record.copy is None else data_copy.seconds_left(conn, record.copy.id)
    retention = tenant.retention_left(conn, record.row.id)
    due = [ctx.platform.observe_every, retention or None]  # 0: it is over, and something holds the purge up
    if record.row.spec.lifecycle is Lifecycle.ACTIVE:  # nobody polls another's hostnames
        due.append(hostname.next_poll(conn, record.row.id))
    if status.app.retire_in is not None and status.app.retire_in > 0:
        due.append(status.app.retire_in)
    return min(seconds for seconds in due if seconds is not None)


# -------------------------------------------------------------------------------------- clusters


def _look_at_cluster(ctx: Context, hold: Hold) -> Next:
    with ctx.registry.connection() as conn:
        row = cluster.get(conn, hold.job.subject)
        kept = data_copy.snapshot_kept(conn, row.id)
    status = observe_cluster(ctx, row)
    goal = cluster_goal(ctx.platform, row, ctx.stacks["cluster"], key=kept)
    steps = plan_cluster(goal, status)
    if not steps:
        return _mark_cluster_reconciled(ctx, hold, row, status)

    def act(seq: int) -> None:
        CLUSTER_ACTS[steps[0].name](ClusterWork(ctx, hold, steps[0], seq, row, goal))

    return steps[0], act


def _mark_cluster_reconciled(
    ctx: Context, hold: Hold, row: cluster.ClusterRow, status: ClusterStatus
) -> Next:
    with hold.recording() as conn:
        cluster.set_status(conn, row.id, status.to_json())
        reconciled = cluster.mark_reconciled(conn, row.id, generation=row.generation)
        if reconciled:
            hold.finish(conn)
            tenants = [*cluster.tenants_on(conn, row.id), *restore.waiting_for(conn, row.id)]
            job.bring_forward(conn, JobKind.TENANT, tenants)
    if not reconciled:
        return _look_at_cluster(ctx, hold)
    return None
