"""The acts of a move: see `domain.move` for its phases and `providers.moves` for how rows are carried.

    place ─▶ (the target is made) ─▶ begin copy ─▶ copy rows ─▶ cut over ─▶ end copy ··· confirmed ···▶ remove

The cut is one transaction of the registry. Before it the source is the tenant's database, and a failure
opens it again; after it the target is, and a failure is gone on from. A worker that dies in the pause leaves
a move that is `paused`: nothing else is planned for it then but to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from controlplane.domain.catalogue import Isolation
from controlplane.domain.errors import ControlPlaneError, LeaseLost, NeedsHuman, Pending, Retryable
from controlplane.domain.job import JobKind
from controlplane.domain.move import KEEP_SOURCE_DAYS, MoveKind, MovePhase
from controlplane.domain.steps import StepName
from controlplane.services import moves
from controlplane.store import audit, cluster, job, move, placement, tenant
from controlplane.store.move import MoveRow
from controlplane.store.registry import Connection, RegistryUnavailable
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.record import TenantRecord, endpoint_of
from controlplane.workers.engine.stacks import tenant_addresses, tenant_variables
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.engine.terraform_runs import destroy_stack
from controlplane.workers.providers.ports import HandedOver, Home, MoveRun
from controlplane.workers.steps.registry import tenant_step
from controlplane.workers.steps.routes import publish_route

T = TypeVar("T")

ROLLOUT_POLL = 5.0  # seconds


@tenant_step(
    StepName.BEGIN_MOVE,
    "its plan asks for another kind of cluster: the move is recorded",
    again="one that is not over stands in the way of another",
)
def begin_move(work: TenantWork) -> None:
    row, actor, reason = work.record.row, work.job.actor, work.step.reason
    with work.recording() as conn:
        placed = moves.record(
            conn, row, destination=work.step.target, by_hand=False, actor=actor, reason=reason
        )
        detail = {"to": work.step.target, "from": placed.cluster_id, "reason": reason}
        audit.append(conn, actor=actor, action="tenant.move", resource=row.id, detail=detail)


@tenant_step(
    StepName.PLACE_MOVE,
    "can the source's log be followed? Then a free slot, or a new cluster; the second placement "
    "is recorded, with all its names. A restore's goes to the kind of cluster that the tenant "
    "lives on",
    again="one transaction",
    both_placements=True,
)
def place_move(work: TenantWork) -> None:
    if work.record.plan is None:
        raise NeedsHuman(f"{work.record.row.id} has no plan", runbook="unknown-plan")
    if _move(work).kind is MoveKind.MOVE:  # before a cluster is made for it
        require_followable(work.ctx, work.record)
    with work.recording() as conn:
        moves.place(conn, work.ctx.catalogue, work.record.plan, _move(work), actor=work.job.actor)


def require_followable(ctx: Context, record: TenantRecord) -> None:
    """Raises NeedsHuman("move") where the cluster that the tenant lives on keeps no log for a move to follow:
    a move that can't be ended must not begin."""
    source = record.home()
    if source is None:
        raise Pending("the cluster it lives on has no endpoint yet", after=ctx.platform.cluster_poll)
    ctx.providers.moves.require_followable(source)


@tenant_step(
    StepName.BEGIN_COPY,
    "a publication and a logical replication slot: from here on the source keeps what is written",
    again="a slot that is there is the one; what a killed run left without it is dropped first",
    both_placements=True,
)
def begin_copy(work: TenantWork) -> None:
    _no_rollout(work)
    source, target = _ends(work)
    _clearing_if_refused(work, lambda: work.ctx.providers.moves.begin(source, target, _run(work)))


@tenant_step(
    StepName.COPY_ROWS,
    "every row of one moment, in one transaction of the target",
    again="rows that are not recorded as copied are copied anew",
    both_placements=True,
    long=True,
)
def copy_rows(work: TenantWork) -> None:
    source, target = _ends(work)
    _no_rollout(work)
    copied = _clearing_if_refused(work, lambda: work.ctx.providers.moves.copy(source, target, _run(work)))
    with work.recording() as conn:
        move.set_copied(conn, _move(work).id, rows=copied.rows, size=copied.size)
        work.note(conn, kind="copied", action="move", message=copied.summary, seconds=copied.seconds)


HandOver = Callable[[Home, Home, Callable[[], None], Callable[[], None]], T]
"""(source, target, pause, cut) → what came of it; calls `pause`, which ends all writing to the source, and
`cut`, which makes the target the one that is used."""


