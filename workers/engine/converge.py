"""The engine: one loop for everything that happens to a tenant or a cluster.

    claim → (look → plan → apply the first step → record)* → reconciled

There is no cursor. Whatever a killed worker left half done, its successor sees by looking. A pass ends
when nothing is left to do, when something outside needs time (Pending), when it failed in a way that
time may repair (Retryable), or when a person must decide (NeedsHuman). The spec is read anew before every
step, so a change of mind takes effect at the next one.
"""

from __future__ import annotations

import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from controlplane import task_names
from controlplane.domain import purge
from controlplane.domain.errors import (
    ControlPlaneError,
    LeaseLost,
    NeedsHuman,
    Pending,
    Refused,
    Retryable,
)
from controlplane.domain.move import MoveKind, MovePhase
from controlplane.domain.operation import (
    ATTEMPTS_UNTIL_ATTENTION,
    PERIODIC_OBSERVATION,
    UNEXPECTED_UNTIL_PARKED,
    ClaimedOperation,
    OperationState,
    ResourceKind,
    backoff,
)
from controlplane.domain.planner import TenantGoal, plan_cluster, plan_tenant
from controlplane.domain.status import ClusterStatus, TenantStatus
from controlplane.domain.steps import Step, StepState
from controlplane.domain.tenant import Lifecycle
from controlplane.services import billing, moves, purges
from controlplane.store import (
    audit,
    cluster,
    data_copy,
    history,
    hostname,
    lease,
    move,
    operation,
    restore,
    step,
    tenant,
)
from controlplane.store.registry import Connection, RegistryUnavailable
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.goal import (
    TenantRecord,
    cluster_goal,
    tenant_goal,
)
from controlplane.workers.engine.heartbeat import LeaseHeartbeat
from controlplane.workers.engine.observe import (
    load_tenant,
    observe_cluster,
    observe_tenant,
)
from controlplane.workers.engine.step_context import ClusterWork, TenantWork
from controlplane.workers.steps.registry import BOTH_PLACEMENTS, CLUSTER_ACTS, TENANT_ACTS

log = logging.getLogger(__name__)

SAME_STEP_AT_MOST = 3
ORPHANED_UNTIL_BACKOFF = 3
TASK = task_names.CONVERGE


def converge(
    ctx: Context, kind: ResourceKind | None = None, resource_id: str | None = None
) -> ClaimedOperation | None:
    """Make one pass over the resource, or over any that is due; what was held, None where nothing was
    due. Raises RegistryUnavailable; every other failure is recorded on the operation."""
    with ctx.registry.connection() as conn:
        held = lease.claim(
            conn, holder=ctx.holder, seconds=ctx.platform.lease, kind=kind, resource_id=resource_id
        )
    if held is not None:
        _pass(ctx, held)
    return held


def take_over(ctx: Context) -> ClaimedOperation | None:
    """Make one pass over a resource whose holder died, as soon as its lease has run out; what was held,
    None where nobody died.

    For a worker that is about to do something else: the wake-up of the sweep stands at the end of the
    queue, behind every customer who came meanwhile. Raises as `converge` does.
    """
    with ctx.registry.connection() as conn:
        held = lease.claim(conn, holder=ctx.holder, seconds=ctx.platform.lease, orphaned=True)
    if held is not None:
        _pass(ctx, held)
    return held


def _pass(ctx: Context, held: ClaimedOperation) -> None:
    look = _converge_tenant if held.kind is ResourceKind.TENANT else _converge_cluster
    with LeaseHeartbeat(
        ctx.registry, held, seconds=ctx.platform.lease, every=ctx.platform.heartbeat
    ) as heartbeat:
        try:
            _spare_the_workers(ctx, held)
            _loop(ctx, heartbeat, look)
        except (LeaseLost, RegistryUnavailable) as error:
            log.warning("%s: pass given up: %s", held.resource_id, error)
            if isinstance(error, RegistryUnavailable):
                raise
        except ControlPlaneError as error:
            _record_failure(ctx, held, error)
        except Exception as error:  # noqa: BLE001 — whatever it is, it must end on the operation
            what = type(error).__name__
            log.error("%s: unexpected %s\n%s", held.resource_id, what, where(error))  # noqa: TRY400
            _record_failure(ctx, held, error)


def _spare_the_workers(ctx: Context, held: ClaimedOperation) -> None:
    """What kills every worker that takes it (out of memory, say) waits longer each time, as what fails
    does: it must not cost a worker with every lease."""
    if not held.orphan:
        return
    with ctx.registry.connection() as conn:
        died = step.died_in_a_row(conn, held.operation_id)
    if died >= ORPHANED_UNTIL_BACKOFF:
        raise Retryable(f"its worker died {died} times in a row")


Apply = Callable[[int], None]
Next = tuple[Step, Apply] | None
"""The first step that is left with the act that takes its number in the log; None when reconciled."""


