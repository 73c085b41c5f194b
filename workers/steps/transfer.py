"""The acts of a transfer: see `domain.transfer` for its phases, `providers.moves` for how rows are carried.

    begin ─▶ place ─▶ (the target is made) ─▶ copy ─▶ cut over ─▶ … confirmed ─▶ remove

The kinds differ in where rows come from (`_COPY`) and in what is carried in the pause (`_HAND_OVER`); what a
restore has beside that stands in `restored_cluster`. The cut is one transaction of the registry. Before it
the source is the tenant's database, and a failure opens it again; after it the target is, and a failure is
gone on from. A worker that dies in the pause leaves a transfer that is `cut`: nothing else is planned for it
then but to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from controlplane.domain.catalogue import Isolation
from controlplane.domain.errors import ControlPlaneError, LeaseLost, NeedsHuman, Pending, Retryable
from controlplane.domain.steps import StepName
from controlplane.domain.transfer import KEEP_SOURCE_DAYS, TransferKind, TransferPhase
from controlplane.services import clusters, transfers
from controlplane.store import audit, cluster, placement, tenant, transfer
from controlplane.store.registry import Connection, RegistryUnavailable
from controlplane.store.transfer import TransferRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.record import TenantRecord, endpoint_of, load_tenant
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.providers.ports import Copied, HandedOver, Home, MoveRun
from controlplane.workers.steps.registry import tenant_step
from controlplane.workers.steps.restored_cluster import home_of_then
from controlplane.workers.steps.routes import publish_route

T = TypeVar("T")

ROLLOUT_POLL = 5.0  # seconds
CLONE_RUNBOOK = "clone"


@tenant_step(
    StepName.BEGIN_TRANSFER,
    "its plan asks for another kind of cluster: a move is recorded",
    again="one that is not over stands in the way of another",
)
def begin_transfer(work: TenantWork) -> None:
    row, actor, reason = work.record.row, work.job.actor, work.step.reason
    with work.recording() as conn:
        begun = transfers.begin(
            conn,
            row,
            TransferKind.MOVE,
            destination=work.step.target,
            by_hand=False,
            actor=actor,
            reason=reason,
        )
        detail = {**begun, "to": work.step.target, "reason": reason}
        audit.append(conn, actor=actor, action=transfers.BEGIN, resource=row.id, detail=detail)


@tenant_step(
    StepName.PLACE_TRANSFER,
    "a move: can the source's log be followed? Then a free slot, or a new cluster; the placement is "
    "recorded, with all its names. A restore's goes to the kind of cluster that the tenant lives on, a "
    "clone's to the plan's",
    again="one transaction",
    both_placements=True,
)
def place_transfer(work: TenantWork) -> None:
    if work.transfer.kind is TransferKind.MOVE:  # before a cluster is made for it
        require_followable(work.ctx, work.record)
    with work.recording() as conn:
        transfers.place(conn, work.ctx.catalogue, work.plan, work.transfer, actor=work.job.actor)


def require_followable(ctx: Context, record: TenantRecord) -> None:
    """Raises NeedsHuman("move") where the cluster that the tenant lives on keeps no log for a move to follow:
    a move that can't be ended must not begin."""
    source = record.home()
    if source is None:
        raise Pending("the cluster it lives on has no endpoint yet", after=ctx.platform.cluster_poll)
    ctx.providers.moves.require_followable(source)


# ------------------------------------------------------------------------------------------- the copy


@tenant_step(
    StepName.BEGIN_COPY,
    "a publication and a logical replication slot: from here on the source keeps what is written",
    again="a slot that is there is the one; what a killed run left without it is dropped first",
    both_placements=True,
)
def begin_copy(work: TenantWork) -> None:
    _no_rollout(work)
    source, target = work.ends
    _clearing_if_refused(work, lambda: work.ctx.providers.moves.begin(source, target, _run(work)))