@tenant_step(
    StepName.CUT_OVER,
    "follows what was written since; then the pause: the application's logins are closed and its "
    "sessions ended, the rest of the log is carried to its end, sequences, tables without a key, "
    "a comparison, and one transaction of the registry that makes the target current; the routes "
    "are published with a new epoch",
    again="the log is carried on from where the target says; the cut is one transaction",
    both_placements=True,
    long=True,
)
def cut_over(work: TenantWork) -> None:
    moves = work.ctx.providers.moves

    def hand_over(
        source: Home, target: Home, pause: Callable[[], None], cut: Callable[[], None]
    ) -> HandedOver:
        return moves.hand_over(source, target, _run(work), pause=pause, cut=cut)

    handed = change_over(work, hand_over)
    _record_comparison(work, _move(work), handed)


def change_over(work: TenantWork, hand_over: HandOver[T]) -> T:
    """Until the cut a failure opens the source again."""
    found, (source, target) = _move(work), _ends(work)
    secondary = work.goal.secondary
    if secondary is None:
        raise NeedsHuman(f"move {found.id} has no target", runbook="internal-error")
    _no_rollout(work)
    databases = work.ctx.providers.databases
    cut = False

    def pause() -> None:
        with work.recording() as conn:
            move.turn(conn, found.id, MovePhase.PAUSED, error=Retryable)
        databases.close_logins(source.at, source.placement)

    def take_over() -> None:
        nonlocal cut
        with work.recording() as conn:
            row = tenant.get(conn, work.record.row.id, lock=True)
            if row.generation != work.record.row.generation:
                raise Retryable(f"{row.id} has changed meanwhile")
            move.cut(conn, found, keep_days=KEEP_SOURCE_DAYS)
            tenant.set_access_proof(conn, row.id, found.access_proof)
            audit.append(
                conn,
                actor=work.job.actor,
                action=f"{found.kind.value}.cut",
                resource=row.id,
                detail={"move": found.id, "placement": target.placement.key},
            )
        cut = True
        for payload in secondary.routes.values():
            publish_route(work, payload)
        with work.recording() as conn:
            move.served_again(conn, found.id)

    try:
        return hand_over(source, target, pause, take_over)
    except (LeaseLost, RegistryUnavailable):
        raise
    except ControlPlaneError as error:
        if not cut:
            _go_back(work, source)
            if isinstance(error, NeedsHuman) and found.kind is MoveKind.MOVE:
                work.ctx.providers.moves.clear(source, target)
        raise


@tenant_step(
    StepName.END_COPY,
    "slot, publication and the target's bookkeeping go",
    again="gone already is success",
    both_placements=True,
)
def end_copy(work: TenantWork) -> None:
    source, target = _ends(work)
    work.ctx.providers.moves.clear(source, target)
    with work.recording() as conn:
        move.mark_cleared(conn, _move(work).id)


@tenant_step(
    StepName.CONFIRM_MOVE,
    "after seven days, or where the tenant leaves, the move is good without anybody's word",
    again="a phase is reached once",
    both_placements=True,
)
def confirm_move(work: TenantWork) -> None:
    """Unasked: the source has been kept for its time, or its tenant leaves, and it holds nothing that the
    target lacks."""
    _decide(work, MovePhase.CONFIRMED)


@tenant_step(
    StepName.GIVE_UP_MOVE,
    "the tenant leaves, or its plan asks for another kind of cluster by now: the target goes",
    again="a phase is reached once",
    both_placements=True,
)
def give_up_move(work: TenantWork) -> None:
    _decide(work, MovePhase.ABANDONED)


def _decide(work: TenantWork, to: MovePhase) -> None:
    """Raises Retryable where a person has decided meanwhile."""
    found = _move(work)
    with work.recording() as conn:
        move.turn(conn, found.id, to, error=Retryable)
        if to is MovePhase.ABANDONED:
            moves.close_restored(conn, found.id, found.tenant_id, actor=work.job.actor)
        audit.append(
            conn,
            actor=work.job.actor,
            action=f"move.{to.value}",
            resource=found.tenant_id,
            detail={"move": found.id, "reason": work.step.reason},
        )


@tenant_step(
    StepName.REMOVE_PLACEMENT,
    "what is left of the placement that is not used: database, logins, stack, slot",
    again="gone already is success",
    both_placements=True,
    long=True,
    deletes=True,
)
def remove_placement(work: TenantWork) -> None:
    """Delete what is left of the placement that is not used: by the word of whoever confirmed the move or
    gave it up, and never the current one."""
    found = _move(work)
    if found.phase not in (MovePhase.CONFIRMED, MovePhase.ABANDONED):
        raise NeedsHuman(f"move {found.id} is {found.phase.value}", runbook="internal-error")
    over = MovePhase.DONE if found.phase is MovePhase.CONFIRMED else MovePhase.UNDONE
    secondary = work.record.secondary
    if secondary is not None and secondary.placement is not None:
        _remove(work, secondary)
    with work.recording() as conn:
        if secondary is not None and secondary.placement is not None:
            placement.mark_gone(conn, secondary.placement)
            _let_go(conn, work, secondary.placement.cluster_id)
        move.turn(conn, found.id, over, error=Retryable)
        audit.append(
            conn,
            actor=work.job.actor,
            action=f"move.{over.value}",
            resource=found.tenant_id,
            detail={"move": found.id},
        )


