"""The engine: one loop for everything that happens to a tenant or a cluster.

    (record → observe → plan → apply the first step)* → reconciled

There is no cursor. Whatever a killed worker left half done, its successor sees by looking. A pass ends
when nothing is left to do, when something outside needs time (Pending), when it failed in a way that
time may repair (Retryable), or when a person must decide (NeedsHuman). The record is read anew before every
step, so a change of mind takes effect at the next one; what was observed outside is carried on, but for what
the step touched (see `observe`). A tenant's job begins in the quick lane and goes over to the long one before
the first step that may take minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from controlplane.domain.errors import ControlPlaneError, LeaseLost, NeedsHuman, Pending, Retryable
from controlplane.domain.job import PERIODIC_OBSERVATION, Job, JobKind, Lane, Trouble
from controlplane.domain.planner import TenantGoal, plan_cluster, plan_tenant
from controlplane.domain.status import ClusterStatus, TenantStatus
from controlplane.domain.steps import Step, StepState
from controlplane.domain.tenant import Lifecycle
from controlplane.store import cluster, history, job, record, stack, step, tenant, transfer
from controlplane.store.cluster import ClusterRow
from controlplane.store.record import OnCluster
from controlplane.store.registry import Connection, RegistryUnavailable
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.goal import cluster_goal, tenant_goal
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.engine.observe import cluster_drift, observe_cluster, observe_tenant, status_of
from controlplane.workers.engine.record import TenantRecord, load_tenant
from controlplane.workers.engine.step_context import ClusterWork, TenantWork
from controlplane.workers.steps.registry import (
    BOTH_PLACEMENTS,
    CLUSTER_ACTS,
    DELETES,
    LONG,
    TENANT_ACTS,
    TOUCHES,
)

SAME_STEP_AT_MOST = 3
W = TypeVar("W", TenantWork, ClusterWork)


def converge_tenant(ctx: Context, hold: Hold) -> None:
    taken = Counter[Step]()
    observed, fresh = None, False
    while True:
        known = load_tenant(ctx, hold.job.subject)
        if observed is None or not observed.holds(ctx, known):
            observed, fresh = observe_tenant(ctx, known), True
        status = status_of(known, observed)
        goal = _goal(ctx, known, status)
        steps = plan_tenant(goal, status)
        if not fresh and (not steps or steps[0].name in DELETES):
            observed = None
            continue
        if not steps:
            if _mark_tenant_reconciled(ctx, hold, known, status):
                return
            observed = None
            continue
        now = steps[0]
        if not _take(TenantWork(ctx, hold, now, known, goal), _act_for_tenant, taken):
            return
        touched = TOUCHES.get(now.name) if now.placement is None else None
        if touched is None:
            observed = None
        elif touched:
            observed = observe_tenant(ctx, known, parts=touched, before=observed)
        fresh = False


def converge_cluster(ctx: Context, hold: Hold) -> None:
    taken = Counter[Step]()
    while True:
        with ctx.registry.connection() as conn:
            known = record.of_cluster(conn, hold.job.subject)
        row: ClusterRow = known["c"]
        on: OnCluster = known["placed"]
        status = observe_cluster(ctx, row, known["stack"], known["second"], on)
        if hold.job.reason == PERIODIC_OBSERVATION:
            _report_drift(ctx, hold, row, on, status)
            return
        goal = cluster_goal(ctx.platform, row, on)
        steps = plan_cluster(goal, status)
        if not steps:
            if _mark_cluster_reconciled(hold, row, status):
                return
            continue
        if not _take(ClusterWork(ctx, hold, steps[0], row, goal, on), _act_for_cluster, taken):
            return


def trouble(conn: Connection, failed: Job, what: Trouble) -> None:
    """A person is notified where one should know; what a cluster's tenants wait for is their trouble too."""
    if what.runbook is None:
        return
    attention = tenant.set_attention if failed.kind is JobKind.TENANT else cluster.set_attention
    attention(conn, failed.subject, reason=what.message, runbook=what.runbook)
    if failed.kind is JobKind.CLUSTER:
        job.bring_forward(conn, JobKind.TENANT, cluster.tenants_on(conn, failed.subject))