def _loop(ctx: Context, heartbeat: LeaseHeartbeat, look: Callable[[Context, LeaseHeartbeat], Next]) -> None:
    taken: Counter[Step] = Counter()
    while (following := look(ctx, heartbeat)) is not None:
        next_step, act = following
        heartbeat.check()
        taken[next_step] += 1
        if taken[next_step] > SAME_STEP_AT_MOST:
            raise Retryable(f"{next_step.name} {next_step.target} did not take: {next_step.reason}")
        _take(ctx, heartbeat.held, next_step, act)


def _take(ctx: Context, held: ClaimedOperation, next_step: Step, act: Apply) -> None:
    with ctx.registry.connection() as conn, conn.transaction():
        lease.guard(conn, held)
        seq = step.begin(conn, held, next_step)
    try:
        act(seq)
    except Pending as error:
        _end_step(ctx, held, seq, StepState.WAITING, str(error))
        raise
    except (LeaseLost, RegistryUnavailable):
        raise
    except ControlPlaneError as error:
        _end_step(ctx, held, seq, StepState.FAILED, str(error))
        raise
    except Exception as error:
        _end_step(ctx, held, seq, StepState.FAILED, type(error).__name__)
        raise
    _end_step(ctx, held, seq, StepState.DONE, None)


def _end_step(ctx: Context, held: ClaimedOperation, seq: int, state: StepState, error: str | None) -> None:
    with ctx.registry.connection() as conn, conn.transaction():
        lease.guard(conn, held)
        step.end(conn, held, seq, state, error=None if error is None else error[:1000])


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


def _converge_tenant(ctx: Context, heartbeat: LeaseHeartbeat) -> Next:
    held = heartbeat.held
    record, status, steps = plan_for_tenant(ctx, held.resource_id, wake=held.reason != PERIODIC_OBSERVATION)
    if not steps:
        return _mark_tenant_reconciled(ctx, heartbeat, record, status)
    goal = _goal(ctx, record, status)

    def act(seq: int) -> None:
        TENANT_ACTS[steps[0].name](_in_its_place(TenantWork(ctx, heartbeat, steps[0], seq, record, goal)))

    return steps[0], act


def _in_its_place(work: TenantWork) -> TenantWork:
    """A step of the placement beside is taken there, by the act that takes it for the current one."""
    if work.step.placement is None or work.step.name in BOTH_PLACEMENTS:
        return work
    if work.record.secondary is None or work.goal.secondary is None:
        raise NeedsHuman(f"{work.record.row.id} has no second placement", runbook="internal-error")
    return replace(work, record=work.record.secondary, goal=work.goal.secondary)


def _mark_tenant_reconciled(
    ctx: Context, heartbeat: LeaseHeartbeat, record: TenantRecord, status: TenantStatus
) -> Next:
    held, row = heartbeat.held, record.row
    if _moves_for_plan(ctx, heartbeat, record) or _purge_is_due(ctx, heartbeat, record):
        return _converge_tenant(ctx, heartbeat)
    with ctx.registry.connection() as conn, conn.transaction():
        lease.guard(conn, held)
        tenant.set_status(conn, row.id, status.to_json())
        reconciled = tenant.mark_reconciled(
            conn, row.id, generation=row.generation, observe_in=_observe_in(ctx, conn, record, status)
        )
        if reconciled:
            if not history.forget_idle_observation(conn, held):
                operation.finish(conn, held, OperationState.DONE, error=None, runbook=None)
            lease.release(conn, held)
    if not reconciled:
        return _converge_tenant(ctx, heartbeat)
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


def _purge_is_due(ctx: Context, heartbeat: LeaseHeartbeat, record: TenantRecord) -> bool:
    """True where it was ordered now, since the plan says that nobody need be asked. Raises NeedsHuman
    where somebody must be. Not due as long as its customer has a subscription."""
    row = record.row
    if row.closed_at is None or row.purged_at is not None or record.purge is not None:
        return False
    if record.move is not None:  # its source is another copy of the data: it has its time first
        return False
    with ctx.registry.connection() as conn, conn.transaction():
        lease.guard(conn, heartbeat.held)
        if purges.heed_return(conn, row.id, actor=billing.ACTOR) is not None:
            return False
        if tenant.retention_left(conn, row.id) != 0.0:
            return False
        if record.plan is not None and record.plan.purge_without_approval:
            return purges.order_by_policy(conn, row.id)
    until = "" if row.purge_after is None else row.purge_after.isoformat(timespec="seconds")
    raise NeedsHuman(
        f"its retention ended at {until}: two persons decide about its purge", runbook=purge.RUNBOOK
    )