@tenant_step(
    StepName.COPY_ROWS,
    "every row of one moment, in one transaction of the target; a restore's and a clone's with sequences "
    "and materialised views, compared by count and checksum. The restored cluster is let go, and a clone is "
    "over, in the transaction of the registry that records this",
    again="rows that are not recorded as copied are copied anew",
    both_placements=True,
    long=True,
)
def copy_rows(work: TenantWork) -> None:
    found = work.transfer
    with work.recording() as conn:
        transfer.turn(conn, found.id, TransferPhase.COPYING)
    copied = _COPY[found.kind](work)
    with work.recording() as conn:
        transfer.copied(conn, found, rows=copied.rows, size=copied.size)
        if copied.compared:
            tables = [asdict(table) for table in copied.compared]
            transfer.set_compared(conn, found.id, tables, checked="before")
        transfers.close_restored(conn, found, actor=work.job.actor)
        transfers.note(conn, found, "copied", actor=work.job.actor, rows=copied.rows)
        message = copied.summary + (", compared: the same" if copied.compared else "")
        work.note(conn, kind="copied", action=found.kind.value, message=message, seconds=copied.seconds)


def _copy_of_now(work: TenantWork) -> Copied:
    source, target = work.ends
    _no_rollout(work)
    return _clearing_if_refused(work, lambda: work.ctx.providers.moves.copy(source, target, _run(work)))


def _copy_of_then(work: TenantWork) -> Copied:
    source = home_of_then(work)
    return work.ctx.providers.moves.clone(source, work.ends[1], _run(work))


def _copy_of_another(work: TenantWork) -> Copied:
    clone_of = work.record.row.clone_of
    record = None if clone_of is None else load_tenant(work.ctx, clone_of)
    if record is None or record.placement is None or record.cluster is None:
        raise NeedsHuman(f"{clone_of} has no database to clone any more", runbook=CLONE_RUNBOOK)
    source = record.home()
    if source is None:
        raise Pending("the source's cluster has no endpoint", after=work.ctx.platform.cluster_poll)
    return work.ctx.providers.moves.clone(source, Home(work.at, work.placement), _run(work))


_COPY: dict[TransferKind, Callable[[TenantWork], Copied]] = {
    TransferKind.MOVE: _copy_of_now,
    TransferKind.RESTORE: _copy_of_then,
    TransferKind.CLONE: _copy_of_another,
}


# -------------------------------------------------------------------------------------------- the cut


@tenant_step(
    StepName.CUT_OVER,
    "follows what was written since; then the pause: the application's logins are closed and its "
    "sessions ended, the rest of the log is carried to its end, sequences, tables without a key, "
    "a comparison, and one transaction of the registry that makes the target current; the routes "
    "are published with a new epoch. In a restore's pause nothing is carried",
    again="the log is carried on from where the target says; the cut is one transaction",
    both_placements=True,
    long=True,
)
def cut_over(work: TenantWork) -> None:
    """Until the cut a failure opens the source again."""
    found, (source, target) = work.transfer, work.ends
    secondary = work.goal.secondary
    if secondary is None:
        raise NeedsHuman(f"transfer {found.id} has no target", runbook="internal-error")
    _no_rollout(work)
    cut = False

    def pause() -> None:
        with work.recording() as conn:
            transfer.turn(conn, found.id, TransferPhase.CUT)
        work.ctx.providers.databases.close_logins(source.at, source.placement)

    def take_over() -> None:
        nonlocal cut
        with work.recording() as conn:
            row = tenant.get(conn, work.record.row.id, lock=True)
            if row.generation != work.record.row.generation:
                raise Retryable(f"{row.id} has changed meanwhile")
            transfer.cut(conn, found, keep_days=KEEP_SOURCE_DAYS)
            transfers.note(conn, found, "cut", actor=work.job.actor, placement=target.placement.id)
        cut = True
        for payload in secondary.routes.values():
            publish_route(work, payload)
        with work.recording() as conn:
            transfer.served_again(conn, found.id)

    try:
        handed = _HAND_OVER[found.kind](work, pause, take_over)
    except (LeaseLost, RegistryUnavailable):
        raise
    except ControlPlaneError as error:
        if not cut:
            _go_back(work, source)
            if isinstance(error, NeedsHuman) and found.kind is TransferKind.MOVE:
                work.ctx.providers.moves.clear(source, target)
        raise
    with work.recording() as conn:
        if handed is not None:
            _record_comparison(conn, work, found, handed)
        _note_pause(conn, work, found)