def _take(work: W, act: Callable[[W], None], taken: Counter[Step]) -> bool:
    """Take the step. False where the long lane goes on with it instead."""
    hold, now = work.hold, work.step
    hold.check()
    if now.name in LONG and hold.job.lane is Lane.QUICK:
        with hold.recording() as conn:
            hold.put_back(conn, lane=Lane.LONG)
        return False
    taken[now] += 1
    if taken[now] > SAME_STEP_AT_MOST:
        raise Retryable(f"{now.name} {now.target} did not take: {now.reason}")
    with hold.recording() as conn:
        seq = step.begin(conn, hold.job, now)
    try:
        act(replace(work, seq=seq))
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
    return True


def _end_step(hold: Hold, seq: int, state: StepState, error: str | None) -> None:
    with hold.recording() as conn:
        step.end(conn, hold.job, seq, state, error=None if error is None else error[:1000])


# --------------------------------------------------------------------------------------- tenants


def plan_for_tenant(ctx: Context, tenant_id: str) -> tuple[TenantRecord, list[Step]]:
    """What is known, what is left to do; changes nothing."""
    known = load_tenant(ctx, tenant_id)
    status = status_of(known, observe_tenant(ctx, known))
    return known, plan_tenant(_goal(ctx, known, status), status)


def _goal(ctx: Context, known: TenantRecord, status: TenantStatus) -> TenantGoal:
    return tenant_goal(ctx.platform, known, status, release=known.row.release or ctx.release)


def _act_for_tenant(work: TenantWork) -> None:
    """A step of the placement beside is taken there, by the act that takes it for the current one."""
    if work.step.placement is not None and work.step.name not in BOTH_PLACEMENTS:
        if work.record.secondary is None or work.goal.secondary is None:
            raise NeedsHuman(f"{work.record.row.id} has no second placement", runbook="internal-error")
        work = replace(work, record=work.record.secondary, goal=work.goal.secondary)
    TENANT_ACTS[work.step.name](work)


def _mark_tenant_reconciled(ctx: Context, hold: Hold, known: TenantRecord, status: TenantStatus) -> bool:
    """False where the spec has moved on."""
    row = known.row
    with hold.recording() as conn:
        tenant.set_status(conn, row.id, status.to_json())
        reconciled = tenant.mark_reconciled(
            conn, row.id, generation=row.generation, observe_in=_observe_in(ctx, known, status)
        )
        if reconciled and row.ready_at is None and row.spec.lifecycle is Lifecycle.ACTIVE:
            tenant.mark_ready(conn, row.id)  # whoever published it died before it said so
        if reconciled:
            hold.finish(conn, recorded=history.worth_keeping(conn, hold.job))
    return reconciled


def _observe_in(ctx: Context, known: TenantRecord, status: TenantStatus) -> float | None:
    """Seconds until the next periodic observation; None where there is nothing left to look at."""
    around = known.around
    redirect = min(around.redirects.values(), default=None)
    if known.row.purged_at is not None:
        return min((seconds for seconds in (around.copy_left, redirect) if seconds is not None), default=None)
    retention = around.retention_left or None  # 0: it is over, and something holds the purge up
    due = [ctx.platform.observe_every, retention, redirect]
    if known.row.spec.lifecycle is not Lifecycle.CLOSED:  # whose hostnames nobody polls
        due.append(around.next_poll)
    if status.app.retire_in is not None and status.app.retire_in > 0:
        due.append(status.app.retire_in)
    return min(seconds for seconds in due if seconds is not None)


# -------------------------------------------------------------------------------------- clusters


def _act_for_cluster(work: ClusterWork) -> None:
    CLUSTER_ACTS[work.step.name](work)


def _report_drift(ctx: Context, hold: Hold, row: ClusterRow, on: OnCluster, status: ClusterStatus) -> None:
    """The clock asks nobody, so it changes nothing: neither what was changed by hand, nor what a new setting
    or newer code asks for."""
    drift = cluster_drift(ctx, row, on)
    with hold.recording() as conn:
        cluster.set_status(conn, row.id, status.to_json())
        stack.note_drift(conn, row.id, drift)
        hold.finish(conn, recorded=history.worth_keeping(conn, hold.job))


def _mark_cluster_reconciled(hold: Hold, row: ClusterRow, status: ClusterStatus) -> bool:
    """False where the spec has moved on. Who waits for it goes on."""
    with hold.recording() as conn:
        cluster.set_status(conn, row.id, status.to_json())
        reconciled = cluster.mark_reconciled(conn, row.id, generation=row.generation)
        if reconciled:
            hold.finish(conn)
            tenants = [*cluster.tenants_on(conn, row.id), *transfer.waiting_for(conn, row.id)]
            job.bring_forward(conn, JobKind.TENANT, tenants)
    return reconciled