def _moves_for_plan(ctx: Context, heartbeat: LeaseHeartbeat, record: TenantRecord) -> bool:
    """True where a move was recorded now, since the plan asks for another kind of cluster. Raises NeedsHuman
    where a person has to decide first."""
    row, moving = record.row, record.move
    if moving is not None and moving.phase is MovePhase.MOVED and moving.differing:
        raise NeedsHuman(
            f"after its move {', '.join(moving.differing[:10])} were not the same", runbook="move-mismatch"
        )
    if record.plan is None or record.cluster is None or row.spec.lifecycle is not Lifecycle.ACTIVE:
        return False
    goal, home = record.plan.isolation, record.cluster.spec.isolation
    if goal is home:
        return False
    mismatch = f"plan {record.plan.name} is {goal.value}, its cluster is {home.value}"
    with ctx.registry.connection() as conn, conn.transaction():
        lease.guard(conn, heartbeat.held)
        last = move.latest(conn, row.id, kind=MoveKind.MOVE)
        if last is not None and last.plan == record.plan.name and last.by_hand:
            return False
        declined = last is not None and last.declined and last.plan == record.plan.name
        held_up = moving or (last if declined else None)
        if held_up is not None:
            raise NeedsHuman(
                f"{mismatch}, and its last {held_up.kind.value} is {held_up.phase.value}",
                runbook="move-between-clusters",
            )
        actor = heartbeat.held.actor
        placed = moves.record(conn, row, destination=goal.value, by_hand=False, actor=actor, reason=mismatch)
        detail = {"to": goal.value, "from": placed.cluster_id, "reason": mismatch}
        audit.append(conn, actor=actor, action="tenant.move", resource=row.id, detail=detail)
    return True


# -------------------------------------------------------------------------------------- clusters


def _converge_cluster(ctx: Context, heartbeat: LeaseHeartbeat) -> Next:
    with ctx.registry.connection() as conn:
        row = cluster.get(conn, heartbeat.held.resource_id)
        kept = data_copy.snapshot_kept(conn, row.id)
    status = observe_cluster(ctx, row)
    goal = cluster_goal(ctx.platform, row, ctx.stacks["cluster"], key=kept)
    steps = plan_cluster(goal, status)
    if not steps:
        return _mark_cluster_reconciled(ctx, heartbeat, row, status)

    def act(seq: int) -> None:
        CLUSTER_ACTS[steps[0].name](ClusterWork(ctx, heartbeat, steps[0], seq, row, goal))

    return steps[0], act


def _mark_cluster_reconciled(
    ctx: Context, heartbeat: LeaseHeartbeat, row: cluster.ClusterRow, status: ClusterStatus
) -> Next:
    held = heartbeat.held
    with ctx.registry.connection() as conn, conn.transaction():
        lease.guard(conn, held)
        cluster.set_status(conn, row.id, status.to_json())
        reconciled = cluster.mark_reconciled(conn, row.id, generation=row.generation)
        if reconciled:
            operation.finish(conn, held, OperationState.DONE, error=None, runbook=None)
            lease.release(conn, held)
            tenants = [*cluster.tenants_on(conn, row.id), *restore.waiting_for(conn, row.id)]
            tenants = operation.bring_forward(conn, ResourceKind.TENANT, tenants)
    if not reconciled:
        return _converge_cluster(ctx, heartbeat)
    for tenant_id in tenants:
        ctx.notify(TASK, [ResourceKind.TENANT, tenant_id])
    return None


# -------------------------------------------------------------------------------------- failures


def _record_failure(ctx: Context, held: ClaimedOperation, error: Exception) -> None:
    message, runbook, after = _judge(held, error)
    attention = tenant.set_attention if held.kind is ResourceKind.TENANT else cluster.set_attention
    try:
        with ctx.registry.connection() as conn, conn.transaction():
            lease.guard(conn, held)
            if after is None:
                operation.finish(conn, held, OperationState.PARKED, error=message, runbook=runbook)
            else:
                pending = isinstance(error, Pending)
                operation.put_back(
                    conn, held, after=after, error=None if pending else message, counts=not pending
                )
            if runbook is not None:
                attention(conn, held.resource_id, reason=message, runbook=runbook)
            lease.release(conn, held)
    except LeaseLost:
        log.warning("%s: outcome not recorded, another holder has taken over", held.resource_id)


def _judge(held: ClaimedOperation, error: Exception) -> tuple[str, str | None, float | None]:
    """(message, runbook where a person should know, seconds until the next attempt or None to park)."""
    wait = backoff(held.attempts, jitter=random.random())  # noqa: S311 — spreads load, guards nothing
    match error:
        case Pending():
            return str(error), None, error.after or wait
        case Retryable():
            lasts = held.attempts >= ATTEMPTS_UNTIL_ATTENTION
            runbook = (error.runbook or "retrying") if lasts else None
            return str(error), runbook, max(error.after or 0.0, wait)
        case NeedsHuman():
            return str(error), error.runbook, None
        case Refused():
            return str(error), "refused", None
        case _:
            parked = held.attempts >= UNEXPECTED_UNTIL_PARKED
            return (
                f"unexpected {type(error).__name__}",
                "internal-error" if parked else None,
                (None if parked else wait),
            )


def where(error: Exception) -> str:
    """Where it happened, without the values: a message of an unknown exception may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    return "\n".join(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-12:])