def _hand_over_rows(work: TenantWork, pause: Callable[[], None], cut: Callable[[], None]) -> HandedOver:
    source, target = work.ends
    return work.ctx.providers.moves.hand_over(source, target, _run(work), pause=pause, cut=cut)


def _hand_over_nothing(work: TenantWork, pause: Callable[[], None], cut: Callable[[], None]) -> None:
    """What was written after the restored moment stays in the former database."""
    pause()
    work.hold.check()
    cut()


_HandOver = Callable[[TenantWork, Callable[[], None], Callable[[], None]], HandedOver | None]
"""(work, pause, cut) → what was compared; calls `pause`, which ends all writing to the source, and `cut`,
which makes the target the one that is used."""
_HAND_OVER: dict[TransferKind, _HandOver] = {
    TransferKind.MOVE: _hand_over_rows,
    TransferKind.RESTORE: _hand_over_nothing,
}


def _go_back(work: TenantWork, source: Home) -> None:
    """The source is in use again."""
    began = time.monotonic()
    work.ctx.providers.databases.open_logins(
        source.at, source.placement, connection_limit=work.plan.connection_limit
    )
    with work.recording() as conn:
        found = transfer.get(conn, work.transfer.id)
        if found.phase is TransferPhase.CUT:
            transfer.turn(conn, found.id, TransferPhase.FOLLOWING)
            took = time.monotonic() - began
            message = "the source is in use again"
            work.note(conn, kind="went back", action=found.kind.value, message=message, seconds=took)


def _record_comparison(conn: Connection, work: TenantWork, found: TransferRow, handed: HandedOver) -> None:
    tables = [asdict(table) for table in handed.tables]
    transfer.set_compared(conn, found.id, tables, checked=handed.checked)
    rows = sum(table.rows for table in handed.tables)
    differing = handed.differing
    result = "the same" if not differing else f"not the same: {', '.join(differing[:10])}"
    message = f"{len(handed.tables)} tables, {rows} rows, {handed.checked} the cut: {result}"
    work.note(conn, kind="compared", action=found.kind.value, message=message)


def _note_pause(conn: Connection, work: TenantWork, found: TransferRow) -> None:
    pause = transfer.get(conn, found.id).pause_seconds
    message = f"no write was taken for {pause or 0.0:.3f} s"
    work.note(conn, kind="paused", action=found.kind.value, message=message, seconds=pause)


@tenant_step(
    StepName.END_COPY,
    "slot, publication and the target's bookkeeping go",
    again="gone already is success",
    both_placements=True,
)
def end_copy(work: TenantWork) -> None:
    source, target = work.ends
    work.ctx.providers.moves.clear(source, target)
    with work.recording() as conn:
        transfer.mark_cleared(conn, work.transfer.id)


# -------------------------------------------------------------------------------------------- the end


@tenant_step(
    StepName.CONFIRM_TRANSFER,
    "after seven days, or where the tenant leaves, the transfer is good without anybody's word",
    again="a phase is reached once",
    both_placements=True,
)
def confirm_transfer(work: TenantWork) -> None:
    """Unasked: the source has been kept for its time, or its tenant leaves, and it holds nothing that the
    target lacks. Raises Retryable where a person has decided meanwhile."""
    found = work.transfer
    with work.recording() as conn:
        transfer.turn(conn, found.id, TransferPhase.CONFIRMED, sources=[TransferPhase.REVERSIBLE])
        transfers.note(conn, found, "confirmed", actor=work.job.actor, reason=work.step.reason)