def _remove(work: TenantWork, secondary: TenantRecord) -> None:
    placed = secondary.placement
    if placed is None or (
        work.record.placement is not None and placed.number == work.record.placement.number
    ):
        raise NeedsHuman(f"{work.record.row.id}: this is the placement in use", runbook="internal-error")
    at = None if secondary.cluster is None else endpoint_of(secondary.cluster)
    if at is not None:
        work.hold.check()
        work.ctx.providers.databases.drop(at, placed)
    destroy_stack(
        work,
        "tenant",
        placed.workspace,
        tenant_variables(work.ctx.platform, placed),
        approved=tenant_addresses(),
    )


def _let_go(conn: Connection, work: TenantWork, cluster_id: str) -> None:
    """A cluster that was its alone has had its time: its backups hold this tenant's data, so it becomes
    nobody else's."""
    home = cluster.get(conn, cluster_id, lock=True)
    if home.spec.isolation is not Isolation.DEDICATED or cluster.tenants_on(conn, cluster_id):
        return
    cluster.set_spec(conn, cluster_id, home.spec.closed())
    reason = f"{work.record.row.id} has moved away"
    job.ensure(conn, JobKind.CLUSTER, cluster_id, reason=reason, actor=work.job.actor)


# ------------------------------------------------------------------------------------------- shared


def _move(work: TenantWork) -> MoveRow:
    if work.record.move is None:
        raise NeedsHuman(f"{work.record.row.id} has no move", runbook="internal-error")
    return work.record.move


def _ends(work: TenantWork) -> tuple[Home, Home]:
    """(source, target)"""
    ends = work.record.ends()
    if ends is None:
        raise Pending("a cluster of the move has no endpoint yet", after=work.ctx.platform.cluster_poll)
    return ends


def _run(work: TenantWork) -> MoveRun:
    return MoveRun(fencing_token=work.job.fencing_token, stopped=work.hold.lost)


def _no_rollout(work: TenantWork) -> None:
    """Rollouts pass over a tenant that moves; one that was at it already finishes first."""
    with work.ctx.registry.connection() as conn:
        if move.rollout_is_at(conn, work.record.row.id):
            raise Pending("a rollout is changing its schema", after=ROLLOUT_POLL)


def _clearing_if_refused(work: TenantWork, act: Callable[[], T]) -> T:
    """A move that waits for a person must not keep the source's log meanwhile."""
    try:
        return act()
    except NeedsHuman:
        work.ctx.providers.moves.clear(*_ends(work))
        raise


def _go_back(work: TenantWork, source: Home) -> None:
    """The source is in use again."""
    plan = work.record.plan
    if plan is None:
        raise NeedsHuman(f"{work.record.row.id} has no plan", runbook="unknown-plan")
    began = time.monotonic()
    work.ctx.providers.databases.open_logins(
        source.at, source.placement, connection_limit=plan.connection_limit
    )
    with work.recording() as conn:
        found = move.get(conn, _move(work).id)
        if found.phase is MovePhase.PAUSED:
            move.turn(conn, found.id, MovePhase.PREPARING)
            took = time.monotonic() - began
            work.note(
                conn, kind="went back", action="move", message="the source is in use again", seconds=took
            )


def _record_comparison(work: TenantWork, found: MoveRow, handed: HandedOver) -> None:
    with work.recording() as conn:
        move.set_compared(conn, found.id, [asdict(table) for table in handed.tables], checked=handed.checked)
        note_pause(conn, work)
        rows = sum(table.rows for table in handed.tables)
        differing = handed.differing
        result = "the same" if not differing else f"not the same: {', '.join(differing[:10])}"
        message = f"{len(handed.tables)} tables, {rows} rows, {handed.checked} the cut: {result}"
        work.note(conn, kind="compared", action="move", message=message)


def note_pause(conn: Connection, work: TenantWork) -> None:
    found = _move(work)
    pause = move.pause_of(conn, found.id)
    message = f"no write was taken for {pause or 0.0:.3f} s"
    work.note(conn, kind="paused", action=found.kind.value, message=message, seconds=pause)