@tenant_step(
    StepName.ABORT_TRANSFER,
    "the tenant leaves, or its plan asks for another kind of cluster by now: the target goes",
    again="a phase is reached once",
    both_placements=True,
)
def abort_transfer(work: TenantWork) -> None:
    """Raises Retryable where a person has decided meanwhile. A clone's target is where it lives, and goes
    with it."""
    found = work.transfer
    with work.recording() as conn:
        transfer.turn(conn, found.id, TransferPhase.ABORTED)
        transfers.close_restored(conn, found, actor=work.job.actor)
        transfers.note(conn, found, "aborted", actor=work.job.actor, reason=work.step.reason)
        if found.kind is TransferKind.CLONE:
            transfer.finish(conn, found.id)


@tenant_step(
    StepName.REMOVE_PLACEMENT,
    "what is left of the placement that is not used: database, logins, slot; its cluster's operation takes "
    "the secret away",
    again="gone already is success",
    both_placements=True,
    deletes=True,
)
def remove_placement(work: TenantWork) -> None:
    """Delete what is left of the placement that is not used: by the word of whoever confirmed the transfer or
    aborted it, and never the current one."""
    found = work.transfer
    if found.phase not in (TransferPhase.CONFIRMED, TransferPhase.ABORTED):
        raise NeedsHuman(f"transfer {found.id} is {found.phase.value}", runbook="internal-error")
    secondary = work.record.secondary
    if secondary is not None and secondary.placement is not None:
        _remove(work, secondary)
    with work.recording() as conn:
        if secondary is not None and secondary.placement is not None:
            by = f"transfer {found.id}, a {found.kind.value} of {found.tenant_id}, was {found.phase.value}"
            placement.release(conn, secondary.placement, by=by, actor=work.job.actor)
            _let_go(conn, work, secondary.placement.cluster_id)
        transfer.finish(conn, found.id)
        transfers.note(conn, found, "finished", actor=work.job.actor, phase=found.phase.value)


def _remove(work: TenantWork, secondary: TenantRecord) -> None:
    placed, home = secondary.placement, secondary.cluster
    if placed is None or home is None or placed == work.record.placement:
        raise NeedsHuman(f"{work.record.row.id}: this is the placement in use", runbook="internal-error")
    at = endpoint_of(home)
    if at is not None:
        work.hold.check()
        work.ctx.providers.databases.drop(at, placed)


def _let_go(conn: Connection, work: TenantWork, cluster_id: str) -> None:
    """A cluster that was its alone has had its time: its backups hold this tenant's data, so it becomes
    nobody else's."""
    home = cluster.get(conn, cluster_id, lock=True)
    if home.spec.isolation is not Isolation.DEDICATED or cluster.tenants_on(conn, cluster_id):
        return
    clusters.close(conn, home, reason=f"{work.record.row.id} has moved away", actor=work.job.actor)


# ------------------------------------------------------------------------------------------- shared


def _run(work: TenantWork) -> MoveRun:
    return MoveRun(fencing_token=work.job.fencing_token, stopped=work.hold.lost)


def _no_rollout(work: TenantWork) -> None:
    """Rollouts pass over a tenant with a transfer; one that was at it already finishes first."""
    with work.ctx.registry.connection() as conn:
        if transfer.rollout_is_at(conn, work.record.row.id):
            raise Pending("a rollout is changing its schema", after=ROLLOUT_POLL)


def _clearing_if_refused(work: TenantWork, act: Callable[[], T]) -> T:
    """A move that waits for a person must not keep the source's log meanwhile."""
    try:
        return act()
    except NeedsHuman:
        work.ctx.providers.moves.clear(*work.ends)
        raise
